"""The two ends of a path: particles, or states of the run by name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize

from cryoscape.analysis.components import posterior
from cryoscape.analysis.paths.string_method import Surface
from cryoscape.analysis.prior_fitting.states import states_of_run
from cryoscape.analysis.records import read_json
from cryoscape.errors import InputError

if TYPE_CHECKING:
    from cryoscape.training.run import Run

_ROUNDS = 200
# Share of the particles, those that belong to a state of the landscape most surely, whose mean is its place.
_SUREST = 0.05


@dataclass(frozen=True, eq=False)
class PathEnd:
    """Where a path begins or ends.

    Attributes
    ----------
    name : str
        "state 1", or "particle 12".
    z : ndarray, shape (d,), float32
    state : bool
        Whether it stands for a state, and may move to the minimum of its basin.
    """

    name: str
    z: NDArray[np.float32]
    state: bool


@dataclass(frozen=True, eq=False)
class _States:
    """S states: names, populations (S,) and codes (S, d) somewhere in their basins."""

    names: tuple[str, ...]
    share: NDArray[np.float64]
    z: NDArray[np.float64]


def path_ends(run: Run, start: str | None, end: str | None, seed: int = 0) -> tuple[PathEnd, PathEnd]:
    """Ends of a path; where one is not named, the most populated state that the other is not.

    Parameters
    ----------
    run : Run
        With an embedding.
    start, end : str, optional
        The row of a particle in its table, from 0, or the name of a state: of the run's landscape, else of
        its prior or the mixture behind its codes (`state_1`, ...).
    seed : int

    Raises
    ------
    InputError
        There is no such particle or state, there are too few states, or both ends are the same.
    """
    states = None
    if not (_is_row(start) and _is_row(end)):
        states = _states(run, seed)
    found = [None if text is None else _end(run, text, states) for text in (start, end)]
    if states is not None and None in found:
        order = [states.names[k] for k in np.argsort(-states.share, kind="stable")]
        taken = [one.name for one in found if one is not None]
        free = [name for name in order if name not in taken]
        if len(free) < found.count(None):
            raise InputError(
                f"this run has {len(order)} state, and a path has two ends"
                if len(order) == 1
                else "there is no state left to go to",
                file=run.path,
                remedy="Name both with --from and --to: rows of particles, or states of `cryoscape landscape`"
                " with --state.",
            )
        found = [_end(run, free.pop(0), states) if one is None else one for one in found]
    first, last = found
    assert first is not None
    assert last is not None
    if first.name == last.name or np.array_equal(first.z, last.z):
        raise InputError("both ends of the path are the same", remedy="Name two different ones.")
    return first, last


def latent_of_row(run: Run, row: int) -> NDArray[np.float32]:
    """Posterior mean of a particle, shape (d,).

    Raises
    ------
    InputError
        It is not in the embedding.
    """
    embedding = run.embedding
    place = np.flatnonzero(embedding.row == row)
    if not len(place):
        raise InputError(
            f"particle {row} is not in the embedding of this run",
            file=run.path,
            remedy=f"Its rows run from {embedding.row.min()} to {embedding.row.max()}, perhaps with gaps.",
        )
    return np.asarray(embedding.z[place[0]], dtype=np.float32)


def lowest_near(surface: Surface, u: torch.Tensor) -> torch.Tensor:
    """Minimum of a free energy downhill from u (d,)."""

    def value(point: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        there = torch.as_tensor(point).to(u)[None]
        return float(surface(there)[0]), surface.slope(there)[0][0].numpy()

    found = minimize(value, u.double().numpy(), jac=True, method="L-BFGS-B", options={"maxiter": _ROUNDS})
    return torch.as_tensor(found.x).to(u)


def _is_row(text: str | None) -> bool:
    return text is not None and text.strip().isdigit()


def _end(run: Run, text: str, states: _States | None) -> PathEnd:
    if _is_row(text):
        return PathEnd(f"particle {int(text)}", latent_of_row(run, int(text)), False)
    assert states is not None
    if text not in states.names:
        raise InputError(
            f"there is no state {text!r}",
            file=run.path,
            remedy=f"Give the row of a particle, or one of: {', '.join(states.names)}.",
        )
    k = states.names.index(text)
    return PathEnd(text, states.z[k].astype(np.float32), True)


def _states(run: Run, seed: int) -> _States:
    """States of the run's landscape; without one those of its prior, or of the mixture behind its codes."""
    record, arrays = (Path(run.path) / "analysis" / f"landscape.{kind}" for kind in ("json", "npz"))
    if not (record.is_file() and arrays.is_file()):
        found = states_of_run(run, seed=seed)
        return _States(found.names, found.share, found.representative)
    told = read_json(record)["states"]
    z, _ = posterior(run.embedding, run.path)
    with np.load(arrays, allow_pickle=False) as stored:
        weights, uid = stored["membership"], stored["uid"]
    if not np.array_equal(uid, run.embedding.uid) or weights.shape[1] != len(told):
        raise InputError(
            "the landscape is of other particles than the embedding",
            file=arrays,
            remedy="Run `cryoscape landscape` again.",
        )
    # Where images say little, all others are as much in one state as in the next.
    surest = np.argsort(-weights, axis=0, kind="stable")[: max(1, round(_SUREST * len(z)))]
    return _States(
        tuple(str(state["name"]) for state in told),
        np.array([state["population"] for state in told]),
        z[surest].mean(axis=0),
    )
