"""Memberships that a landscape found, for all that needs states of particles."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from cryoscape.analysis.components import posterior
from cryoscape.analysis.records import read_json
from cryoscape.analysis.states.membership import (
    SMALLEST_STATE,
    StateMembership,
    images_held,
    membership_of_weights,
)
from cryoscape.errors import InputError

if TYPE_CHECKING:
    from cryoscape.training.run import Run

_REMEDY = 'Run: cryoscape landscape RUN --cv "..."'


def read_landscape_membership(run: Run) -> StateMembership:
    """Probability of each state of `RUN/analysis/landscape.npz` for every particle of the embedding.

    Parameters
    ----------
    run : Run
        With an embedding and a landscape.

    Returns
    -------
    StateMembership
        In the order of the landscape, with its populations and its names, made fit for file names.

    Raises
    ------
    InputError
        There is no landscape, it cannot be read, it is of other particles, or a state has too few images.
    """
    folder = Path(run.path) / "analysis"
    record, arrays = folder / "landscape.json", folder / "landscape.npz"
    for path in (record, arrays):
        if not path.is_file():
            raise InputError("there is no landscape yet", file=path, remedy=_REMEDY)
    weights, uid = _arrays(arrays)
    try:
        states = read_json(record)["states"]
        names = [str(state["name"]) for state in states]
        share = np.array([float(state["population"]) for state in states])
    except (KeyError, TypeError, ValueError) as error:
        raise InputError("the landscape has no states", file=record, remedy=_REMEDY) from error
    z, _ = posterior(run.embedding, run.path)
    if not np.array_equal(uid, run.embedding.uid):
        raise InputError(
            "the landscape is of other particles than the embedding", file=arrays, remedy=_REMEDY
        )
    if weights.shape != (len(z), len(names)):
        raise InputError(
            "landscape.npz and landscape.json do not belong together", file=arrays, remedy=_REMEDY
        )
    held = images_held(weights)
    if held.min() < SMALLEST_STATE:
        raise InputError(
            f"{names[int(held.argmin())]} holds {held.min():.0f} images: too few for a map",
            file=arrays,
            remedy="Draw the landscape again with larger --state ranges.",
        )
    found = membership_of_weights(weights, z, share, "the landscape")
    return replace(found, names=file_names(names))


def file_names(names: list[str]) -> tuple[str, ...]:
    """Names of states as parts of file names, all different: "state 1" becomes state_1."""
    found: list[str] = []
    for name in names:
        plain = re.sub(r"[^\w.+-]+", "_", name).strip("_.") or "state"
        same = plain
        count = 1
        while same in found:
            count += 1
            same = f"{plain}_{count}"
        found.append(same)
    return tuple(found)


def _arrays(path: Path) -> tuple[NDArray[np.float64], NDArray[np.uint64]]:
    """Membership (N, S) and uid (N,) of landscape.npz."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            return stored["membership"].astype(np.float64), stored["uid"]
    except (OSError, ValueError, EOFError, KeyError, BadZipFile) as error:
        raise InputError("the landscape cannot be read", file=path, remedy=_REMEDY) from error
