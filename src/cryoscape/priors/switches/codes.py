"""Which component of a mixture is which configuration of switches."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from cryoscape.priors.expectation_maximisation import MixtureEstimate

Order = NDArray[np.int64]
Score = Callable[[MixtureEstimate], float]
"""How well a mixture in the order of the configurations suits the switches, nats."""

_RESTARTS = 24
_FEW = 64
_MANY = 256
_NEIGHBOURS = 6
_GAIN = 1e-5


def order_by_bisection(mixture: MixtureEstimate, score: Score) -> Order:
    """Give every component a configuration, by halving the set of their means again and again.

    The set is cut at the middle of its leading principal axis: the first spin says on which side a component
    is, the second on which side of the cut through that half, and so on. The heavier side is + at first. Then
    sides are turned over, one cut at a time, while the score grows; up to 64 components the best of several
    such searches is taken, the others from sides turned at random. Last, components may exchange their codes
    with near neighbours to the same end (up to 256): the cuts move a little, and a small state keeps its
    population where fields and couplings in pairs cannot tell every weight.

    Parameters
    ----------
    mixture : MixtureEstimate
        Of 2^m components.
    score : Score
        Of the family.

    Returns
    -------
    ndarray, shape (2^m,), int
        Component of every configuration, in the order of `switches.start.configurations`.
    """
    groups = [np.arange(len(mixture.weight))]
    while len(groups) < len(mixture.weight):
        groups = [half for group in groups for half in _halves(mixture, group)]
    order = np.concatenate(groups)
    # The first search, unless another gains: all else equal, + stays the heavier side.
    best, value = _turned(order, mixture, score)
    rng = np.random.default_rng(0)
    for _ in range(_RESTARTS if len(order) <= _FEW else 0):
        mixed = order
        for half, start in _cuts(len(order)):
            mixed = _turn(mixed, half, start) if rng.random() < 0.5 else mixed
        other, found = _turned(mixed, mixture, score)
        if found > value + _GAIN:
            best, value = other, found
    return _exchanged(best, mixture, score) if len(order) <= _MANY else best


def _halves(mixture: MixtureEstimate, group: Order) -> list[Order]:
    centred = mixture.mean[group] - mixture.mean[group].mean(0)
    axis = np.linalg.svd(centred, full_matrices=False)[2][0]
    ranked = group[np.argsort(centred @ axis, kind="stable")]
    sides = [ranked[: len(group) // 2], ranked[len(group) // 2 :]]
    return sorted(sides, key=lambda side: float(mixture.weight[side].sum()))


def _cuts(components: int) -> list[tuple[int, int]]:
    """Length of the sides of every cut and where the first of them starts, the finest cuts first."""
    halves = [2**i for i in range(components.bit_length() - 1)]
    return [(half, start) for half in halves for start in range(0, components, 2 * half)]


def _turn(order: Order, half: int, start: int) -> Order:
    """Change the two sides of a cut for each other."""
    middle, stop = start + half, start + 2 * half
    return np.concatenate([order[:start], order[middle:stop], order[start:middle], order[stop:]])


def _turned(order: Order, mixture: MixtureEstimate, score: Score) -> tuple[Order, float]:
    """Turn over the sides of single cuts while the score grows; return it with the order."""
    best, more = score(mixture.ordered(order)), True
    while more:
        more = False
        for half, start in _cuts(len(order)):
            trial = _turn(order, half, start)
            value = score(mixture.ordered(trial))
            if value > best + _GAIN:
                best, order, more = value, trial, True
    return order, best


def _exchanged(order: Order, mixture: MixtureEstimate, score: Score) -> Order:
    """Let near neighbours change their codes while the score grows."""
    between = mixture.mean[:, None, :] - mixture.mean
    nearest = np.square(between).sum(-1).argsort(1, kind="stable")[:, 1 : _NEIGHBOURS + 1]
    couples = sorted({(min(i, j), max(i, j)) for i, row in enumerate(nearest.tolist()) for j in row})
    best, more = score(mixture.ordered(order)), True
    while more:
        more = False
        for i, j in couples:
            trial = order.copy()
            trial[order == i], trial[order == j] = j, i
            value = score(mixture.ordered(trial))
            if value > best + _GAIN:
                best, order, more = value, trial, True
    return order
