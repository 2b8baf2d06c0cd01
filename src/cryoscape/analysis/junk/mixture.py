"""What share of the images is what: a mixture of good particles, contaminants, displaced ones and noise.

Each image is one of: the molecule in one of K structures, of strength a ~ N(m, v); a random signal of one of
A powers; the molecule displaced; nothing. All shares, and m and v, maximise the evidence of all images
(expectation-maximisation). Every class then says how probable it is given each image.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from cryoscape.analysis.junk.hypotheses import posterior_strength, scaled_evidence
from cryoscape.analysis.junk.scan import Scan
from cryoscape.analysis.populations.ensemble_weights import RESAMPLES, fit_weights, maximise_evidence

Array = NDArray[np.float64]

JunkClass = Literal["good", "contaminant", "displaced", "noise"]
CLASSES: tuple[JunkClass, ...] = get_args(JunkClass)
"""What an image may be, in the order of all tables."""

_ROUNDS = 40
_SETTLED = 1e-3
_SPREAD = 0.2  # standard deviation of the strength that the fit starts from


@dataclass(frozen=True, eq=False)
class JunkMixture:
    """The fitted mixture, for N images.

    Attributes
    ----------
    share : ndarray, shape (4,)
        Of the classes.
    resampled : ndarray, shape (R, 4)
        Those of the bootstrap.
    structure_share : ndarray, shape (K,)
        Of the structures among good particles; sums to 1.
    evidence : ndarray, shape (N, 4)
        Log evidence of every class, nats over pure noise.
    single : ndarray, shape (N,)
        That of the best single structure.
    posterior : ndarray, shape (N, 4)
        Probability of every class given the image; rows sum to 1.
    best : ndarray, shape (N,), int64
        The most probable structure of each image.
    alternatives : ndarray, shape (N,)
        Evidence of being good over that of this structure alone, nats: what the others add.
    amplitude : ndarray, shape (N,)
        Mean strength of that structure in the image.
    mean, variance : float
        Of the strength, over good particles.
    """

    share: Array
    resampled: Array
    structure_share: Array
    evidence: Array
    single: Array
    posterior: Array
    best: NDArray[np.int64]
    alternatives: Array
    amplitude: Array
    mean: float
    variance: float


def fit_mixture(
    scan: Scan,
    displaced: Array | None = None,
    alike: Array | None = None,
    *,
    start: JunkMixture | None = None,
    groups: NDArray | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> JunkMixture:
    """Fit the mixture.

    Parameters
    ----------
    scan : Scan
        Of N images.
    displaced : ndarray, shape (N,), optional
        Evidence of displaced particles; without it there are none.
    alike : ndarray, shape (N, A), optional
        Evidence of more contaminants: objects half like the molecule.
    start : JunkMixture, optional
        Where the strength starts from; 1 by default.
    groups : ndarray, shape (N,), optional
        Micrograph of each image, drawn together in the bootstrap.
    resamples : int
        R.
    seed : int
        Of the bootstrap.

    Returns
    -------
    JunkMixture
    """
    k = scan.linear.shape[1]
    others = _other_columns(scan, displaced, alike)
    mean, variance = (1.0, _SPREAD**2) if start is None else (start.mean, start.variance)
    weight: Array | None = None
    for _ in range(_ROUNDS):
        table = np.concatenate([_structures(scan, mean, variance), others], axis=1)
        likelihood = np.exp(table - table.max(axis=1, keepdims=True))
        weight = maximise_evidence(likelihood, np.ones(len(table)), weight)[0]
        joint = likelihood * weight
        share = joint[:, :k] / joint.sum(axis=1, keepdims=True)
        before = mean, variance
        mean, variance = _strength_of_all(scan, share, mean, variance)
        if abs(mean - before[0]) + abs(variance - before[1]) < _SETTLED * mean:
            break
    table = np.concatenate([_structures(scan, mean, variance), others], axis=1)
    likelihood = np.exp(table - table.max(axis=1, keepdims=True))
    weight = maximise_evidence(likelihood, np.ones(len(table)), weight)[0]
    found = _summary(scan, table, weight, mean, variance)
    # The members of the classes keep their shares: they hardly matter for the classes'.
    again = fit_weights(found.evidence, groups=groups, resamples=resamples, seed=seed)
    return replace(found, resampled=again.resampled)


def _structures(scan: Scan, mean: float, variance: float) -> Array:
    linear, power = torch.from_numpy(scan.linear), torch.from_numpy(scan.power)
    return scaled_evidence(linear, power, mean, variance).numpy()


def _other_columns(scan: Scan, displaced: Array | None, alike: Array | None) -> Array:
    """Columns beside the structures: contaminants, and, the last two, displaced particles and noise."""
    n = len(scan.linear)
    alike = np.empty((n, 0)) if alike is None else alike
    moved = np.full(n, -np.inf) if displaced is None else displaced
    return np.concatenate([scan.contaminant, alike, moved[:, None], np.zeros((n, 1))], axis=1)


def _strength_of_all(scan: Scan, share: Array, mean: float, variance: float) -> tuple[float, float]:
    """Mean and variance of the strength, given how probable each structure (N, K) is for each image.

    As before where less than one image is good.
    """
    one, spread = posterior_strength(scan.linear, scan.power, mean, variance)
    total = float(share.sum())
    if total < 1:
        return mean, variance
    middle = float((share * one).sum() / total)
    return middle, float((share * (np.square(one - middle) + spread)).sum() / total)


def _summary(scan: Scan, table: Array, weight: Array, mean: float, variance: float) -> JunkMixture:
    """The fitted mixture without a bootstrap."""
    k = scan.linear.shape[1]
    ends = np.array([0, k, table.shape[1] - 2, table.shape[1] - 1, table.shape[1]])
    parts = [slice(a, b) for a, b in pairwise(ends)]
    share = np.array([weight[part].sum() for part in parts])
    # What no image is has evidence nonetheless: that of its members in equal parts.
    inside = [
        weight[p] / s if s > 0 else np.full(p.stop - p.start, 1 / (p.stop - p.start))
        for p, s in zip(parts, share)
    ]
    with np.errstate(divide="ignore"):
        evidence = np.stack(
            [np.logaddexp.reduce(table[:, p] + np.log(w), axis=1) for p, w in zip(parts, inside)], axis=1
        )
        joint = evidence + np.log(share)
    posterior = np.exp(joint - np.logaddexp.reduce(joint, axis=1, keepdims=True))
    with np.errstate(divide="ignore"):
        best = (table[:, :k] + np.log(inside[0])).argmax(axis=1)
    rows = np.arange(len(table))
    amplitude, _ = posterior_strength(scan.linear[rows, best], scan.power[rows, best], mean, variance)
    alone = (posterior[:, 0] @ table[:, :k]).argmax()
    return JunkMixture(
        share=share,
        resampled=share[None],
        structure_share=inside[0],
        evidence=evidence,
        single=table[:, alone],
        posterior=posterior,
        best=best,
        alternatives=evidence[:, 0] - table[rows, best],
        amplitude=amplitude,
        mean=mean,
        variance=variance,
    )
