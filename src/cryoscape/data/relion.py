"""RELION particle tables: version 3.0 (one table) and 3.1 to 5 (optics groups)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cryoscape.conventions import (
    rotation_from_relion,
    rotation_to_relion,
    shift_from_relion,
    shift_to_relion,
)
from cryoscape.data.locating import portable_names
from cryoscape.data.relion_optics import groups_of_rows, groups_of_table
from cryoscape.data.star import StarBlock, flatten_columns, read_star, to_tokens, write_blocks
from cryoscape.data.table import (
    Fingerprint,
    Floats,
    Integers,
    ParticleTable,
    encode,
    subset_to_half,
)
from cryoscape.errors import InputError

_ANGLES = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")
_ORIGINS = ("rlnOriginXAngst", "rlnOriginYAngst")
_ORIGINS_PIXEL = ("rlnOriginX", "rlnOriginY")
# Columns of ours that carry what RELION's own columns cannot.
SIGN_COLUMN = "cryoscapeDataSign"
UID_COLUMN = "cryoscapeUid"


class StarSource:
    """A RELION table on disk that can write some of its rows back, token for token.

    The table is read again when it is written, which costs seconds for a million rows and saves
    holding gigabytes of text through a training run.

    Parameters
    ----------
    path : path
        The table.
    block : str
        Name of the block with the particles.
    """

    suffix = ".star"

    def __init__(self, path: str | PathLike[str], block: str) -> None:
        self.path = Path(path).absolute()
        self._block = block
        self._fingerprint = Fingerprint.of(path)

    def write(
        self,
        path: str | PathLike[str],
        rows: Integers,
        columns: Mapping[str, ArrayLike],
        image_paths: Sequence[Path],
        uid: NDArray[np.uint64],
    ) -> None:
        """Write rows of the table with added columns.

        Parameters
        ----------
        path : path
            The new file.
        rows : ndarray, shape (n,)
            Rows of this table, from 0.
        columns : mapping
            Names to arrays of shape (n,) or (n, d); a name that exists is replaced.
        image_paths : sequence of Path
            Distinct image files in order of first appearance in this table. A name that would not
            lead there from the new folder is replaced by the absolute path.
        uid : ndarray, shape (n,), uint64
            Identities, written as `cryoscapeUid` where names were replaced, since they come from the
            names.

        Raises
        ------
        InputError
            If the source has changed since, or the new file cannot be written.
        """
        self._fingerprint.check()
        blocks: list[tuple[str, dict[str, list[str]]]] = []
        added = dict(columns)
        for block in read_star(self.path):
            tokens = {tag: block.tokens(tag) for tag in block.tags}
            if block.name == self._block:
                images = _image_tokens(block, image_paths, path)
                if images != tokens["rlnImageName"]:
                    tokens["rlnImageName"] = images
                    added[UID_COLUMN] = uid
                if len(rows) != block.n or (rows != np.arange(block.n)).any():
                    tokens = {tag: [column[i] for i in rows] for tag, column in tokens.items()}
                tokens.update(flatten_columns(added))
            blocks.append((block.name, tokens))
        write_blocks(path, blocks)

    def pose_columns(
        self, rows: Integers, rotations: Floats, shifts: Floats, changed: NDArray[np.bool_], pixel: Floats
    ) -> dict[str, ArrayLike]:
        """Columns that hold new poses in the terms of this table; see `poses.write_with_poses`."""
        self._fingerprint.check()
        block = next(b for b in read_star(self.path) if b.name == self._block)
        new: dict[str, Floats] = dict(zip(_ANGLES, rotation_to_relion(rotations)))
        origins = shift_to_relion(shifts)
        if any(tag in block for tag in _ORIGINS_PIXEL):
            new.update(zip(_ORIGINS_PIXEL, (o / pixel for o in origins)))
        if any(tag in block for tag in _ORIGINS) or not any(tag in block for tag in _ORIGINS_PIXEL):
            new.update(zip(_ORIGINS, origins))
        columns: dict[str, ArrayLike] = {}
        for tag, values in new.items():
            tokens = np.array(to_tokens(values), dtype=object)
            if tag in block:
                old = np.array(block.tokens(tag), dtype=object)[rows]
                tokens = np.where(changed, tokens, old)
            columns[tag] = tokens
        return columns


def _image_tokens(block: StarBlock, paths: Sequence[Path], table: str | PathLike[str]) -> list[str]:
    tokens = block.tokens("rlnImageName")
    split = [name.rpartition("@") for name in block.strings("rlnImageName")]
    names, codes = encode([name for _, _, name in split])
    new_names = portable_names(names, paths, table)
    if new_names == names:
        return tokens
    return to_tokens(
        np.array([f"{number}{at}{new_names[code]}" for (number, at, _), code in zip(split, codes)], object)
    )


def read_relion(path: str | PathLike[str]) -> ParticleTable:
    """Read a RELION particle table.

    Parameters
    ----------
    path : path
        A `.star` file.

    Returns
    -------
    ParticleTable

    Raises
    ------
    InputError
        If the file is no STAR file, has no particles, belongs to a tilt series, or lacks the
        defocus or the pixel size.
    """
    path = Path(path)
    blocks = read_star(path)
    _refuse_tilt_series(blocks, path)
    particles = _particle_block(blocks, path)
    optics_block = next((b for b in blocks if b.name == "optics"), None)
    group, optics = (
        groups_of_rows(particles) if optics_block is None else groups_of_table(particles, optics_block)
    )
    pixel = np.array([g.pixel_size for g in optics])[group]
    file_names, file, index = _images(particles)
    defocus_u = _required_defocus(particles)
    return ParticleTable(
        path=path,
        file_names=file_names,
        file=file,
        index=index,
        rotations=_rotations(particles),
        shifts=_shifts(particles, pixel),
        defocus_u=defocus_u,
        defocus_v=particles.floats("rlnDefocusV") if "rlnDefocusV" in particles else defocus_u.copy(),
        defocus_angle=particles.floats("rlnDefocusAngle", 0.0),
        phase_shift=particles.floats("rlnPhaseShift", 0.0),
        ctf_bfactor=particles.floats("rlnCtfBfactor", 0.0),
        ctf_scale=particles.floats("rlnCtfScalefactor", 1.0),
        group=group,
        optics=optics,
        half=subset_to_half(particles.integers("rlnRandomSubset"), 1, path, "rlnRandomSubset")
        if "rlnRandomSubset" in particles
        else None,
        uid=np.array(particles.tokens(UID_COLUMN), dtype=np.uint64) if UID_COLUMN in particles else None,
        micrograph=encode(particles.tokens("rlnMicrographName"))[1]
        if "rlnMicrographName" in particles
        else file.copy(),
        data_sign=_data_sign(particles),
        source=StarSource(path, particles.name),
    )


def _refuse_tilt_series(blocks: list[StarBlock], path: Path) -> None:
    for block in blocks:
        signs = [t for t in block.tags if t.startswith("rlnTomo") or t == "rlnCtfImage"]
        if "rlnImageDimensionality" in block and 3 in block.floats("rlnImageDimensionality"):
            signs.append("rlnImageDimensionality 3")
        if signs:
            raise InputError(
                f"this table belongs to a tilt series ({signs[0]})",
                file=path,
                remedy="Use single-particle images; tilt series are not supported.",
            )


def _particle_block(blocks: list[StarBlock], path: Path) -> StarBlock:
    found = next((b for b in blocks if "rlnImageName" in b), None)
    if found is not None and found.n > 0:
        return found
    if found is None and any(b.n > 0 for b in blocks):
        raise InputError(
            "no table has the column rlnImageName",
            file=path,
            remedy="Use the particle table of a RELION extraction or refinement job.",
        )
    raise InputError(
        "the table holds no particles",
        file=path,
        remedy="Use the particle table of a RELION extraction or refinement job.",
    )


def _images(particles: StarBlock) -> tuple[list[str], Integers, Integers]:
    names = particles.strings("rlnImageName")
    split = [name.rpartition("@") for name in names]
    file_names, file = encode([path for _, _, path in split])
    try:
        # A name without a number is a file of one image.
        index = np.fromiter((int(number) if at else 1 for number, at, _ in split), np.int64, len(split))
    except ValueError:
        row = next(i for i, (number, at, _) in enumerate(split) if at and not number.strip().isdigit())
        raise InputError(
            f"rlnImageName is {names[row]}, not number@file",
            file=particles.path,
            row=row + 1,
            remedy="Write image names like 000001@stack.mrcs.",
        ) from None
    return file_names, file, index - 1


def _rotations(particles: StarBlock) -> Floats | None:
    if any(tag not in particles for tag in _ANGLES):
        return None
    return rotation_from_relion(*(particles.floats(tag) for tag in _ANGLES))


def _shifts(particles: StarBlock, pixel: Floats) -> Floats:
    if "rlnOriginXAngst" in particles or "rlnOriginYAngst" in particles:
        return shift_from_relion(
            particles.floats("rlnOriginXAngst", 0.0), particles.floats("rlnOriginYAngst", 0.0)
        )
    # Before version 3.1 origins were in pixels.
    return shift_from_relion(
        particles.floats("rlnOriginX", 0.0) * pixel, particles.floats("rlnOriginY", 0.0) * pixel
    )


def _required_defocus(particles: StarBlock) -> Floats:
    if "rlnDefocusU" not in particles:
        raise InputError(
            "the table has no CTF (column rlnDefocusU)",
            file=particles.path,
            remedy="Run CTF estimation and extract the particles with it.",
        )
    return particles.floats("rlnDefocusU")


def _data_sign(particles: StarBlock) -> int:
    if SIGN_COLUMN not in particles:
        return 1
    signs = particles.integers(SIGN_COLUMN)
    bad = (signs != signs[0]) | (np.abs(signs) != 1)
    if bad.any():
        row = int(np.argmax(bad))
        raise InputError(
            f"{SIGN_COLUMN} is {signs[row]}, where one sign, 1 or -1, is expected in all rows",
            file=particles.path,
            row=row + 1,
            remedy="Split the table by the sign of its images.",
        )
    return int(signs[0])
