"""Populations of a run's prior against the true ones, state by state and along a path.

The prior is sampled, the samples are decoded, and each is counted for the true state whose structure is
nearest: populations are a matter of structures, and a density over z depends on how z is parametrised.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cryoscape.analysis.components import decode_in_chunks
from cryoscape.analysis.evaluation.truth import Truth

if TYPE_CHECKING:
    from cryoscape.training.run import Run

SAMPLES = 20_000
"""Draws from the prior; the sampling error of a share p is sqrt(p (1 - p) / 20,000)."""

BINS = 20
"""Along a path of more states than that."""

HIGHEST = 5.0
"""Free energies above this, in kT, are left out of the profile's error: nothing is there."""

_ORDERED = 5


@dataclass(frozen=True)
class PopulationEvaluation:
    """Populations against the truth.

    Attributes
    ----------
    source : str
        Whose populations: "prior of the run", ...
    samples : int
        Decoded.
    share : tuple of float
        Population of every true state.
    distance : float
        Total variation distance of the shares from the true populations, or of bins along the path.
    floor : float
        What so many draws from the truth itself would give on average.
    largest_error : float
        Of a state's, or bin's, population.
    profile_error : float or None
        Root mean square error of the free energy along the path where the true one is below 5 kT from its
        minimum, after the best constant, kT; None for states without order.
    """

    source: str
    samples: int
    share: tuple[float, ...]
    distance: float
    floor: float
    largest_error: float
    profile_error: float | None


def evaluate_populations(
    run: Run, truth: Truth, *, samples: int = SAMPLES, seed: int = 0
) -> PopulationEvaluation:
    """Populations of the run's own prior.

    Parameters
    ----------
    run : Run
        A run that decodes structures.
    truth : Truth
    samples : int
    seed : int
        Of the samples.

    Returns
    -------
    PopulationEvaluation
    """
    return compare_populations(run, truth, run.sample(samples, seed), "prior of the run")


def compare_populations(run: Run, truth: Truth, z: NDArray, source: str) -> PopulationEvaluation:
    """Populations of any draws z (n, d) of latents, decoded by the run."""
    return shares_against_truth(truth, nearest_shares(run, truth, z), len(z), source)


def shares_against_truth(
    truth: Truth, share: NDArray[np.float64], draws: int, source: str
) -> PopulationEvaluation:
    """Populations (S,) of the true states, estimated from so many draws, against the truth."""
    bins = _bins(truth)
    found, true = (np.bincount(bins, weights=p) for p in (share, truth.population))
    profile = None
    if _is_ordered(truth):
        profile = profile_error(found, true, draws)
    return PopulationEvaluation(
        source,
        draws,
        tuple(float(p) for p in share),
        float(0.5 * np.abs(found - true).sum()),
        sampling_floor(true, draws),
        float(np.abs(found - true).max()),
        profile,
    )


def sampling_floor(true: NDArray, draws: int) -> float:
    """Total variation distance of so many draws from their own law (S,), on average."""
    return float(np.sqrt(true * (1 - true) / (2 * np.pi * draws)).sum())


def nearest_shares(run: Run, truth: Truth, z: NDArray) -> NDArray[np.float64]:
    """Share of latents (n, d) whose decoded structure is nearest to each true state, shape (S,)."""
    in_model, in_truth = truth.match(run.structure)
    states = truth.coords[:, in_truth].astype(np.float64)
    origin = states.mean(axis=0)
    flat = (states - origin).reshape(len(states), -1)
    norms = (flat**2).sum(axis=1)
    counts = np.zeros(len(states))
    for _, coords in decode_in_chunks(run, z):
        move = (coords[:, in_model] - origin).reshape(len(coords), -1)
        nearest = (norms - 2 * move @ flat.T).argmin(axis=1)
        counts += np.bincount(nearest, minlength=len(states))
    return counts / len(z)


def profile_error(found: NDArray, true: NDArray, n: int) -> float:
    """Error of the free energy -log p over bins, kT.

    Bins where the true free energy is more than 5 kT above its minimum are left out; an empty bin counts as
    half a draw of n, so that what was lost costs what it should.
    """
    free = -np.log(np.maximum(true, 1e-300))
    low = free - free.min() < HIGHEST
    difference = -np.log(np.maximum(found[low], 0.5 / n)) - free[low]
    return float(difference.std())


def _is_ordered(truth: Truth) -> bool:
    step = np.zeros(0) if truth.cv is None else np.diff(truth.cv)
    return len(step) >= _ORDERED - 1 and bool(np.all(step > 0))


def _bins(truth: Truth) -> NDArray[np.int64]:
    """Bin of every state: neighbours along a path share one, discrete states have one each."""
    n = len(truth.population)
    if not _is_ordered(truth) or n <= BINS:
        return np.arange(n)
    return np.arange(n) * BINS // n
