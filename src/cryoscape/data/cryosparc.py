"""cryoSPARC particle tables: `.cs` files with their passthrough."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cryoscape.conventions import (
    rotation_from_cryosparc,
    rotation_to_cryosparc,
    shift_from_relion,
    shift_to_relion,
)
from cryoscape.data.checks import check_finite
from cryoscape.data.cryosparc_files import find_passthrough, join_passthrough, read_cs, write_cs
from cryoscape.data.locating import portable_names
from cryoscape.data.table import (
    Fingerprint,
    Floats,
    Integers,
    OpticsGroup,
    ParticleTable,
    encode,
    subset_to_half,
)
from cryoscape.errors import InputError

_BLOB = ("blob/path", "blob/idx", "blob/psize_A")
_CTF = ("ctf/df1_A", "ctf/df2_A", "ctf/df_angle_rad", "ctf/accel_kv", "ctf/cs_mm", "ctf/amp_contrast")
_POSE = ("alignments3D/pose", "alignments3D/shift", "alignments3D/psize_A")


class CsSource:
    """A cryoSPARC table with its passthrough, able to write some of its rows back.

    Parameters
    ----------
    path : path
        The `.cs` file.
    passthrough : sequence of path
        The passthrough files that were joined.
    """

    suffix = ".cs"

    def __init__(self, path: str | PathLike[str], passthrough: Sequence[str | PathLike[str]]) -> None:
        self.path = Path(path).absolute()
        self.passthrough = [Path(p).absolute() for p in passthrough]
        self._fingerprints = [Fingerprint.of(p) for p in (self.path, *self.passthrough)]

    def write(
        self,
        path: str | PathLike[str],
        rows: Integers,
        columns: Mapping[str, ArrayLike],
        image_paths: Sequence[Path],
        uid: NDArray[np.uint64],
    ) -> None:
        """Write rows of the table, all fields of the passthrough included, with added columns.

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
            Not needed: a `.cs` file has its own.

        Raises
        ------
        InputError
            If the source has changed since, or the new file cannot be written.
        """
        for fingerprint in self._fingerprints:
            fingerprint.check()
        table = join_passthrough(self.path, read_cs(self.path), self.passthrough)
        names, codes = encode(_text(table["blob/path"]))
        new_names = portable_names(names, image_paths, path)
        added = dict(columns)
        if new_names != names:
            added["blob/path"] = np.array([n.encode() for n in new_names])[codes][rows]
        write_cs(path, table[rows], added)

    def pose_columns(
        self, rows: Integers, rotations: Floats, shifts: Floats, changed: NDArray[np.bool_], pixel: Floats
    ) -> dict[str, ArrayLike]:
        """Fields that hold new poses in the terms of this table; see `poses.write_with_poses`."""
        for fingerprint in self._fingerprints:
            fingerprint.check()
        table = join_passthrough(self.path, read_cs(self.path), self.passthrough)[rows]
        names = table.dtype.names or ()
        if "alignments3D/psize_A" in names:
            pixel = table["alignments3D/psize_A"].astype(np.float64)
        columns: dict[str, ArrayLike] = {"alignments3D/psize_A": pixel.astype(np.float32)}
        new = {
            "alignments3D/pose": rotation_to_cryosparc(rotations),
            "alignments3D/shift": np.column_stack(shift_to_relion(shifts)) / pixel[:, None],
        }
        for name, values in new.items():
            values = values.astype(table[name].dtype if name in names else np.float32)
            columns[name] = np.where(changed[:, None], values, table[name]) if name in names else values
        return columns


def _text(values: NDArray[Any]) -> list[str]:
    return np.char.decode(values, "utf-8").tolist() if values.dtype.kind == "S" else list(map(str, values))


def read_cryosparc(
    path: str | PathLike[str], passthrough: Sequence[str | PathLike[str]] = ()
) -> ParticleTable:
    """Read a cryoSPARC particle table.

    Only `alignments3D` is taken for the pose; the classes of an ab-initio job
    (`alignments_class_*`) are not, because they do not say which one counts.

    Parameters
    ----------
    path : path
        A `.cs` file.
    passthrough : sequence of path
        Its passthrough files. Where none is named and fields are missing, the folder is searched for
        one of the same job.

    Returns
    -------
    ParticleTable

    Raises
    ------
    InputError
        If a file is no particle table, fields are missing, or a passthrough belongs to other particles.
    """
    path = Path(path)
    main = read_cs(path)
    if len(main) == 0:
        raise InputError(
            "the table holds no particles", file=path, remedy="Use the particle output of a refinement."
        )
    names = list(passthrough)
    if not names and any(f not in (main.dtype.names or ()) for f in (*_BLOB, *_CTF, *_POSE)):
        names = list(find_passthrough(path, main))
    table = join_passthrough(path, main, names)
    has = set(table.dtype.names or ())
    _require(_BLOB, has, path, "images")
    _require(_CTF, has, path, "CTF")
    file_names, file = encode(_text(table["blob/path"]))
    pixel = table["blob/psize_A"].astype(np.float64)
    group, optics = _optics(table, pixel, path)
    rotations, shifts = _poses(table, path)

    def column(name: str, default: float) -> Floats:
        values = table[name].astype(np.float64) if name in has else np.full(len(table), default)
        check_finite(path, name, values)
        return values

    return ParticleTable(
        path=path,
        file_names=file_names,
        file=file,
        index=table["blob/idx"].astype(np.int64),
        rotations=rotations,
        shifts=shifts,
        defocus_u=column("ctf/df1_A", 0.0),
        defocus_v=column("ctf/df2_A", 0.0),
        defocus_angle=np.rad2deg(column("ctf/df_angle_rad", 0.0)),
        phase_shift=np.rad2deg(column("ctf/phase_shift_rad", 0.0)),
        ctf_bfactor=column("ctf/bfactor", 0.0),
        ctf_scale=column("ctf/scale", 1.0),
        group=group,
        optics=optics,
        half=subset_to_half(table["alignments3D/split"].astype(np.int64), 0, path, "alignments3D/split")
        if "alignments3D/split" in has
        else None,
        uid=table["uid"].astype(np.uint64) if "uid" in has else None,
        micrograph=_micrographs(table, file),
        data_sign=_data_sign(table, path),
        source=CsSource(path, names),
    )


def _require(wanted: Sequence[str], has: set[str], path: Path, what: str) -> None:
    missing = [f for f in wanted if f not in has]
    if missing:
        raise InputError(
            f"the table has no {what} (field {missing[0]})",
            file=path,
            remedy="Name the job's passthrough file, such as J42_passthrough_particles.cs, "
            "or put it beside this file.",
        )


def _poses(table: NDArray[Any], path: Path) -> tuple[Floats | None, Floats]:
    if any(name not in (table.dtype.names or ()) for name in _POSE):
        return None, np.zeros((len(table), 2))
    pose, shift, pixel = (table[name].astype(np.float64) for name in _POSE)
    for name, values in zip(_POSE, (pose, shift, pixel)):
        check_finite(path, name, values)
    # Shifts count pixels of the images that were aligned, which may be smaller than those stored.
    return rotation_from_cryosparc(pose), shift_from_relion(shift[:, 0] * pixel, shift[:, 1] * pixel)


def _micrographs(table: NDArray[Any], file: Integers) -> Integers:
    for name in ("location/micrograph_uid", "location/micrograph_path"):
        if name in (table.dtype.names or ()):
            return np.unique(table[name], return_inverse=True)[1].astype(np.int64)
    return file.copy()


def _data_sign(table: NDArray[Any], path: Path) -> int:
    if "blob/sign" not in (table.dtype.names or ()):
        return 1
    signs = table["blob/sign"]
    bad = (signs != signs[0]) | (np.abs(signs) != 1)
    if bad.any():
        row = int(np.argmax(bad))
        raise InputError(
            f"blob/sign is {signs[row]:g}, where one sign, 1 or -1, is expected in all rows",
            file=path,
            row=row + 1,
            remedy="Split the table by the sign of its images.",
        )
    return int(signs[0])


def _optics(table: NDArray[Any], pixel: Floats, path: Path) -> tuple[Integers, list[OpticsGroup]]:
    """The distinct imaging conditions, and which of them every row has."""
    names = table.dtype.names or ()
    n = len(table)

    def one(name: str, default: float) -> Floats:
        return table[name].astype(np.float64) if name in names else np.full(n, default)

    tilt = table["ctf/tilt_A"].astype(np.float64) if "ctf/tilt_A" in names else np.zeros((n, 2))
    group_id = one("ctf/exp_group_id", 0)
    cs = one("ctf/cs_mm", 0)
    key = np.column_stack([group_id, pixel, one("ctf/accel_kv", 0), cs, one("ctf/amp_contrast", 0), tilt])
    check_finite(path, "ctf or blob/psize_A", key)
    group, first = _distinct_rows(key)
    box = table["blob/shape"][:, 0].astype(np.int64) if "blob/shape" in names else np.zeros(n, np.int64)
    optics = [
        OpticsGroup(
            name=str(int(v[0])),
            pixel_size=_clean(v[1]),
            box=int(box[i]),
            voltage=_clean(v[2]),
            cs=_clean(v[3]),
            amplitude_contrast=_clean(v[4]),
            beam_tilt=_beam_tilt(v[5:7], v[3]),
        )
        for v, i in zip(key[first], first)
    ]
    return group, optics


def _distinct_rows(key: Floats) -> tuple[Integers, Integers]:
    """Number of the distinct row that every row equals, and where each first stands."""
    # Column by column: numpy's unique rows are sorted as records, ten seconds for a million.
    code = np.zeros(len(key), dtype=np.int64)
    for column in key.T:
        values, codes = np.unique(column, return_inverse=True)
        code = np.unique(code * len(values) + codes, return_inverse=True)[1]
    return code, np.unique(code, return_index=True)[1]


def _clean(value: float) -> float:
    """The decimal number that a 32-bit field was meant to hold."""
    return float(f"{value:.7g}")


def _beam_tilt(tilt: Floats, cs: float) -> tuple[float, float]:
    # cryoSPARC gives the tilt as a length in the plane of the aberration, Cs times the angle.
    if cs == 0 or not tilt.any():
        return 0.0, 0.0
    x, y = np.arcsin(np.clip(tilt / (cs * 1e7), -1, 1)) * 1e3
    return float(x), float(y)
