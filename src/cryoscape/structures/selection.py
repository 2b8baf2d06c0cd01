"""Residues named in plain words: "A:55", "A:50-60", "A", and lists of these."""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from cryoscape.errors import InputError
from cryoscape.structures.atomic_model import AtomicModel

_RESIDUE = re.compile(r"(-?\d+)([A-Za-z]?)")
_RANGE = re.compile(r"(-?\d+)([A-Za-z]?)-(-?\d+)([A-Za-z]?)")
_REMEDY = 'Write a chain ("A"), a residue ("A:55") or a range ("A:50-60"), several with commas.'


def select(model: AtomicModel, text: str) -> NDArray[np.int64]:
    """Rows of the residues that a text names.

    Parameters
    ----------
    model : AtomicModel
        The model.
    text : str
        Parts separated by commas: a chain, `chain:number` or `chain:first-last`, with an insertion code
        after a number where there is one ("H:52A"). A range takes the residues that are there, both
        ends included, with their insertions.

    Returns
    -------
    ndarray, shape (k,), int64
        Ascending, without repeats, never empty.

    Raises
    ------
    InputError
        If a part cannot be read or names nothing in the model.
    """
    parts = [part.strip() for part in text.split(",")]
    if not any(parts):
        raise InputError("the selection is empty", remedy=_REMEDY)
    return np.unique(np.concatenate([_select_part(model, part) for part in parts if part]))


def _select_part(model: AtomicModel, part: str) -> NDArray[np.int64]:
    chain, colon, residues = (piece.strip() for piece in part.partition(":"))
    rows = np.flatnonzero(model.chain_id == chain)
    if not len(rows):
        raise InputError(
            f"selection {part!r}: the model has no chain {chain!r}",
            file=model.path,
            remedy=f"Its chains are {', '.join(model.chains)}.",
        )
    if not colon:
        return rows
    if match := _RESIDUE.fullmatch(residues):
        found = rows[_is(model, rows, *match.groups())]
    elif match := _RANGE.fullmatch(residues):
        found = _between(model, rows, *match.groups())
    else:
        raise InputError(f"selection {part!r} cannot be read", remedy=_REMEDY)
    if not len(found):
        numbers = model.residue_number[rows]
        raise InputError(
            f"selection {part!r}: chain {chain} has no residue {residues}",
            file=model.path,
            remedy=f"Its residues run from {numbers.min()} to {numbers.max()}, perhaps with gaps.",
        )
    return found


def _is(model: AtomicModel, rows: NDArray[np.int64], number: str, insertion: str) -> NDArray[np.bool_]:
    return (model.residue_number[rows] == int(number)) & (model.insertion_code[rows] == insertion)


def _between(
    model: AtomicModel, rows: NDArray[np.int64], first: str, first_code: str, last: str, last_code: str
) -> NDArray[np.int64]:
    numbers = model.residue_number[rows]
    inside = (numbers >= int(first)) & (numbers <= int(last))
    # Insertions are ordered by the file, not by the alphabet, so an end that has one cuts by place.
    if first_code:
        start = np.flatnonzero(_is(model, rows, first, first_code))
        inside &= np.arange(len(rows)) >= (start[0] if len(start) else len(rows))
    if last_code:
        end = np.flatnonzero(_is(model, rows, last, last_code))
        inside &= np.arange(len(rows)) <= (end[0] if len(end) else -1)
    return rows[inside]
