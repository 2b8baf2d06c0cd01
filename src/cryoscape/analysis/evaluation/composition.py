"""Subunits of a run that come and go, against the true ones: single particles, populations, couplings.

A decoded structure has a subunit where more than half of its residues are more present than absent. The
populations of all 2^m sets of subunits come from decoded draws of the run's prior, so that priors over bits
and over real latents are judged alike, and the pairwise model closest to them says what the couplings are.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cryoscape.analysis.evaluation.populations import SAMPLES, sampling_floor
from cryoscape.analysis.evaluation.truth import Truth

if TYPE_CHECKING:
    from cryoscape.training.run import Run

_CHUNK = 4096
# A set of subunits that no draw showed counts as half of one.
_UNSEEN = 0.5
_ROUNDS = 500
_TOLERANCE = 1e-10


@dataclass(frozen=True)
class CompositionEvaluation:
    """Subunits against the truth.

    Attributes
    ----------
    subunits : tuple of str
        Chains, as the model names them.
    accuracy, majority : tuple of float
        Share of particles whose decoded structure is right about each subunit; the share that always giving
        the commoner answer would get.
    present, true_present : tuple of float
        Share of the draws, and of the truth, that has each subunit.
    samples : int
        Draws from the prior.
    distance, floor : float
        Total variation distance of the populations of all sets of subunits from the true ones; what so many
        draws from the truth itself would give on average.
    log_probability : float
        Mean log p(s) of a set of subunits drawn from the truth, under the run's prior, nats.
    entropy : float
        Of the truth, nats; the mean log p(s) cannot exceed its negative.
    couplings, true_couplings : tuple of tuple of float
        J of the pairwise model with the first and second moments of the draws, shape (m, m), and of that with
        those of the true populations, kT; present is 1 and absent 0.
    correlation : float or None
        Of the two over pairs; None for fewer than three pairs or couplings that are all the same.
    """

    subunits: tuple[str, ...]
    accuracy: tuple[float, ...]
    majority: tuple[float, ...]
    present: tuple[float, ...]
    true_present: tuple[float, ...]
    samples: int
    distance: float
    floor: float
    log_probability: float
    entropy: float
    couplings: tuple[tuple[float, ...], ...]
    true_couplings: tuple[tuple[float, ...], ...]
    correlation: float | None

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> CompositionEvaluation:
        """Return what `to_dict` wrote."""
        return cls(**{name: _tuples(value) for name, value in content.items()})


def evaluate_composition(
    run: Run, truth: Truth, z: NDArray, state: NDArray, *, samples: int = SAMPLES, seed: int = 0
) -> CompositionEvaluation | None:
    """Compare the subunits of decoded structures with the true ones.

    Parameters
    ----------
    run : Run
        A run that decodes structures.
    truth : Truth
        Of subunits that come and go.
    z : ndarray, shape (n, d)
        Posterior means.
    state : ndarray, shape (n,), int
        True states of the same particles.
    samples : int
        Draws from the prior.
    seed : int
        Of the draws.

    Returns
    -------
    CompositionEvaluation or None
        None where the run has no chains that come and go, or the truth no subunits.
    """
    if truth.present is None or truth.subunit is None:
        return None
    in_model, in_truth = truth.match(run.structure)
    subunit = truth.subunit[in_truth]
    found = present_subunits(run, z, in_model, subunit)
    if found is None:
        return None
    drawn = present_subunits(run, run.sample(samples, seed), in_model, subunit)
    assert drawn is not None
    sets, true, m = truth.present, truth.population, truth.present.shape[1]
    right = (found == sets[state]).mean(axis=0)
    actual = sets[state].mean(axis=0)
    counts = np.zeros(len(sets))
    place = {tuple(row): i for i, row in enumerate(sets.tolist())}
    for row, n in zip(*np.unique(drawn, axis=0, return_counts=True)):
        # Sets that cannot be, because the truth lists only some, are lost.
        if tuple(row.tolist()) in place:
            counts[place[tuple(row.tolist())]] = n
    share = counts / samples
    smooth = (counts + _UNSEEN) / (samples + _UNSEEN * len(sets))
    couplings, true_couplings = (pairwise_model(sets, p)[1] for p in (smooth, true))
    above = np.triu_indices(m, 1)
    ours, theirs = couplings[above], true_couplings[above]
    telling = len(ours) > 2 and ours.std() > 1e-6 and theirs.std() > 1e-6
    likely = true > 0
    return CompositionEvaluation(
        subunits=_names(run, in_model, subunit, m),
        accuracy=_floats(right),
        majority=_floats(np.maximum(actual, 1 - actual)),
        present=_floats(drawn.mean(axis=0)),
        true_present=_floats(true @ sets),
        samples=samples,
        distance=float(0.5 * np.abs(share - true).sum()),
        floor=sampling_floor(true, samples),
        log_probability=float(true @ np.log(smooth)),
        entropy=float(-true[likely] @ np.log(true[likely])),
        couplings=tuple(map(_floats, couplings)),
        true_couplings=tuple(map(_floats, true_couplings)),
        correlation=float(np.corrcoef(ours, theirs)[0, 1]) if telling else None,
    )


def present_subunits(
    run: Run, z: NDArray, residue: NDArray[np.int64], subunit: NDArray[np.int64]
) -> NDArray[np.bool_] | None:
    """Which subunits decoded structures have.

    Parameters
    ----------
    run : Run
    z : ndarray, shape (n, d)
    residue : ndarray, shape (k,), int
        Residues of the model.
    subunit : ndarray, shape (k,), int
        Subunit of each, -1 for the core.

    Returns
    -------
    ndarray of bool, shape (n, m), or None
        None where every chain is always there.
    """
    out = []
    for start in range(0, len(z), _CHUNK):
        occupancy = run.occupancy(z[start : start + _CHUNK])
        if occupancy is None:
            return None
        here = occupancy[:, residue] > 0.5
        out.append(
            np.stack([here[:, subunit == s].mean(axis=1) > 0.5 for s in range(subunit.max() + 1)], axis=1)
        )
    return np.concatenate(out)


def pairwise_model(
    sets: NDArray[np.bool_], p: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Fields and couplings of the Ising model with the moments of a distribution: the closest one to it.

    Newton's method on log Z - h <s> - 1/2 sum J <s s>, which is convex; all states are summed.

    Parameters
    ----------
    sets : ndarray of bool, shape (S, m)
        All states that can be.
    p : ndarray, shape (S,)
        Their probabilities; every pair of values of every two subunits must have some.

    Returns
    -------
    fields : ndarray, shape (m,)
        kT.
    couplings : ndarray, shape (m, m)
        kT, symmetric with a diagonal of 0.
    """
    m = sets.shape[1]
    first, second = np.triu_indices(m, 1)
    s = sets.astype(np.float64)
    features = np.concatenate([s, s[:, first] * s[:, second]], axis=1)
    wanted = p @ features
    theta = np.zeros(features.shape[1])

    def value(at: NDArray[np.float64]) -> float:
        return float(np.logaddexp.reduce(features @ at) - wanted @ at)

    for _ in range(_ROUNDS):
        log_q = features @ theta
        q = np.exp(log_q - np.logaddexp.reduce(log_q))
        mean = q @ features
        gradient = mean - wanted
        if np.abs(gradient).max() < _TOLERANCE:
            break
        curvature = (features * q[:, None]).T @ features - np.outer(mean, mean)
        step = np.linalg.solve(curvature + 1e-12 * np.eye(len(theta)), gradient)
        length, here = 1.0, value(theta)
        while value(theta - length * step) > here and length > 1e-6:
            length /= 2
        theta = theta - length * step
    couplings = np.zeros((m, m))
    couplings[first, second] = theta[m:]
    return theta[:m], couplings + couplings.T


def _names(run: Run, residue: NDArray, subunit: NDArray, m: int) -> tuple[str, ...]:
    chains = np.asarray(run.structure.chain_id)[residue]
    return tuple("+".join(dict.fromkeys(map(str, chains[subunit == s]))) for s in range(m))


def _floats(values: NDArray) -> tuple[float, ...]:
    return tuple(float(v) for v in values)


def _tuples(value: Any) -> Any:
    return tuple(_tuples(one) for one in value) if isinstance(value, list) else value
