"""Where the image files are that a particle table names."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from cryoscape.errors import InputError


def resolve_paths(
    names: list[str],
    table: str | PathLike[str],
    datadir: str | PathLike[str] | None = None,
    rows: ArrayLike | None = None,
) -> list[Path]:
    """Find the files that a particle table names.

    A relative name is looked up in the table's folder, then in the folders above it (one of them
    is the project's root), then in `datadir`; in `datadir` the bare file name is tried last, also
    for an absolute name that does not exist.

    Parameters
    ----------
    names : list of str
        Distinct names as they stand in the table.
    table : path
        The table.
    datadir : path, optional
        A further folder.
    rows : array_like of int, optional
        First row (from 0) that uses each name, for the message.

    Returns
    -------
    list of Path
        Absolute, in the order of `names`.

    Raises
    ------
    InputError
        If a file is found nowhere.
    """
    found = []
    for i, name in enumerate(names):
        path = _find(name, table)
        if path is None and datadir is not None:
            candidates = (
                Path(datadir).absolute() / name.removeprefix(">"),
                Path(datadir).absolute() / Path(name).name,
            )
            path = next((p for p in candidates if p.is_file()), None)
        if path is None:
            raise InputError(
                f"the image stack {name} is missing",
                file=table,
                row=None if rows is None else int(np.asarray(rows)[i]) + 1,
                remedy="Put it where the table says, or name its folder with --datadir.",
            )
        found.append(path)
    return found


def _find(name: str, table: str | PathLike[str]) -> Path | None:
    # An absolute name swallows the folder it is joined to. cryoSPARC's exports mark paths with ">".
    folder = Path(table).absolute().parent
    candidates = (root / name.removeprefix(">") for root in (folder, *folder.parents))
    return next((p for p in candidates if p.is_file()), None)


def portable_names(names: list[str], paths: Sequence[Path], table: str | PathLike[str]) -> list[str]:
    """Names for image files in a table written to another folder.

    Parameters
    ----------
    names : list of str
        Names in the table that was read.
    paths : sequence of Path
        The files they stand for.
    table : path
        The table to be written.

    Returns
    -------
    list of str
        The name as it is where it leads to the same file from the new folder, else the absolute path.
    """
    kept = []
    for name, path in zip(names, paths):
        found = _find(name, table)
        kept.append(name if found is not None and found.samefile(path) else str(path.absolute()))
    return kept
