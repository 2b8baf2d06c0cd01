"""Optics groups of RELION tables."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from cryoscape.data.star import StarBlock
from cryoscape.data.table import Integers, OpticsGroup, encode
from cryoscape.errors import InputError

_OPTICS_TAGS = (
    "rlnVoltage",
    "rlnSphericalAberration",
    "rlnAmplitudeContrast",
    "rlnImagePixelSize",
    "rlnPixelSize",
    "rlnMagnification",
    "rlnDetectorPixelSize",
    "rlnImageSize",
    "rlnBeamTiltX",
    "rlnBeamTiltY",
    "rlnCtfDataAreCtfPremultiplied",
    "rlnCtfDataArePhaseFlipped",
)


def groups_of_table(particles: StarBlock, optics: StarBlock) -> tuple[Integers, list[OpticsGroup]]:
    """Optics groups of a table of version 3.1 or later.

    Parameters
    ----------
    particles : StarBlock
        `data_particles`, N rows.
    optics : StarBlock
        `data_optics`.

    Returns
    -------
    group : ndarray, shape (N,), int64
        Index into `groups`.
    groups : list of OpticsGroup

    Raises
    ------
    InputError
        If a row names a group that is not there, or a group lacks what the CTF needs.
    """
    if optics.n == 0:
        raise InputError("data_optics is empty", file=particles.path, remedy="Export the table again.")
    numbers = optics.integers("rlnOpticsGroup") if "rlnOpticsGroup" in optics else np.arange(1, optics.n + 1)
    wanted = np.full(particles.n, numbers[0])
    if "rlnOpticsGroup" in particles:
        wanted = particles.integers("rlnOpticsGroup")
    order = np.argsort(numbers)
    group = order[np.searchsorted(numbers[order], wanted).clip(max=len(numbers) - 1)]
    unknown = numbers[group] != wanted
    if unknown.any():
        row = int(np.argmax(unknown))
        raise InputError(
            f"rlnOpticsGroup is {wanted[row]}, which data_optics does not list",
            file=particles.path,
            row=row + 1,
            remedy="Add the optics group to data_optics or take the row out.",
        )
    columns = {tag: optics.strings(tag) for tag in optics.tags}
    rows = [{tag: column[i] for tag, column in columns.items()} for i in range(optics.n)]
    names = [row.get("rlnOpticsGroupName", str(number)) for row, number in zip(rows, numbers)]
    return group, [_group(particles.path, row, name) for row, name in zip(rows, names)]


def groups_of_rows(particles: StarBlock) -> tuple[Integers, list[OpticsGroup]]:
    """Optics groups of a 3.0 table: the distinct conditions of its rows.

    Parameters
    ----------
    particles : StarBlock
        The only table, N rows.

    Returns
    -------
    group : ndarray, shape (N,), int64
        Index into `groups`.
    groups : list of OpticsGroup

    Raises
    ------
    InputError
        If the table lacks what the CTF needs.
    """
    columns = {tag: particles.strings(tag) for tag in _OPTICS_TAGS if tag in particles}
    if not columns:
        return np.zeros(particles.n, dtype=np.int64), [_group(particles.path, {}, "1")]
    distinct, group = encode([" ".join(tokens) for tokens in zip(*columns.values())])
    rows = [dict(zip(columns, tokens.split(" "))) for tokens in distinct]
    return group, [_group(particles.path, row, str(i)) for i, row in enumerate(rows, start=1)]


def _number(path: Path, row: Mapping[str, str], tag: str, default: float | None = None) -> float:
    if tag not in row:
        if default is not None:
            return default
        raise InputError(
            f"the table has no {tag}, which the CTF needs",
            file=path,
            remedy="Use the particle table of a RELION extraction or refinement job.",
        )
    try:
        value = float(row[tag])
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InputError(f"{tag} is {row[tag]}, not a number", file=path, remedy=f"Give {tag} a number.")
    return value


def _vector(row: Mapping[str, str], tag: str) -> tuple[float, ...]:
    return tuple(float(v) for v in row.get(tag, "").strip("[]").split(",") if v.strip())


def _group(path: Path, row: Mapping[str, str], name: str) -> OpticsGroup:
    def number(tag: str, default: float | None = None) -> float:
        return _number(path, row, tag, default)

    return OpticsGroup(
        name=name,
        pixel_size=_pixel_size(path, row),
        box=int(number("rlnImageSize", 0)),
        voltage=number("rlnVoltage"),
        cs=number("rlnSphericalAberration"),
        amplitude_contrast=number("rlnAmplitudeContrast"),
        beam_tilt=(number("rlnBeamTiltX", 0.0), number("rlnBeamTiltY", 0.0)),
        even_zernike=_vector(row, "rlnEvenZernike"),
        odd_zernike=_vector(row, "rlnOddZernike"),
        ctf_premultiplied=number("rlnCtfDataAreCtfPremultiplied", 0) == 1,
        phase_flipped=number("rlnCtfDataArePhaseFlipped", 0) == 1,
        magnification=(
            number("rlnMagMat00", 1.0),
            number("rlnMagMat01", 0.0),
            number("rlnMagMat10", 0.0),
            number("rlnMagMat11", 1.0),
        ),
    )


def _pixel_size(path: Path, row: Mapping[str, str]) -> float:
    for tag in ("rlnImagePixelSize", "rlnPixelSize"):
        if tag in row:
            return _number(path, row, tag)
    if "rlnMagnification" in row and "rlnDetectorPixelSize" in row:
        # Detector pixels are in micrometres.
        return 1e4 * _number(path, row, "rlnDetectorPixelSize") / _number(path, row, "rlnMagnification")
    raise InputError(
        "the table has no pixel size (rlnImagePixelSize, or rlnDetectorPixelSize and rlnMagnification)",
        file=path,
        remedy="Add rlnImagePixelSize to data_optics.",
    )
