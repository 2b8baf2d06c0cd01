"""What every particle format is read into, before it is checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cryoscape.errors import InputError

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class OpticsGroup:
    """Particles imaged under the same conditions.

    Attributes
    ----------
    name : str
    pixel_size : float
        Angstrom per pixel of the particle images.
    box : int
        Side of the particle images, pixels.
    voltage : float
        kV.
    cs : float
        Spherical aberration, mm.
    amplitude_contrast : float
        Fraction.
    beam_tilt : tuple of two floats
        (x, y) in mrad.
    even_zernike, odd_zernike : tuple of float
        RELION's symmetric and antisymmetric aberration coefficients; empty where not fitted.
    ctf_premultiplied : bool
        The stored images were multiplied by their CTF, so the signal carries CTF squared.
    phase_flipped : bool
        The stored images were multiplied by the sign of their CTF, so the signal carries |CTF|.
    magnification : tuple of four floats
        RELION's anisotropic magnification matrix (m00, m01, m10, m11); the identity where not fitted.
    """

    name: str
    pixel_size: float
    box: int
    voltage: float
    cs: float
    amplitude_contrast: float
    beam_tilt: tuple[float, float] = (0.0, 0.0)
    even_zernike: tuple[float, ...] = ()
    odd_zernike: tuple[float, ...] = ()
    ctf_premultiplied: bool = False
    phase_flipped: bool = False
    magnification: tuple[float, float, float, float] = (1.0, 0.0, 0.0, 1.0)


class SourceTable(Protocol):
    """The user's own table, able to write some of its rows back."""

    path: Path
    suffix: str

    def write(
        self,
        path: str | PathLike[str],
        rows: Integers,
        columns: Mapping[str, ArrayLike],
        image_paths: Sequence[Path],
        uid: NDArray[np.uint64],
    ) -> None:
        """Write the rows (from 0) with added columns, so that their images and identities are found."""
        ...

    def pose_columns(
        self, rows: Integers, rotations: Floats, shifts: Floats, changed: NDArray[np.bool_], pixel: Floats
    ) -> dict[str, ArrayLike]:
        """Columns with new poses of the rows, the old ones as they stand where nothing changed."""
        ...


@dataclass
class ParticleTable:
    """A particle table of N rows as read: complete, in house units, not yet checked.

    Attributes
    ----------
    path : Path
        The file.
    file_names : list of str
        Distinct image files as the table names them.
    file, index : ndarray, shape (N,)
        File number and image number (from 0) of every row.
    rotations : ndarray, shape (N, 3, 3), or None
        From model coordinates to the view frame.
    shifts : ndarray, shape (N, 2)
        Angstrom.
    defocus_u, defocus_v, defocus_angle, phase_shift, ctf_bfactor, ctf_scale : ndarray, shape (N,)
        Angstrom, Angstrom, degrees, degrees, Angstrom^2, 1.
    group : ndarray, shape (N,)
        Index into `optics`.
    optics : list of OpticsGroup
        A box of 0 where the table does not tell.
    half : ndarray, shape (N,), or None
        1 or 2, where the table tells.
    uid : ndarray, shape (N,), uint64, or None
        Identity of every particle, where the table tells.
    micrograph : ndarray, shape (N,)
        Codes of the micrographs.
    data_sign : int
        -1 where the stored images are to be multiplied by -1 for protein to be positive.
    source : SourceTable
        For writing back.
    """

    path: Path
    file_names: list[str]
    file: Integers
    index: Integers
    rotations: Floats | None
    shifts: Floats
    defocus_u: Floats
    defocus_v: Floats
    defocus_angle: Floats
    phase_shift: Floats
    ctf_bfactor: Floats
    ctf_scale: Floats
    group: Integers
    optics: list[OpticsGroup]
    half: NDArray[np.int8] | None
    uid: NDArray[np.uint64] | None
    micrograph: Integers
    data_sign: int
    source: SourceTable

    def __len__(self) -> int:
        return len(self.index)


@dataclass(frozen=True)
class Fingerprint:
    """Size and time of a file, to notice that it was replaced after it was read."""

    path: Path
    size: int
    modified: int

    @classmethod
    def of(cls, path: str | PathLike[str]) -> Fingerprint:
        """Take the fingerprint of a file now."""
        status = Path(path).stat()
        return cls(Path(path).absolute(), status.st_size, status.st_mtime_ns)

    def check(self) -> None:
        """Refuse to go on where the file is no longer the one that was read.

        Raises
        ------
        InputError
            If it was replaced or removed.
        """
        if not self.path.is_file() or Fingerprint.of(self.path) != self:
            raise InputError(
                "the file was changed after it was read",
                file=self.path,
                remedy="Start again with the present file, or put the former one back.",
            )


def encode(names: list[str]) -> tuple[list[str], Integers]:
    """Number the distinct names in order of first appearance.

    Parameters
    ----------
    names : list of str, length n

    Returns
    -------
    distinct : list of str
    codes : ndarray, shape (n,), int64
    """
    codes: dict[str, int] = {}
    numbered = np.fromiter((codes.setdefault(s, len(codes)) for s in names), np.int64, len(names))
    return list(codes), numbered


def subset_to_half(values: Integers, first: int, path: Path, column: str) -> NDArray[np.int8] | None:
    """Half-set numbers 1 and 2 from a table's column.

    Parameters
    ----------
    values : ndarray, shape (N,)
        The column.
    first : int
        The number of the first half in that format.
    path : Path
        The table, for messages.
    column : str
        The column's name, for messages.

    Returns
    -------
    ndarray, shape (N,), int8, or None
        None where all rows are in one set, which then says nothing about halves.

    Raises
    ------
    InputError
        If some rows are in neither half.
    """
    if len(values) == 0 or (values == values[0]).all():
        return None
    half = values - first + 1
    bad = (half != 1) & (half != 2)
    if bad.any():
        row = int(np.argmax(bad))
        raise InputError(
            f"{column} is {values[row]}, where {first} or {first + 1} is expected",
            file=path,
            row=row + 1,
            remedy=f"Give every row a half set, or take the column {column} out.",
        )
    return half.astype(np.int8)
