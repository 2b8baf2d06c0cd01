from __future__ import annotations

import numpy as np
import pytest

from cryoscape.errors import InputError
from cryoscape.structures.selection import select
from tests.structures.builders import make_model, walk


@pytest.fixture
def model():
    chains = ["A"] * 6 + ["B2"] * 3
    numbers = [-1, 1, 52, 52, 52, 60, 1, 2, 3]
    insertions = ["", "", "", "A", "B", "", "", "", ""]
    return make_model(walk(9), chains, numbers, insertions)


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("A:60", [5]),
        ("A:52", [2]),
        ("A:52A", [3]),
        ("A:-1", [0]),
        ("A:-1-1", [0, 1]),
        ("A:1-52", [1, 2, 3, 4]),
        ("A:52A-60", [3, 4, 5]),
        ("A:1-52A", [1, 2, 3]),
        ("A:50-70", [2, 3, 4, 5]),
        ("B2", [6, 7, 8]),
        ("B2:3, A:60 ,B2:1-3", [5, 6, 7, 8]),
    ],
)
def test_rows(model, text, rows):
    chosen = select(model, text)
    assert chosen.tolist() == rows
    assert chosen.dtype == np.int64


@pytest.mark.parametrize(
    ("text", "message", "remedy"),
    [
        ("Z:5", "no chain 'Z'", "A, B2"),
        ("A:55", "chain A has no residue 55", "-1 to 60"),
        ("A:52C-60", "no residue 52C-60", "-1 to 60"),
        ("B2:10-20", "chain B2 has no residue 10-20", "1 to 3"),
        ("A:60,B2:9", "no residue 9", "1 to 3"),
        ("A:x", "cannot be read", "A:55"),
        ("A:", "cannot be read", "A:55"),
        (" , ", "empty", "A:50-60"),
    ],
)
def test_what_is_missing_is_named(model, text, message, remedy):
    with pytest.raises(InputError, match=message) as caught:
        select(model, text)
    assert remedy in caught.value.remedy
