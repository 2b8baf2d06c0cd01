"""How the particles of a simulation were imaged: what codes ought not to tell."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryoscape.errors import InputError


@dataclass(frozen=True, eq=False)
class TrueImaging:
    """Poses, optics and junk of N simulated particles.

    Attributes
    ----------
    junk : ndarray of bool, shape (N,)
        Not the molecule.
    controls : dict of ndarray, shape (N, d)
        Descriptions of the imaging whose Euclidean distances rank particles: `pose` (the nine entries of the
        rotation, whose distance grows with the angle between two poses), `view` (direction alone) and `ctf`
        (defocus and the two components of astigmatism, each of mean 0 and variance 1). Those that the file
        lacks, or that are the same for all, are left out.
    """

    junk: NDArray[np.bool_]
    controls: dict[str, NDArray[np.float64]]

    @classmethod
    def read(cls, path: str | PathLike[str], rows: NDArray[np.int64]) -> TrueImaging:
        """Read from `truth.npz`.

        Parameters
        ----------
        path : path
            The file.
        rows : ndarray, shape (N,), int
            Rows of the particle file.

        Returns
        -------
        TrueImaging

        Raises
        ------
        InputError
            The file cannot be read, or its columns are shorter than the rows ask for.
        """
        try:
            with np.load(Path(path), allow_pickle=False) as archive:
                stored = {name: archive[name][rows] for name in _COLUMNS if name in archive.files}
        except (OSError, ValueError, IndexError, zipfile.BadZipFile) as error:
            raise InputError(
                f"poses and optics cannot be read: {error}", file=path, remedy="Simulate again."
            ) from error
        controls = {}
        if "rotations" in stored:
            rotations = stored["rotations"].astype(np.float64)
            controls["pose"] = rotations.reshape(len(rows), 9)
            controls["view"] = rotations[:, 2]
        if {"defocus_u", "defocus_v", "defocus_angle"} <= set(stored):
            controls["ctf"] = _optics(stored)
        return cls(
            junk=stored.get("junk", np.zeros(len(rows), dtype=bool)).astype(bool),
            controls={name: points for name, points in controls.items() if _varies(points)},
        )


_COLUMNS = ("rotations", "defocus_u", "defocus_v", "defocus_angle", "junk")


def _optics(stored: dict[str, NDArray[Any]]) -> NDArray[np.float64]:
    u, v = stored["defocus_u"].astype(np.float64), stored["defocus_v"].astype(np.float64)
    twice = 2 * np.deg2rad(stored["defocus_angle"])
    columns = np.stack([(u + v) / 2, (u - v) * np.cos(twice), (u - v) * np.sin(twice)], axis=1)
    spread = columns.std(axis=0)
    # Less than an Angstrom of defocus is round-off.
    there = spread > 1.0
    return (columns[:, there] - columns[:, there].mean(axis=0)) / spread[there]


def _varies(points: NDArray[np.float64]) -> bool:
    return points.size > 0 and bool((np.ptp(points, axis=0) > 1e-6).any())
