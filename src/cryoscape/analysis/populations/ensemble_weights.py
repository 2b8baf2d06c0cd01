"""Populations of fixed conformations, from how well every image fits each of them.

With L_ik = p(x_i | z_k) the images' log evidence sum_i log sum_k w_k L_ik is concave in the populations w, so
there is one best answer (Tang et al. 2023, ensemble reweighting with cryo-EM particles; Cossio and Hummer
2018). It comes from expectation-maximisation. Intervals come from fitting again to images drawn with
replacement, group by group where images of one micrograph share its faults.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 200
"""Bootstrap fits behind an interval."""

FEWEST_GROUPS = 20
"""Micrographs from which on images are drawn again by micrograph, and not one by one."""

_ROUNDS = 2000
_GAIN = 1e-9


@dataclass(frozen=True, eq=False)
class EnsembleWeights:
    """Populations of K conformations.

    Attributes
    ----------
    weight : ndarray, shape (K,)
        The most likely populations; they sum to 1.
    resampled : ndarray, shape (R, K)
        Those of the bootstrap.
    evidence : float
        Mean log evidence of an image, nats.
    """

    weight: NDArray[np.float64]
    resampled: NDArray[np.float64]
    evidence: float

    def responsibilities(self, table: NDArray[np.float64]) -> NDArray[np.float64]:
        """Probability of every conformation given each image, shape (N, K)."""
        return responsibilities(table, self.weight)


def fit_weights(
    table: NDArray[np.float64],
    *,
    groups: NDArray | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> EnsembleWeights:
    """Fit the populations and their bootstrap.

    Parameters
    ----------
    table : ndarray, shape (N, K)
        log p(x_i | z_k), nats, up to a constant for each image.
    groups : ndarray, shape (N,), optional
        Micrograph of each image; images are drawn one by one without it.
    resamples : int
        R.
    seed : int
        Of the bootstrap.

    Returns
    -------
    EnsembleWeights
    """
    top = table.max(axis=1)
    likelihood = np.exp(table - top[:, None])
    ones = np.ones(len(table))
    weight, gain = maximise_evidence(likelihood, ones)
    rng = np.random.default_rng(seed)
    counts = (draw_counts(groups, len(table), rng) for _ in range(resamples))
    again = [maximise_evidence(likelihood, count, weight)[0] for count in counts]
    resampled = np.array(again).reshape(resamples, table.shape[1])
    return EnsembleWeights(weight, resampled, gain + float(top.mean()))


def responsibilities(table: NDArray[np.float64], weight: NDArray[np.float64]) -> NDArray[np.float64]:
    """Probability (N, K) of every conformation given each image: log likelihoods (N, K), populations (K,)."""
    joint = np.exp(table - table.max(axis=1, keepdims=True)) * weight
    return joint / joint.sum(axis=1, keepdims=True)


def resampling_groups(micrograph: NDArray[np.int64]) -> NDArray[np.int64] | None:
    """Groups in which images are drawn again; None where there are too few micrographs, for one by one."""
    return micrograph if len(np.unique(micrograph)) >= FEWEST_GROUPS else None


def draw_counts(groups: NDArray | None, n: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """How often each of n images is drawn in a resample, shape (n,)."""
    if groups is None:
        return rng.multinomial(n, np.full(n, 1.0 / n)).astype(np.float64)
    _, member = np.unique(groups, return_inverse=True)
    number = int(member.max()) + 1
    return rng.multinomial(number, np.full(number, 1.0 / number)).astype(np.float64)[member]


def maximise_evidence(
    likelihood: NDArray[np.float64],
    counts: NDArray[np.float64],
    start: NDArray[np.float64] | None = None,
    *,
    tolerance: float = _GAIN,
) -> tuple[NDArray[np.float64], float]:
    """Expectation-maximisation of the populations, accelerated by extrapolation.

    Every third step goes on in the direction of the last two as far as the evidence still rises (SQUAREM,
    Varadhan and Roland 2008).

    Parameters
    ----------
    likelihood : ndarray, shape (N, K)
        L_ik, of each image up to a factor.
    counts : ndarray, shape (N,)
        How often each image counts.
    start : ndarray, shape (K,), optional
        Populations to start from; a little of every conformation is added, because none can come back from 0.
    tolerance : float
        Gain of the mean log evidence in a round below which the fit has ended, nats.

    Returns
    -------
    weight : ndarray, shape (K,)
    evidence : float
        Mean log evidence of an image, nats.
    """
    k = likelihood.shape[1]
    used = counts > 0
    likelihood, share = likelihood[used], counts[used] / counts.sum()
    w = np.full(k, 1.0 / k) if start is None else 0.9 * start + 0.1 / k

    def update(w: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
        mixed = likelihood @ w
        return w * ((share / mixed) @ likelihood), float(share @ np.log(mixed))

    value = -np.inf
    for _ in range(_ROUNDS):
        first, here = update(w)
        if here - value < tolerance:
            return w, here
        value = here
        second, _ = update(first)
        r, v = first - w, second - 2 * first + w
        length = np.sqrt((r @ r) / max(v @ v, 1e-300))
        trial = w + 2 * length * r + length**2 * v if length > 1 else second
        if (trial <= 0).any():
            trial = np.maximum(trial, 1e-12)
            trial = trial / trial.sum()
        improved, reached = update(trial)
        w = improved if reached >= here else second
    return w, update(w)[1]
