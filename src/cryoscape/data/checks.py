"""Faults of particle tables and images, found before an hour is spent on them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cryoscape.data.stack import ImageStack
from cryoscape.data.table import Floats, OpticsGroup, ParticleTable
from cryoscape.errors import InputError

# Angstrom. Nearer focus than 500 there is no contrast worth fitting, and 10 micrometres is beyond
# any single-particle session: values outside are other units or failed fits.
DEFOCUS_RANGE = (500.0, 100_000.0)
_VOLTAGE_RANGE = (50.0, 1500.0)
_PIXEL_RANGE = (0.05, 50.0)
# Relative difference of pixel sizes that moves a particle's edge by less than a hundredth of a pixel
# in a box of 200.
_PIXEL_TOLERANCE = 1e-4
# So many rows with no rotation and no shift at all were never aligned.
_NEVER_ALIGNED = 100


def check_table(table: ParticleTable, stack: ImageStack, *, require_poses: bool) -> list[OpticsGroup]:
    """Check what a table says, and complete its optics groups with the images' box.

    Parameters
    ----------
    table : ParticleTable
        As read.
    stack : ImageStack
        Its images.
    require_poses : bool
        Refuse a table without orientations.

    Returns
    -------
    list of OpticsGroup
        With the box of the stack.

    Raises
    ------
    InputError
        If poses are missing, the defocus is zero or absurd, the microscope's values are impossible,
        or boxes or pixel sizes differ.
    """
    if require_poses:
        _check_poses(table)
    _check_defocus(table)
    for number, group in enumerate(table.optics):
        rows = np.flatnonzero(table.group == number)
        if len(rows):
            _check_optics(table, group, int(rows[0]), stack.box)
    return [replace(group, box=stack.box) for group in table.optics]


def _check_poses(table: ParticleTable) -> None:
    remedy = "Use the table of a 3D refinement, which assigns an orientation to every particle."
    if table.rotations is None:
        raise InputError("the table has no poses", file=table.path, remedy=remedy)
    if len(table) >= _NEVER_ALIGNED and not table.shifts.any() and (table.rotations == np.eye(3)).all():
        raise InputError(
            "the table has no poses: all angles and shifts are zero", file=table.path, remedy=remedy
        )


def _check_defocus(table: ParticleTable) -> None:
    low, high = DEFOCUS_RANGE
    for name, values in (("U", table.defocus_u), ("V", table.defocus_v)):
        bad = ~((values >= low) & (values <= high))
        if bad.any():
            row = int(np.argmax(bad))
            what = "zero" if values[row] == 0 else f"{values[row]:g} A"
            raise InputError(
                f"defocus {name} is {what}, outside {low:g} to {high:g} A",
                file=table.path,
                row=row + 1,
                remedy="Take out particles whose CTF fit failed; defocus counts in Angstrom, positive.",
            )


def _check_optics(table: ParticleTable, group: OpticsGroup, row: int, box: int) -> None:
    def refuse(message: str, remedy: str) -> None:
        raise InputError(
            f"{message} (optics group {group.name})", file=table.path, row=row + 1, remedy=remedy
        )

    first = table.optics[int(table.group[0])]
    if not _PIXEL_RANGE[0] <= group.pixel_size <= _PIXEL_RANGE[1]:
        refuse(f"the pixel size is {group.pixel_size:g} A", "Give the images' pixel size in Angstrom.")
    if abs(group.pixel_size / first.pixel_size - 1) > _PIXEL_TOLERANCE:
        refuse(
            f"mixed pixel sizes: {group.pixel_size:g} A here, {first.pixel_size:g} A in row 1",
            "Extract all particles at one pixel size, or split the table by optics group.",
        )
    if group.box not in (0, box):
        refuse(
            f"mixed box sizes: the table says {group.box} pixels, the images have {box}",
            "Use the image stack that was written together with this table.",
        )
    if not _VOLTAGE_RANGE[0] <= group.voltage <= _VOLTAGE_RANGE[1]:
        refuse(f"the voltage is {group.voltage:g} kV", "Give the acceleration voltage in kV.")
    if not 0 <= group.cs <= 20:
        refuse(f"the spherical aberration is {group.cs:g} mm", "Give the spherical aberration in mm.")
    if not 0 <= group.amplitude_contrast < 1:
        refuse(f"the amplitude contrast is {group.amplitude_contrast:g}", "Give a fraction, such as 0.1.")


def check_finite(path: Path, name: str, values: Floats) -> None:
    """Refuse a column with NaN or infinite values.

    Parameters
    ----------
    path : Path
        The table.
    name : str
        The column.
    values : ndarray, shape (N, ...)

    Raises
    ------
    InputError
        Naming the first such row.
    """
    bad = ~np.isfinite(values).reshape(len(values), -1).all(axis=1)
    if bad.any():
        raise InputError(
            f"{name} is not a number",
            file=path,
            row=int(np.argmax(bad)) + 1,
            remedy="Take the row out of the table.",
        )


def bad_pixels(images: NDArray[np.float32]) -> tuple[int, str] | None:
    """The first image with NaN or infinite pixels, or with all pixels alike.

    Parameters
    ----------
    images : ndarray, shape (n, D, D)

    Returns
    -------
    (position, fault) or None
    """
    flat = images.reshape(len(images), -1)
    # NaN and infinity both carry over into the extremes.
    low, high = flat.min(axis=1), flat.max(axis=1)
    wrong = ~np.isfinite(low) | ~np.isfinite(high)
    constant = low == high
    if not (wrong | constant).any():
        return None
    i = int(np.argmax(wrong | constant))
    return i, "has NaN or infinite pixels" if wrong[i] else f"is constant (all pixels are {low[i]:g})"
