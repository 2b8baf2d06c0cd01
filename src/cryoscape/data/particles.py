"""Particle images with their poses, CTF and identity."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cryoscape.data.checks import bad_pixels, check_table
from cryoscape.data.cryosparc import read_cryosparc
from cryoscape.data.locating import resolve_paths
from cryoscape.data.relion import read_relion
from cryoscape.data.stack import ImageStack
from cryoscape.data.table import OpticsGroup, ParticleTable, SourceTable
from cryoscape.errors import InputError

__all__ = ["OpticsGroup", "Particles", "check_pixels"]

_HALVES_SEED = 20
_MIX = (np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


@dataclass(frozen=True)
class Particles:
    """N particle images and what is known of each.

    Attributes
    ----------
    rotations : ndarray, shape (N, 3, 3), float64, or None
        From model coordinates to the view frame; None only where poses were not required.
    shifts : ndarray, shape (N, 2), float64
        (x, y) in Angstrom by which the image shows the projection moved.
    defocus_u, defocus_v : ndarray, shape (N,), float64
        Angstrom, underfocus positive.
    defocus_angle, phase_shift : ndarray, shape (N,), float64
        Degrees.
    ctf_bfactor : ndarray, shape (N,), float64
        Angstrom^2.
    ctf_scale : ndarray, shape (N,), float64
    group : ndarray, shape (N,), int64
        Index into `optics`.
    optics : tuple of OpticsGroup
    half : ndarray, shape (N,), int8
        1 or 2.
    half_source : str
        "file" or "seeded" (by micrograph, the same at every reading).
    uid : ndarray, shape (N,), uint64
        Identity of every particle: cryoSPARC's uid, else a hash of its image's name.
    row : ndarray, shape (N,), int64
        Row of the source table, from 0.
    micrograph : ndarray, shape (N,), int64
        Code of the micrograph (of the image file where the table names no micrograph).
    data_sign : int
        What stored pixels are multiplied by for protein to be positive.
    stack : ImageStack
        The images.
    source : SourceTable
        The table as read, for writing it back.
    datadir : Path or None
        The folder that `read` was given for images.
    """

    rotations: NDArray[np.float64] | None
    shifts: NDArray[np.float64]
    defocus_u: NDArray[np.float64]
    defocus_v: NDArray[np.float64]
    defocus_angle: NDArray[np.float64]
    phase_shift: NDArray[np.float64]
    ctf_bfactor: NDArray[np.float64]
    ctf_scale: NDArray[np.float64]
    group: NDArray[np.int64]
    optics: tuple[OpticsGroup, ...]
    half: NDArray[np.int8]
    half_source: str
    uid: NDArray[np.uint64]
    row: NDArray[np.int64]
    micrograph: NDArray[np.int64]
    data_sign: int
    stack: ImageStack
    source: SourceTable
    datadir: Path | None = None

    @classmethod
    def read(
        cls,
        path: str | PathLike[str],
        datadir: str | PathLike[str] | None = None,
        *,
        passthrough: str | PathLike[str] | Sequence[str | PathLike[str]] = (),
        require_poses: bool = True,
    ) -> Particles:
        """Read a RELION or cryoSPARC particle table; images stay on the disk.

        Parameters
        ----------
        path : path
            A `.star` file (RELION 3.0 to 5) or a `.cs` file.
        datadir : path, optional
            Where images are looked up that are neither beside the table nor below a folder above it.
        passthrough : path or sequence of path
            cryoSPARC's passthrough files; looked for beside the table where none is named.
        require_poses : bool
            Refuse a table without orientations.

        Returns
        -------
        Particles

        Raises
        ------
        InputError
            If the table or its images are unusable; the message names the file, the row and the remedy.
        """
        path = Path(path)
        if not path.is_file():
            raise InputError("the file does not exist", file=path, remedy="Check the path.")
        if path.suffix.lower() == ".star":
            table = read_relion(path)
        elif path.suffix.lower() == ".cs":
            paths = [passthrough] if isinstance(passthrough, str | PathLike) else list(passthrough)
            table = read_cryosparc(path, paths)
        else:
            raise InputError(
                f"particles cannot be read from a {path.suffix or 'suffixless'} file",
                file=path,
                remedy="Name a RELION .star or a cryoSPARC .cs file.",
            )
        return cls._from_table(table, datadir, require_poses)

    @classmethod
    def _from_table(
        cls, table: ParticleTable, datadir: str | PathLike[str] | None, require_poses: bool
    ) -> Particles:
        first = np.unique(table.file, return_index=True)[1]
        stack = ImageStack(
            resolve_paths(table.file_names, table.path, datadir, first),
            table.file,
            table.index,
            table=table.path,
        )
        optics = check_table(table, stack, require_poses=require_poses)
        seeded = table.half is None
        return cls(
            rotations=table.rotations,
            shifts=table.shifts,
            defocus_u=table.defocus_u,
            defocus_v=table.defocus_v,
            defocus_angle=table.defocus_angle,
            phase_shift=table.phase_shift,
            ctf_bfactor=table.ctf_bfactor,
            ctf_scale=table.ctf_scale,
            group=table.group,
            optics=tuple(optics),
            half=seeded_halves(table.micrograph) if table.half is None else table.half,
            half_source="seeded" if seeded else "file",
            uid=image_uid(table.file_names, table.file, table.index) if table.uid is None else table.uid,
            row=np.arange(len(table), dtype=np.int64),
            micrograph=table.micrograph,
            data_sign=table.data_sign,
            stack=stack,
            source=table.source,
            datadir=None if datadir is None else Path(datadir),
        )

    def __len__(self) -> int:
        return len(self.row)

    @property
    def n(self) -> int:
        """Number of particles."""
        return len(self.row)

    @property
    def box(self) -> int:
        """Side of the images, pixels."""
        return self.stack.box

    @property
    def pixel_size(self) -> float:
        """Angstrom per pixel, the same for all optics groups."""
        return self.optics[int(self.group[0])].pixel_size

    def images(self, rows: ArrayLike) -> NDArray[np.float32]:
        """Images with positive protein.

        Parameters
        ----------
        rows : array_like of int, shape (n,)
            Positions in this set (not rows of the source table); any order, repeats allowed.

        Returns
        -------
        ndarray, shape (n, D, D), float32
            (particle, y, x), the stored pixels times `data_sign`.
        """
        images = self.stack.images(rows)
        return images if self.data_sign == 1 else np.negative(images, out=images)

    def select(self, rows: ArrayLike) -> Particles:
        """Some of the particles, in the order asked for.

        Parameters
        ----------
        rows : array_like, shape (n,) of int or (N,) of bool
            Positions in this set, or a mask.

        Returns
        -------
        Particles
        """
        rows = np.asarray(rows)
        rows = np.flatnonzero(rows) if rows.dtype == bool else rows.astype(np.int64)
        chosen: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, np.ndarray):
                chosen[field.name] = value[rows]
        return replace(self, stack=self.stack.select(rows), **chosen)

    def with_sign(self, sign: int) -> Particles:
        """The same particles with another sign of the data.

        Parameters
        ----------
        sign : int
            1 or -1.

        Returns
        -------
        Particles

        Raises
        ------
        ValueError
            For any other sign.
        """
        if sign not in (1, -1):
            raise ValueError(f"the sign is 1 or -1, not {sign}")
        return replace(self, data_sign=sign)

    def write(self, path: str | PathLike[str], columns: Mapping[str, ArrayLike] | None = None) -> None:
        """Write these particles' rows of the user's own table, with added columns.

        A table of the same format is written back token for token (of a `.cs` with passthrough: all
        fields). Only where an image's name would not lead to the same file from the new folder is it
        replaced by the absolute path. A table of the other format is made from the values here.

        Parameters
        ----------
        path : path
            A `.star` or `.cs` file; written atomically.
        columns : mapping, optional
            Names to arrays of shape (N,) or (N, d). A STAR file gets d columns name1 to named.

        Raises
        ------
        InputError
            If the suffix is another, the source has changed, or the file cannot be written.
        ValueError
            If a column's length is not N.
        """
        path = Path(path)
        columns = dict(columns or {})
        for name, values in columns.items():
            if np.asarray(values).shape[:1] != (self.n,):
                raise ValueError(f"column {name} has {np.asarray(values).shape[:1]} rows, not {self.n}")
        if path.suffix.lower() == self.source.suffix:
            self.source.write(path, self.row, columns, self.stack.paths, self.uid)
        else:
            from cryoscape.data.conversion import write_converted

            write_converted(self, path, columns)


def seeded_halves(micrograph: NDArray[np.int64]) -> NDArray[np.int8]:
    """Two halves of about equal size that share no micrograph.

    Overlapping picks and common motion tie particles of one micrograph together, so micrographs are
    kept whole. A single micrograph is split by particle.

    Parameters
    ----------
    micrograph : ndarray, shape (N,), int64
        Codes.

    Returns
    -------
    ndarray, shape (N,), int8
        1 or 2; the same for the same codes.
    """
    rng = np.random.default_rng(_HALVES_SEED)
    _, code, count = np.unique(micrograph, return_inverse=True, return_counts=True)
    if len(count) == 1:
        code, count = np.arange(len(micrograph)), np.ones(len(micrograph), dtype=np.int64)
    half_of = np.empty(len(count), dtype=np.int8)
    size = [0, 0]
    for m in rng.permutation(len(count)):
        smaller = int(size[1] < size[0])
        half_of[m] = smaller + 1
        size[smaller] += int(count[m])
    return half_of[code]


def image_uid(file_names: list[str], file: NDArray[np.int64], index: NDArray[np.int64]) -> NDArray[np.uint64]:
    """A number for every image, made from the name of its file and its place there.

    Rows that repeat an image (symmetry expansion) get different numbers by their order.

    Parameters
    ----------
    file_names : list of str
        Distinct names as they stand in the table.
    file, index : ndarray, shape (N,)
        File number and image number.

    Returns
    -------
    ndarray, shape (N,), uint64
    """
    digests = [hashlib.blake2b(name.encode(), digest_size=8).digest() for name in file_names]
    base = np.frombuffer(b"".join(digests), dtype="<u8")[file]
    uid = _scramble(base + index.astype(np.uint64) * _MIX[0])
    _, code, count = np.unique(uid, return_inverse=True, return_counts=True)
    if (count > 1).any():
        order = np.argsort(code, kind="stable")
        starts = np.concatenate([[0], np.cumsum(count)[:-1]])
        repeat = np.empty(len(uid), dtype=np.uint64)
        repeat[order] = np.arange(len(uid)) - np.repeat(starts, count)
        uid = np.where(repeat > 0, _scramble(uid + repeat * _MIX[0]), uid)
    return uid


def _scramble(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of splitmix64 (Steele, Lea and Flood, OOPSLA 2014)."""
    x = (x ^ (x >> np.uint64(30))) * _MIX[1]
    x = (x ^ (x >> np.uint64(27))) * _MIX[2]
    return x ^ (x >> np.uint64(31))


def check_pixels(particles: Particles, rows: ArrayLike | None = None, batch: int = 512) -> None:
    """Refuse images with NaN or infinite pixels and constant images.

    Parameters
    ----------
    particles : Particles
    rows : array_like of int, optional
        Positions to look at; all where absent. Images are read a batch at a time.
    batch : int
        Images in memory at once.

    Raises
    ------
    InputError
        Naming the table, the row and the image.
    """
    rows = np.arange(particles.n) if rows is None else np.asarray(rows, dtype=np.int64)
    for start in range(0, len(rows), batch):
        here = rows[start : start + batch]
        found = bad_pixels(particles.stack.images(here))
        if found is not None:
            i, fault = int(here[found[0]]), found[1]
            path = particles.stack.paths[int(particles.stack.file[i])]
            raise InputError(
                f"image {particles.stack.index[i] + 1} of {path} {fault}",
                file=particles.source.path,
                row=int(particles.row[i]) + 1,
                remedy="Extract the particles again or take the row out of the table.",
            )
