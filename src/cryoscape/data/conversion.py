"""Particle tables in the other program's format, made from the values as they are understood here."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cryoscape.conventions import rotation_to_cryosparc, rotation_to_relion, shift_to_relion
from cryoscape.data.cryosparc_files import write_cs
from cryoscape.data.relion import SIGN_COLUMN, UID_COLUMN
from cryoscape.data.star import write_particles_star
from cryoscape.data.table import OpticsGroup
from cryoscape.errors import InputError

if TYPE_CHECKING:
    from cryoscape.data.particles import Particles

_IDENTITY = (1.0, 0.0, 0.0, 1.0)


def write_converted(
    particles: Particles, path: str | PathLike[str], columns: Mapping[str, ArrayLike] | None = None
) -> None:
    """Write particles as `.star` or `.cs`, by the suffix.

    Parameters
    ----------
    particles : Particles
    path : path
        The file; written atomically.
    columns : mapping, optional
        Names to arrays of shape (N,) or (N, d).

    Raises
    ------
    InputError
        If the suffix is another, or the format cannot hold what is known.
    """
    suffix = Path(path).suffix.lower()
    if suffix == ".star":
        particles_to_star(particles, path, columns)
    elif suffix == ".cs":
        particles_to_cs(particles, path, columns)
    else:
        raise InputError(
            f"particles cannot be written as {suffix or 'a file without suffix'}",
            file=path,
            remedy="Name a .star or .cs file.",
        )


def _image_files(particles: Particles, path: str | PathLike[str]) -> list[str]:
    """Names of the image files: relative where they lie below the new table's folder."""
    folder = Path(path).absolute().parent
    return [
        str(p.relative_to(folder) if p.is_relative_to(folder) else p.absolute())
        for p in particles.stack.paths
    ]


def particles_to_star(
    particles: Particles, path: str | PathLike[str], columns: Mapping[str, ArrayLike] | None = None
) -> None:
    """Write a RELION table (3.1 and later) whatever the particles were read from.

    The halves are written as `rlnRandomSubset`. `cryoscapeUid` keeps the particles' identity, and
    `cryoscapeDataSign` is written where the stored images are dark on light, which RELION's own
    columns cannot say.

    Parameters
    ----------
    particles : Particles
    path : path
        The file; written atomically.
    columns : mapping, optional
        Names to arrays of shape (N,) or (N, d).

    Raises
    ------
    InputError
        If the disk is full or the folder cannot be written to.
    """
    files = _image_files(particles, path)
    stack = particles.stack
    table: dict[str, Any] = {}
    if particles.rotations is not None:
        angles = rotation_to_relion(particles.rotations)
        table.update(zip(("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"), angles))
        table.update(zip(("rlnOriginXAngst", "rlnOriginYAngst"), shift_to_relion(particles.shifts)))
    table |= {
        "rlnDefocusU": particles.defocus_u,
        "rlnDefocusV": particles.defocus_v,
        "rlnDefocusAngle": particles.defocus_angle,
        "rlnPhaseShift": particles.phase_shift,
        "rlnCtfBfactor": particles.ctf_bfactor,
        "rlnCtfScalefactor": particles.ctf_scale,
        "rlnOpticsGroup": particles.group + 1,
        "rlnRandomSubset": particles.half,
        "rlnGroupName": np.array([f"group_{m + 1:06d}" for m in particles.micrograph], dtype=object),
        UID_COLUMN: particles.uid,
    }
    if particles.data_sign != 1:
        table[SIGN_COLUMN] = np.full(particles.n, particles.data_sign)
    write_particles_star(
        path,
        image_names=[f"{i + 1:06d}@{files[f]}" for f, i in zip(stack.file, stack.index)],
        optics=_relion_optics(particles.optics),
        columns=table | dict(columns or {}),
    )


def _relion_optics(groups: tuple[OpticsGroup, ...]) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for number, g in enumerate(groups, start=1):
        row: dict[str, object] = {
            # RELION's names have no blanks, and a bare number would read as one.
            "rlnOpticsGroupName": f"opticsGroup{g.name}" if g.name.isdigit() else g.name,
            "rlnOpticsGroup": number,
            "rlnVoltage": g.voltage,
            "rlnSphericalAberration": g.cs,
            "rlnAmplitudeContrast": g.amplitude_contrast,
            "rlnImagePixelSize": g.pixel_size,
            "rlnImageSize": g.box,
            "rlnImageDimensionality": 2,
            "rlnBeamTiltX": g.beam_tilt[0],
            "rlnBeamTiltY": g.beam_tilt[1],
        }
        # A column is for all groups, so each of these is there when one group has it.
        if any(h.even_zernike or h.odd_zernike for h in groups):
            row["rlnEvenZernike"] = _vector_token(g.even_zernike, max(len(h.even_zernike) for h in groups))
            row["rlnOddZernike"] = _vector_token(g.odd_zernike, max(len(h.odd_zernike) for h in groups))
        if any(h.magnification != _IDENTITY for h in groups):
            row |= {f"rlnMagMat{k}": m for k, m in zip(("00", "01", "10", "11"), g.magnification)}
        if any(h.ctf_premultiplied for h in groups):
            row["rlnCtfDataAreCtfPremultiplied"] = int(g.ctf_premultiplied)
        if any(h.phase_flipped for h in groups):
            row["rlnCtfDataArePhaseFlipped"] = int(g.phase_flipped)
        rows.append(row)
    return rows


def _vector_token(values: tuple[float, ...], length: int) -> str:
    padded = (*values, *[0.0] * (max(length, 1) - len(values)))
    return "[" + ",".join(f"{v:.9g}" for v in padded) + "]"


def particles_to_cs(
    particles: Particles, path: str | PathLike[str], columns: Mapping[str, ArrayLike] | None = None
) -> None:
    """Write a cryoSPARC table with all fields in one file, whatever the particles were read from.

    Parameters
    ----------
    particles : Particles
    path : path
        The file; written atomically.
    columns : mapping, optional
        Names to arrays of shape (N,) or (N, d).

    Raises
    ------
    InputError
        If the images are CTF-premultiplied or phase-flipped or have aberrations in RELION's terms,
        none of which a `.cs` file can say; or the file cannot be written.
    """
    for g in particles.optics:
        lost = [
            what
            for what, there in (
                ("CTF-premultiplied images", g.ctf_premultiplied),
                ("phase-flipped images", g.phase_flipped),
                ("Zernike aberrations", g.even_zernike or g.odd_zernike),
                ("anisotropic magnification", g.magnification != _IDENTITY),
            )
            if there
        ]
        if lost:
            raise InputError(
                f"a .cs file cannot hold {lost[0]} (optics group {g.name})",
                file=path,
                remedy="Write a .star file.",
            )
    write_cs(path, _cryosparc_table(particles, _image_files(particles, path)), columns)


def _cryosparc_table(particles: Particles, files: list[str]) -> NDArray[Any]:
    stack, n = particles.stack, particles.n

    def of_group(values: list[Any]) -> NDArray[Any]:
        return np.asarray(values)[particles.group]

    groups = particles.optics
    tilt = [[np.sin(t * 1e-3) * g.cs * 1e7 for t in g.beam_tilt] for g in groups]
    fields: dict[str, tuple[str, Any]] = {
        "uid": ("<u8", particles.uid),
        "blob/path": ("S", np.array([name.encode() for name in files])[stack.file]),
        "blob/idx": ("<u4", stack.index),
        "blob/shape": ("<u4", np.full((n, 2), particles.box)),
        "blob/psize_A": ("<f4", of_group([g.pixel_size for g in groups])),
        "blob/sign": ("<f4", np.full(n, particles.data_sign)),
        "location/micrograph_uid": ("<u8", particles.micrograph),
        "ctf/exp_group_id": ("<u4", particles.group),
        "ctf/accel_kv": ("<f4", of_group([g.voltage for g in groups])),
        "ctf/cs_mm": ("<f4", of_group([g.cs for g in groups])),
        "ctf/amp_contrast": ("<f4", of_group([g.amplitude_contrast for g in groups])),
        "ctf/df1_A": ("<f4", particles.defocus_u),
        "ctf/df2_A": ("<f4", particles.defocus_v),
        "ctf/df_angle_rad": ("<f4", np.deg2rad(particles.defocus_angle)),
        "ctf/phase_shift_rad": ("<f4", np.deg2rad(particles.phase_shift)),
        "ctf/scale": ("<f4", particles.ctf_scale),
        "ctf/bfactor": ("<f4", particles.ctf_bfactor),
        "ctf/tilt_A": ("<f4", of_group(tilt)),
        "alignments3D/split": ("<u4", particles.half - 1),
    }
    if particles.rotations is not None:
        pixel = of_group([g.pixel_size for g in groups])
        fields["alignments3D/pose"] = ("<f4", rotation_to_cryosparc(particles.rotations))
        fields["alignments3D/shift"] = (
            "<f4",
            np.column_stack(shift_to_relion(particles.shifts)) / pixel[:, None],
        )
        fields["alignments3D/psize_A"] = ("<f4", pixel)
    arrays = {k: np.asarray(v) if t == "S" else np.asarray(v).astype(t) for k, (t, v) in fields.items()}
    table = np.empty(n, dtype=[(k, a.dtype, a.shape[1:]) for k, a in arrays.items()])
    for name, values in arrays.items():
        table[name] = values
    return table
