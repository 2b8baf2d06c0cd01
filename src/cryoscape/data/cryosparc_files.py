"""`.cs` files as structured arrays: reading, joining with a passthrough, writing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cryoscape.errors import InputError
from cryoscape.files import atomic_path

_CSDAT = b"\x95CSDAT"


def read_cs(path: str | PathLike[str]) -> NDArray[Any]:
    """Read a `.cs` file.

    Parameters
    ----------
    path : path
        In numpy's format, or in cryoSPARC's newer CSDAT format, which needs cryosparc-tools.

    Returns
    -------
    ndarray, shape (N,), structured

    Raises
    ------
    InputError
        If the file is missing, truncated, no table, or in CSDAT format without cryosparc-tools.
    """
    try:
        with open(path, "rb") as handle:
            is_csdat = handle.read(len(_CSDAT)) == _CSDAT
        table = _read_csdat(path) if is_csdat else np.load(path, allow_pickle=False)
    except OSError as error:
        raise InputError(
            f"the file cannot be read ({error.strerror or error})", file=path, remedy="Check the path."
        ) from error
    except (ValueError, EOFError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"this is not a whole .cs file ({error})", file=path, remedy="Export or copy the file again."
        ) from error
    if not isinstance(table, np.ndarray) or table.dtype.names is None or table.ndim != 1:
        raise InputError(
            "this is not a cryoSPARC table", file=path, remedy="Use the .cs file of a particle output."
        )
    return table


def _read_csdat(path: str | PathLike[str]) -> NDArray[Any]:
    try:
        from cryosparc.dataset import Dataset
    except ImportError as error:
        raise InputError(
            "the file is in cryoSPARC's CSDAT format, which needs cryosparc-tools",
            file=path,
            remedy="Install it with: pip install cryosparc-tools",
        ) from error
    records = Dataset.load(str(path)).to_records(fixed=True)
    return np.asarray(records).view(np.ndarray)


def find_passthrough(path: str | PathLike[str], main: NDArray[Any]) -> list[Path]:
    """Passthrough files of the same job in the same folder.

    The name has the same job, as `P1_J42_passthrough_particles.cs` and
    `cryosparc_P1_J42_004_particles.cs`, or the same output, as `J42_passthrough_particles_selected.cs`
    and `particles_selected.cs`.

    Parameters
    ----------
    path : path
        The `.cs` file.
    main : ndarray, structured
        Its table.

    Returns
    -------
    list of Path
        None or one.

    Raises
    ------
    InputError
        If several fit, such as those of several classes.
    """
    path = Path(path)
    found = []
    for p in sorted(path.absolute().parent.glob("*_passthrough*.cs")):
        job, _, output = p.stem.partition("_passthrough")
        if p.name != path.name and (f"_{job}_" in f"_{path.stem}_" or output == f"_{path.stem}"):
            found.append(p)
    if len(found) > 1 and "uid" in (main.dtype.names or ()):
        found = [p for p in found if np.isin(main["uid"], _uids(p)).all()] or found
    if len(found) > 1:
        raise InputError(
            f"several passthrough files fit: {', '.join(p.name for p in found)}",
            file=path,
            remedy="Name the one that belongs to this table.",
        )
    return found


def _uids(path: Path) -> NDArray[Any]:
    table = read_cs(path)
    return table["uid"] if "uid" in (table.dtype.names or ()) else np.empty(0, dtype=np.uint64)


def join_passthrough(
    path: str | PathLike[str], main: NDArray[Any], passthrough: Sequence[str | PathLike[str]]
) -> NDArray[Any]:
    """Add the fields of passthrough files, row by row of the same uid.

    Parameters
    ----------
    path : path
        The main file, for messages.
    main : ndarray, shape (N,), structured
        Its table; its fields win over those of the same name elsewhere.
    passthrough : sequence of path
        Files to join.

    Returns
    -------
    ndarray, shape (N,), structured

    Raises
    ------
    InputError
        If a passthrough lacks some of the particles, has one twice, or has no uid.
    """
    for extra_path in passthrough:
        extra = read_cs(extra_path)
        for name, table in ((path, main), (extra_path, extra)):
            if "uid" not in (table.dtype.names or ()):
                raise InputError("the table has no uid", file=name, remedy="Export it again from cryoSPARC.")
        extra = extra[_positions(path, main["uid"], Path(extra_path), extra["uid"])]
        new = [n for n in extra.dtype.names or () if n not in (main.dtype.names or ())]
        main = add_fields(main, {n: extra[n] for n in new})
    return main


def _positions(
    path: str | PathLike[str], uid: NDArray[Any], extra_path: Path, extra_uid: NDArray[Any]
) -> NDArray[np.int64]:
    if len(uid) == len(extra_uid) and (uid == extra_uid).all():
        return np.arange(len(uid))
    order = np.argsort(extra_uid, kind="stable")
    ordered = extra_uid[order]
    if len(ordered) == 0:
        place, unknown = np.zeros(len(uid), dtype=np.int64), np.ones(len(uid), dtype=bool)
    else:
        place = np.searchsorted(ordered, uid).clip(max=len(ordered) - 1)
        unknown = ordered[place] != uid
    remedy = "Name the passthrough file of the same job and the same output."
    if unknown.any():
        row = int(np.argmax(unknown))
        raise InputError(
            f"the particle of uid {uid[row]} is not in the passthrough {extra_path}",
            file=path,
            row=row + 1,
            remedy=remedy,
        )
    if (ordered[1:] == ordered[:-1]).any():
        raise InputError("the passthrough has a uid twice", file=extra_path, remedy=remedy)
    return order[place]


def add_fields(table: NDArray[Any], columns: Mapping[str, ArrayLike]) -> NDArray[Any]:
    """A table with added or replaced fields.

    Parameters
    ----------
    table : ndarray, shape (N,), structured
    columns : mapping
        Names to arrays of shape (N,) or (N, d). Text becomes bytes, as in cryoSPARC's own files.

    Returns
    -------
    ndarray, shape (N,), structured
        The fields of `table` in their order, then the new ones.
    """
    arrays = {name: table[name] for name in table.dtype.names or ()}
    for name, values in columns.items():
        array = np.asarray(values)
        arrays[name] = np.char.encode(array, "utf-8") if array.dtype.kind == "U" else array
    dtype = np.dtype([(name, a.dtype, a.shape[1:]) for name, a in arrays.items()])
    out = np.empty(len(table), dtype=dtype)
    for name, array in arrays.items():
        out[name] = array
    return out


def write_cs(
    path: str | PathLike[str], table: NDArray[Any], columns: Mapping[str, ArrayLike] | None = None
) -> None:
    """Write a `.cs` file in numpy's format, which every version of cryoSPARC reads.

    Parameters
    ----------
    path : path
        The file; written atomically.
    table : ndarray, shape (N,), structured
    columns : mapping, optional
        Fields to add or replace.

    Raises
    ------
    InputError
        If the disk is full or the folder cannot be written to.
    """
    # A file handle, because np.save would add ".npy" to the name.
    with atomic_path(path) as temporary, open(temporary, "wb") as handle:
        np.save(handle, add_fields(table, columns or {}), allow_pickle=False)
