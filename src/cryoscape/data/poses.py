"""Writing particles with other poses than those they were read with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from os import PathLike
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cryoscape.data.particles import Particles


def write_with_poses(
    particles: Particles,
    path: str | PathLike[str],
    rotations: NDArray[np.float64],
    shifts: NDArray[np.float64],
    columns: Mapping[str, ArrayLike] | None = None,
) -> None:
    """Write these particles' rows of the user's own table with new poses.

    All that is not a pose is written back as it stands in the table, and so are the poses of the rows whose
    rotation and shift are those that the particles have. Angles and origins are put into the columns that the
    table has for them: of a RELION table `rlnAngleRot`, `rlnAngleTilt`, `rlnAnglePsi`, and the origins in
    Angstrom or, in a table of version 3.0, in pixels; of a cryoSPARC table `alignments3D/pose` and
    `alignments3D/shift`.

    Parameters
    ----------
    particles : Particles
    path : path
        A `.star` or `.cs` file; written atomically.
    rotations : ndarray, shape (N, 3, 3)
        From model to view.
    shifts : ndarray, shape (N, 2)
        Angstrom.
    columns : mapping, optional
        Names to arrays of shape (N,) or (N, d), added to the table.

    Raises
    ------
    InputError
        If the suffix is another, the source has changed, or the file cannot be written.
    """
    changed = (shifts != particles.shifts).any(axis=1)
    if particles.rotations is None:
        changed[:] = True
    else:
        changed |= (rotations != particles.rotations).any(axis=(1, 2))
    added: dict[str, ArrayLike] = {}
    if Path(path).suffix.lower() == particles.source.suffix:
        pixel = np.array([group.pixel_size for group in particles.optics])[particles.group]
        added.update(particles.source.pose_columns(particles.row, rotations, shifts, changed, pixel))
    moved = replace(particles, rotations=rotations, shifts=shifts)
    moved.write(path, {**added, **(columns or {})})
