"""RELION's STAR tables, with every token kept as it was written.

A table is read with gemmi, its columns are turned into numbers on request, and it is written back
from the raw tokens, so that a column nobody touched is the same to the last digit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from os import PathLike
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from gemmi import cif
from numpy.typing import ArrayLike, NDArray

from cryoscape.errors import InputError
from cryoscape.files import atomic_path

# RELION takes a file without this line for one of version 3.0 (`metadata_table.cpp`).
VERSION_LINE = "# version 50001"


class StarBlock:
    """One `data_` block that holds a table, either a loop or single values.

    Parameters
    ----------
    block : gemmi.cif.Block
        The block.
    path : path
        The file it comes from, for messages.

    Attributes
    ----------
    name : str
        Without `data_`.
    tags : tuple of str
        Column names without the leading underscore.
    n : int
        Number of rows.
    path : Path
    """

    def __init__(self, block: cif.Block, path: str | PathLike[str]) -> None:
        self.name: str = block.name.strip()
        self.path = Path(path)
        self._block = block
        loop = next((item.loop for item in block if item.loop is not None), None)
        self.is_loop = loop is not None
        if loop is not None:
            self.tags = tuple(t.removeprefix("_") for t in loop.tags)
            self.n = int(loop.length())
        else:
            pairs: list[Any] = [item.pair for item in block if item.pair is not None]
            self.tags = tuple(str(tag).removeprefix("_") for tag, _ in pairs)
            self.n = 1 if self.tags else 0

    def __contains__(self, tag: str) -> bool:
        return tag in self.tags

    def tokens(self, tag: str) -> list[str]:
        """Raw tokens of a column, quotes included.

        Parameters
        ----------
        tag : str
            Column name without the underscore.

        Returns
        -------
        list of str, length n
        """
        return list(self._block.find_values("_" + tag))

    def strings(self, tag: str) -> list[str]:
        """A column as text, quotes removed.

        Parameters
        ----------
        tag : str
            Column name without the underscore.

        Returns
        -------
        list of str, length n
        """
        return [cif.as_string(t) if t[:1] in "'\";" else t for t in self.tokens(tag)]

    def floats(self, tag: str, default: float | None = None) -> NDArray[np.float64]:
        """A column as finite numbers.

        Parameters
        ----------
        tag : str
            Column name without the underscore.
        default : float, optional
            Value of every row where the column is absent.

        Returns
        -------
        ndarray, shape (n,), float64

        Raises
        ------
        InputError
            If a token is no finite number, or the column is absent and there is no default.
        """
        if tag not in self:
            if default is None:
                raise InputError(
                    f"the column {tag} is missing from data_{self.name}",
                    file=self.path,
                    remedy=f"Use a table that has {tag}.",
                )
            return np.full(self.n, default)
        tokens = self.tokens(tag)
        try:
            values = np.array(tokens, dtype=np.float64)
        except ValueError:
            values = np.array([_float_or_nan(t) for t in tokens])
        bad = ~np.isfinite(values)
        if bad.any():
            row = int(np.argmax(bad))
            raise InputError(
                f"{tag} is {tokens[row]}, not a number",
                file=self.path,
                row=row + 1,
                remedy="Take the row out of the table or give it a number.",
            )
        return values

    def integers(self, tag: str) -> NDArray[np.int64]:
        """A column as whole numbers.

        Parameters
        ----------
        tag : str
            Column name without the underscore.

        Returns
        -------
        ndarray, shape (n,), int64

        Raises
        ------
        InputError
            If the column is absent or a token is no number.
        """
        return np.rint(self.floats(tag)).astype(np.int64)


def _float_or_nan(token: str) -> float:
    try:
        return float(token)
    except ValueError:
        return float("nan")


def read_star(path: str | PathLike[str]) -> list[StarBlock]:
    """Read all tables of a STAR file.

    Parameters
    ----------
    path : path
        The file.

    Returns
    -------
    list of StarBlock
        In the order of the file.

    Raises
    ------
    InputError
        If the file is missing or no STAR file.
    """
    try:
        document = cif.read(str(path))
    except OSError as error:
        raise InputError(
            f"the file cannot be read ({error.strerror or error})", file=path, remedy="Check the path."
        ) from error
    except (ValueError, RuntimeError) as error:
        raise InputError(
            f"this is not a whole STAR file ({error})",
            file=path,
            remedy="Write or copy the file again.",
        ) from error
    return [StarBlock(block, path) for block in document]


def write_blocks(
    path: str | PathLike[str], blocks: Sequence[tuple[str, Mapping[str, Sequence[str]]]]
) -> None:
    """Write tables of tokens as a STAR file that RELION reads.

    A file with optics groups gets the version line of RELION 5, which 3.1 and 4 take as well. A single
    table gets none, so that RELION takes it for one of version 3.0 and makes the optics groups itself.

    Parameters
    ----------
    path : path
        The file; written atomically.
    blocks : sequence of (name, columns)
        `columns` maps names without underscore to equally long lists of tokens.

    Raises
    ------
    InputError
        If the disk is full or the folder cannot be written to.
    """
    version = f"\n{VERSION_LINE}\n" if any(name == "optics" for name, _ in blocks) else ""
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8", newline="\n") as handle:
        for name, columns in blocks:
            handle.write(f"{version}\ndata_{name}\n\n")
            _write_loop(handle, columns)


def _write_loop(handle: TextIO, columns: Mapping[str, Sequence[str]]) -> None:
    handle.write("loop_\n")
    for number, tag in enumerate(columns, start=1):
        handle.write(f"_{tag} #{number}\n")
    # Chunks, not one string: a table of a million rows is hundreds of megabytes.
    lines = map(" ".join, zip(*columns.values(), strict=True))
    while chunk := list(islice(lines, 10_000)):
        handle.write("\n".join(chunk) + "\n")
    # A blank line ends the loop for RELION.
    handle.write("\n")


def to_tokens(values: ArrayLike) -> list[str]:
    """Tokens of a column of numbers or text.

    Floating-point numbers get 6 decimals, as RELION writes them, or 9 significant digits where they
    are smaller than 1e-3 or larger than 1e9; text with blanks is quoted.

    Parameters
    ----------
    values : array_like, shape (n,)
        Numbers, booleans or text.

    Returns
    -------
    list of str
    """
    array = np.asarray(values)
    if array.dtype.kind == "b":
        array = array.astype(np.int8)
    if array.dtype.kind in "iu":
        return [str(v) for v in array.tolist()]
    if array.dtype.kind == "f":
        return [_float_token(v) for v in array.tolist()]
    return [cif.quote(str(v)) for v in array.tolist()]


def _float_token(value: float) -> str:
    fixed = f"{value:.6f}"
    return fixed if float(fixed) == value or 1e-3 <= abs(value) < 1e9 else f"{value:.9g}"


def flatten_columns(columns: Mapping[str, ArrayLike]) -> dict[str, list[str]]:
    """Tokens of named columns; a column of shape (n, d) becomes d columns name1 .. named.

    Parameters
    ----------
    columns : mapping
        Names without underscore to arrays of shape (n,) or (n, d).

    Returns
    -------
    dict
        Names to lists of tokens.
    """
    flat: dict[str, list[str]] = {}
    for name, values in columns.items():
        array = np.asarray(values)
        if array.ndim == 1:
            flat[name.removeprefix("_")] = to_tokens(array)
        else:
            for j in range(array.shape[1]):
                flat[f"{name.removeprefix('_')}{j + 1}"] = to_tokens(array[:, j])
    return flat


def write_particles_star(
    path: str | PathLike[str],
    *,
    image_names: Sequence[str],
    optics: Sequence[Mapping[str, object]],
    columns: Mapping[str, ArrayLike],
) -> None:
    """Write a particle table with optics groups (RELION 3.1 and later).

    Parameters
    ----------
    path : path
        The file; written atomically.
    image_names : sequence of str, length n
        `rlnImageName`: "000001@stack.mrcs", counted from 1.
    optics : sequence of mapping
        One mapping of `rln...` names to values for each optics group. `rlnOpticsGroup` is filled
        in from 1 where it is absent, and so is `rlnOpticsGroupName`.
    columns : mapping
        `rln...` names to arrays of shape (n,); (n, d) becomes d numbered columns. `rlnOpticsGroup`
        is 1 for all where it is absent.

    Raises
    ------
    ValueError
        If lengths differ.
    InputError
        If the disk is full or the folder cannot be written to.
    """
    n = len(image_names)
    groups = [
        {"rlnOpticsGroupName": f"opticsGroup{i}", "rlnOpticsGroup": i, **g}
        for i, g in enumerate(optics, start=1)
    ]
    tags = list(dict.fromkeys(tag for g in groups for tag in g))
    optics_block = {tag: [to_tokens(np.asarray([g[tag]]))[0] for g in groups] for tag in tags}
    particles = {"rlnImageName": to_tokens(np.asarray(image_names, dtype=object))}
    particles.update(flatten_columns(columns))
    particles.setdefault("rlnOpticsGroup", ["1"] * n)
    wrong = {tag: len(c) for tag, c in particles.items() if len(c) != n}
    if wrong:
        raise ValueError(f"columns of other lengths than {n} images: {wrong}")
    write_blocks(path, [("optics", optics_block), ("particles", particles)])
