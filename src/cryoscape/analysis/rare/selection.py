"""Which of many structures the images ask for: a mixture that grows while unseen images gain.

A structure is added where the log evidence of one half of the images rises most by it, and stays only if that
of the other half rises by more than two standard errors. The largest gain of adding one structure,

    max_w sum_i log(1 - w + w e_i),   e_i = p(x_i | structure) / p(x_i | mixture),

is concave in w, and 0 for all structures exactly where the mixture is the most likely of all (Lindsay 1983).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cryoscape.analysis.populations.ensemble_weights import maximise_evidence
from cryoscape.analysis.rare.power import MARGIN

Array = NDArray[np.float64]

TRIES = 4
"""Structures refused one after the other, after which no more are tried."""

MOST = 24
"""Structures in a mixture."""

_LEAST_GAIN = 2.0  # nats of all fitted images; less is never above two standard errors of a test
_HALVINGS = 40


@dataclass(frozen=True)
class HeldOut:
    """Gain of unseen images.

    Attributes
    ----------
    gain : float
        Nats of all of them.
    error : float
        Its standard error.
    """

    gain: float
    error: float

    @property
    def holds(self) -> bool:
        """Whether it is positive by more than two standard errors."""
        return self.gain > MARGIN * self.error and self.gain > 0


@dataclass(frozen=True, eq=False)
class Refused:
    """A structure that the unseen images did not ask for.

    Attributes
    ----------
    column : int
        Of the table.
    share : float
        Population that the fitted half gave it.
    held_out : HeldOut
    """

    column: int
    share: float
    held_out: HeldOut


@dataclass(frozen=True, eq=False)
class Selection:
    """Structures that the images ask for.

    Attributes
    ----------
    columns : tuple of int
        Of the table, in the order in which they came in.
    weight : ndarray, shape (len(columns),)
        Populations fitted to the first half.
    refused : tuple of Refused
    """

    columns: tuple[int, ...]
    weight: Array
    refused: tuple[Refused, ...]


def select_structures(table: Array, fitted: NDArray[np.bool_]) -> Selection:
    """Grow a mixture from the best single structure.

    Parameters
    ----------
    table : ndarray, shape (N, K)
        log p(x_i | structure k), nats, up to a constant for each image.
    fitted : ndarray of bool, shape (N,)
        Images that populations are fitted to; the others test.

    Returns
    -------
    Selection
    """
    columns = [int(table[fitted].mean(axis=0).argmax())]
    weight = np.ones(1)
    tried: set[int] = set()
    refused: list[Refused] = []
    misses = 0
    while len(columns) < min(MOST, table.shape[1]) and misses < TRIES:
        gains = single_gains(table[fitted] - log_mixture(table[fitted][:, columns], weight)[:, None])
        gains[[*columns, *tried]] = -np.inf
        best = int(gains.argmax())
        if not gains[best] > _LEAST_GAIN:
            break
        trial = [*columns, best]
        share = fit_half(table[:, trial], fitted)
        found = compare(table, ~fitted, (trial, share), (columns, weight))
        if found.holds:
            # What joins may be what replaces one that had to stand in for it.
            kept = [k for k, w in zip(trial, share) if w > 0]
            columns, weight = kept, fit_half(table[:, kept], fitted)
            tried.clear()
            misses = 0
        else:
            tried.add(best)
            refused.append(Refused(best, float(share[-1]), found))
            misses += 1
    return Selection(tuple(columns), weight, tuple(one for one in refused if one.column not in columns))


def single_gains(log_ratio: Array) -> Array:
    """Largest gain of adding each structure alone to a mixture, nats of all images, shape (K,).

    Parameters
    ----------
    log_ratio : ndarray, shape (N, K)
        log p(x_i | structure k) - log p(x_i | mixture).
    """
    low, high = np.zeros(log_ratio.shape[1]), np.ones(log_ratio.shape[1])
    excess = np.expm1(np.minimum(log_ratio, 500.0))
    for _ in range(_HALVINGS):
        middle = 0.5 * (low + high)
        rising = (excess / (1 + middle * excess)).sum(axis=0) > 0
        low, high = np.where(rising, middle, low), np.where(rising, high, middle)
    return np.log1p(0.5 * (low + high) * excess).sum(axis=0)


def log_mixture(table: Array, weight: Array) -> Array:
    """Log of sum_k w_k p(x_i | k) of a table (N, K), shape (N,)."""
    top = table.max(axis=1)
    return np.log(np.maximum(np.exp(table - top[:, None]) @ weight, 1e-300)) + top


def fit_half(table: Array, fitted: NDArray[np.bool_]) -> Array:
    """Populations (K,) of a table (N, K) from some of its images; those of less than a tenth of one are 0."""
    part = table[fitted]
    weight = maximise_evidence(np.exp(part - part.max(axis=1, keepdims=True)), np.ones(len(part)))[0]
    weight = np.where(weight * len(part) < 0.1, 0.0, weight)
    return weight / weight.sum()


def compare(
    table: Array,
    tested: NDArray[np.bool_],
    first: tuple[Sequence[int], Array],
    second: tuple[Sequence[int], Array],
) -> HeldOut:
    """Gain of one mixture (columns, weights) over another on the tested images."""
    part = table[tested]
    gain = log_mixture(part[:, list(first[0])], first[1]) - log_mixture(part[:, list(second[0])], second[1])
    return HeldOut(float(gain.sum()), float(gain.std() * np.sqrt(len(gain))))


def without(table: Array, fitted: NDArray[np.bool_], columns: Sequence[int], left_out: set[int]) -> HeldOut:
    """What the tested images lose without some of the columns, populations fitted again."""
    rest = [k for k in columns if k not in left_out]
    all_of = (columns, fit_half(table[:, list(columns)], fitted))
    return compare(table, ~fitted, all_of, (rest, fit_half(table[:, rest], fitted)))


def link(nats: Array, needed: float) -> NDArray[np.int64]:
    """Numbers (K,), from 0, of groups of structures that are joined by steps of less than `needed` nats."""
    from scipy.sparse.csgraph import connected_components

    return connected_components(nats < needed, directed=False)[1].astype(np.int64)
