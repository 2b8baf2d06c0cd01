"""How far two descriptions of the same particles agree on who is near to whom.

Both metrics of CryoBench look at ranks of distances only: no scale, no rotation and no monotonic change of
distances matters, so codes compare with collective variables, poses or optics as they are.

Particles of one true state have distance 0 from one another. Such ties count with their mean over all ways
of breaking them, so a metric has a value that does not hang on the order of the particles, and a best value
that falls short of the ideal one.

Sources: neighbourhood similarity, Jeon et al., CryoBench, NeurIPS 2024 (arXiv 2408.05526); information
imbalance, Glielmo et al., PNAS Nexus 1, pgac039 (2022).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

_SAME = 1e-9  # of the largest distance: two distances that differ by less are one


@dataclass(frozen=True, eq=False)
class NeighbourRanks:
    """Place of every other particle in the order of distance, 1 for the nearest.

    Attributes
    ----------
    low, high : ndarray, shape (n, n), int32
        First and last place that particle j (column) can take for particle i (row); they differ for ties.
        0 on the diagonal.
    """

    low: NDArray[np.int32]
    high: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.low)

    @property
    def middle(self) -> NDArray[np.float64]:
        """Mean place over all ways of breaking ties, shape (n, n)."""
        return (self.low + self.high) / 2

    def membership(self, k: int) -> NDArray[np.float64]:
        """Probability that j is among the k nearest of i, shape (n, n); every row adds up to k.

        Parameters
        ----------
        k : int
            From 1 to n - 1.

        Raises
        ------
        ValueError
            If there are not so many others.
        """
        if not 1 <= k < len(self):
            raise ValueError(f"{len(self)} particles have no {k} neighbours")
        places = np.clip(k - self.low + 1, 0, None) / (self.high - self.low + 1)
        np.fill_diagonal(places, 0.0)
        return np.minimum(places, 1.0)


def neighbour_ranks(points: ArrayLike) -> NeighbourRanks:
    """Ranks of the Euclidean distances between points.

    Parameters
    ----------
    points : array_like, shape (n, d)
        n of 3 to some thousands: memory grows as n^2.

    Returns
    -------
    NeighbourRanks

    Raises
    ------
    ValueError
        If there are fewer than three points or they are not finite.
    """
    from scipy.spatial.distance import cdist

    points = np.asarray(points, dtype=np.float64)
    points = points[:, None] if points.ndim == 1 else points
    n = len(points)
    if n < 3 or not np.isfinite(points).all():
        raise ValueError("neighbours need three or more finite points")
    distance = cdist(points, points)
    # Distances that are equal on paper differ in their last digits.
    distance = np.round(distance / max(distance.max(), 1e-300) / _SAME)
    np.fill_diagonal(distance, -1.0)
    order = distance.argsort(axis=1, kind="stable")
    ordered = np.take_along_axis(distance, order, axis=1)
    step = np.ones((n, n + 1), dtype=bool)
    step[:, 1:-1] = ordered[:, 1:] > ordered[:, :-1]
    place = np.arange(n, dtype=np.int32)
    first = np.maximum.accumulate(np.where(step[:, :-1], place, 0), axis=1)
    last = np.minimum.accumulate(np.where(step[:, :0:-1], place[::-1], n), axis=1)[:, ::-1]
    low, high = np.empty((n, n), dtype=np.int32), np.empty((n, n), dtype=np.int32)
    np.put_along_axis(low, order, first, axis=1)
    np.put_along_axis(high, order, last, axis=1)
    return NeighbourRanks(low, high)


@dataclass(frozen=True)
class Neighbourhood:
    """Nearest neighbours that truth and codes share.

    Parameters
    ----------
    k : int
        Neighbours looked at.
    shared : float
        Mean number of shared ones with the particle itself counted in, as CryoBench reports it.
    fraction : float
        Share of the k, the particle itself left out.
    floor : float
        The same for codes that know nothing: k / (n - 1).
    best : float
        The same for codes that know everything: below 1 where the truth has ties.
    """

    k: int
    shared: float
    fraction: float
    floor: float
    best: float


def neighbourhood_similarity(truth: NeighbourRanks, codes: NeighbourRanks, k: int) -> Neighbourhood:
    """Mean number of k nearest neighbours that two descriptions share.

    Parameters
    ----------
    truth, codes : NeighbourRanks
        Of the same n particles.
    k : int
        From 1 to n - 1.

    Returns
    -------
    Neighbourhood
    """
    n = len(truth)
    near = truth.membership(k)
    found = float(np.vdot(near, codes.membership(k))) / n
    best = float(np.vdot(near, near)) / n
    return Neighbourhood(k, found + 1, found / k, k / (n - 1), best / k)


@dataclass(frozen=True)
class Imbalance:
    """Information imbalance between the codes and another description, both ways.

    0: the first description tells who is near in the second one; 1: it tells nothing.

    Parameters
    ----------
    name : str
        The other description.
    from_codes, to_codes : float
        Delta(codes -> other) and Delta(other -> codes).
    floor, floor_sd : float
        Mean and standard deviation over shuffled particles of Delta(codes -> other).
    best : float
        What complete knowledge would give, either way: above 0 where the particles are few or have ties.
    """

    name: str
    from_codes: float
    to_codes: float
    floor: float
    floor_sd: float
    best: float


def information_imbalance(first: NeighbourRanks, second: NeighbourRanks, k: int = 1) -> float:
    """Delta(first -> second) = 2 / (n k) times the mean summed rank, in the second, of the first's k nearest.

    Parameters
    ----------
    first, second : NeighbourRanks
        Of the same n particles.
    k : int
        1 in the definition of Glielmo et al.

    Returns
    -------
    float
        2 / n to about 2; 1 for unrelated descriptions.
    """
    row, column, weight = _nearest(first, k)
    return _imbalance(row, column, weight, second.middle)


def compare_descriptions(
    name: str, codes: NeighbourRanks, other: NeighbourRanks, shuffles: int = 10, seed: int = 0
) -> Imbalance:
    """Information imbalance both ways, with its floor from shuffled particles.

    Parameters
    ----------
    name : str
        Of the other description.
    codes, other : NeighbourRanks
        Of the same n particles.
    shuffles : int
        Two or more.
    seed : int
        Of the shuffles.

    Returns
    -------
    Imbalance
    """
    generator = np.random.default_rng(seed)
    n, middle = len(codes), other.middle
    row, column, weight = _nearest(codes, 1)
    chance = []
    for _ in range(shuffles):
        move = generator.permutation(n)
        chance.append(_imbalance(move[row], move[column], weight, middle))
    off = np.diag(np.full(n, np.inf))
    lowest = np.maximum((middle + off).min(axis=1), (codes.middle + off).min(axis=1))
    return Imbalance(
        name,
        from_codes=_imbalance(row, column, weight, middle),
        to_codes=information_imbalance(other, codes),
        floor=float(np.mean(chance)),
        floor_sd=float(np.std(chance, ddof=1)),
        best=float(2 / n * lowest.mean()),
    )


def _nearest(ranks: NeighbourRanks, k: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[Any]]:
    """Pairs (i, j) with j among the k nearest of i, and the probability of that."""
    near = ranks.membership(k)
    row, column = np.nonzero(near)
    return row, column, near[row, column] / k


def _imbalance(
    row: NDArray[np.int64], column: NDArray[np.int64], weight: NDArray[Any], middle: NDArray[np.float64]
) -> float:
    return float(2 / len(middle) ** 2 * (weight @ middle[row, column]))
