"""Density maps and new image stacks in MRC/CCP4 format."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
from mrcfile.mrcobject import MrcObject
from numpy.typing import ArrayLike, DTypeLike, NDArray

from cryoscape.errors import InputError
from cryoscape.files import atomic_path, explain_os_errors

# Voxels longer on one axis than on another by more than this fraction are no rounding.
_ANISOTROPY = 1e-3
_STACK_MODES = {np.dtype(k): mode for k, mode in (("i1", 0), ("i2", 1), ("f4", 2), ("u2", 6), ("f2", 12))}
_WHERE_SPACE_GROUP = 22


@dataclass(frozen=True)
class Map:
    """A density map.

    Attributes
    ----------
    data : ndarray, shape (Z, Y, X), float32
        Axes in the order z, y, x, whatever their order in the file.
    voxel_size : float
        Angstrom; 1 where the file does not tell.
    origin : ndarray, shape (3,), float64
        Position (x, y, z) of voxel (0, 0, 0) in Angstrom.
    voxel_size_known : bool
        False where the header has 0 or 1, which programs write for "unknown".
    """

    data: NDArray[np.float32]
    voxel_size: float
    origin: NDArray[np.float64]
    voxel_size_known: bool


def read_map(path: str | PathLike[str]) -> Map:
    """Read a density map.

    The position of the first voxel is the header's `origin` where that is set, else `nxstart` times
    the voxel size: programs write one or the other, and `origin` is the more recent.

    Parameters
    ----------
    path : path
        An `.mrc`, `.map` or `.ccp4` file, also gzipped.

    Returns
    -------
    Map

    Raises
    ------
    InputError
        If the file is missing, truncated, no map, or its voxels are not cubes.
    """
    again = "Use a map in MRC or CCP4 format."
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            with mrcfile.open(path, mode="r") as mrc:
                return _from_file(path, mrc)
    except InputError:
        raise
    except OSError as error:
        raise InputError(
            f"the map cannot be read ({error.strerror or error})", file=path, remedy="Check the path."
        ) from error
    except (ValueError, EOFError) as error:
        raise InputError(f"this is not a whole map ({error})", file=path, remedy=again) from error


def _from_file(path: str | PathLike[str], mrc: MrcObject) -> Map:
    header = mrc.header
    data: NDArray[Any] = np.asarray(mrc.data)
    if data.ndim != 3 or data.dtype.kind == "c":
        raise InputError(
            f"this is not a density map but {data.ndim}-dimensional {data.dtype}",
            file=path,
            remedy="Name a map of real numbers in three dimensions.",
        )
    # mapc, mapr, maps say which of x, y, z (1, 2, 3) the columns, rows and sections run along.
    stored = [int(header.maps), int(header.mapr), int(header.mapc)]
    if sorted(stored) != [1, 2, 3]:
        stored = [3, 2, 1]
    to_zyx = [stored.index(axis) for axis in (3, 2, 1)]
    start_zyx = np.array([header.nzstart, header.nystart, header.nxstart], dtype=np.float64)[to_zyx]
    voxel = np.array([mrc.voxel_size.x, mrc.voxel_size.y, mrc.voxel_size.z], dtype=np.float64)
    known = bool(np.isfinite(voxel).all() and (voxel > 0).all() and not (voxel == 1).all())
    if not np.isfinite(voxel).all() or not (voxel > 0).all():
        voxel = np.ones(3)
    if voxel.max() > voxel.min() * (1 + _ANISOTROPY):
        raise InputError(
            f"the voxels are {voxel[0]:g} x {voxel[1]:g} x {voxel[2]:g} A, not cubes",
            file=path,
            remedy="Resample the map on a cubic grid.",
        )
    origin = np.array([header.origin.x, header.origin.y, header.origin.z], dtype=np.float64)
    if not origin.any():
        origin = start_zyx[::-1] * voxel
    return Map(
        data=np.ascontiguousarray(data.transpose(to_zyx), dtype=np.float32),
        voxel_size=_clean(voxel.mean()),
        origin=origin,
        voxel_size_known=known,
    )


def _clean(value: float) -> float:
    """The decimal number that a 32-bit header was meant to hold."""
    return float(f"{value:.6g}")


def write_map(
    path: str | PathLike[str],
    data: ArrayLike,
    voxel_size: float,
    *,
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0),
) -> None:
    """Write a density map, 32-bit.

    Parameters
    ----------
    path : path
        The file; written atomically.
    data : array_like, shape (Z, Y, X)
        The density.
    voxel_size : float
        Angstrom.
    origin : tuple of float
        Position (x, y, z) of voxel (0, 0, 0), Angstrom.

    Raises
    ------
    ValueError
        If the data are not three-dimensional.
    InputError
        If the disk is full or the folder cannot be written to.
    """
    array = np.asarray(data, dtype=np.float32)
    if array.ndim != 3:
        raise ValueError(f"a map has three axes, not {array.ndim}")
    compression = "gzip" if Path(path).suffix == ".gz" else None
    with (
        atomic_path(path) as temporary,
        mrcfile.new(temporary, array, compression=compression, overwrite=True) as mrc,
    ):
        # Without this a cube of images and a map look alike to other programs.
        mrc.set_volume()
        mrc.voxel_size = voxel_size
        mrc.header.origin = origin
        start = mrc.header.origin
        start.x, start.y, start.z = np.asarray(origin, dtype=np.float64)


def open_stack_writer(
    path: str | PathLike[str], n: int, box: int, pixel_size: float, dtype: DTypeLike = np.float32
) -> np.memmap[Any, Any]:
    """Make an image stack on the disk and return its pixels for writing.

    The space is taken at once, so that a full disk is found here and not as a crash half-way.

    Parameters
    ----------
    path : path
        The `.mrcs` file; its folder is made if need be.
    n : int
        Number of images.
    box : int
        Side of the images, pixels.
    pixel_size : float
        Angstrom per pixel.
    dtype : dtype
        float32, float16, int16, uint16 or int8.

    Returns
    -------
    memmap, shape (n, box, box)
        Pixels, all zero; call `flush` when done.

    Raises
    ------
    ValueError
        If the type has no MRC mode.
    InputError
        If the disk is full or the folder cannot be written to.
    """
    kind = np.dtype(dtype)
    if kind not in _STACK_MODES:
        raise ValueError(f"MRC stacks do not hold {kind}")
    header = np.zeros(256, dtype="<i4")
    floats = header.view("<f4")
    header[:4] = box, box, n, _STACK_MODES[kind]
    header[7:10] = box, box, n
    floats[10:13] = box * pixel_size, box * pixel_size, n * pixel_size
    floats[13:16] = 90.0
    header[16:19] = 1, 2, 3
    # Maximum below minimum: the statistics are not known (MRC2014).
    floats[19:22] = 0.0, -1.0, -2.0
    # Space group 0 marks a stack of images.
    header[_WHERE_SPACE_GROUP] = 0
    header[27] = 20140
    header[52:54] = np.frombuffer(b"MAP DD\x00\x00", dtype="<i4")
    floats[54] = -1.0
    path = Path(path)
    size = header.nbytes + n * box * box * kind.itemsize
    with explain_os_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(path, "wb") as handle:
                handle.write(header.tobytes())
                handle.flush()
                _take_space(handle.fileno(), size)
        except OSError:
            path.unlink(missing_ok=True)
            raise
    return np.memmap(path, dtype=kind, mode="r+", offset=header.nbytes, shape=(n, box, box))


def _take_space(descriptor: int, size: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size)
    else:
        os.ftruncate(descriptor, size)
