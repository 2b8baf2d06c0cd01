"""How well samples of a prior stand for data, each number beside the one that other data would get.

Every distance between two samples is above zero even where the laws are the same. What it is then, its floor,
comes from halves of the data themselves, at the same sizes.

Sources: total variation on the first principal component, Kreis et al. 2022 (MLSB); sliced Wasserstein,
Bonneel et al., J. Math. Imaging Vision 51, 22 (2015); classifier two-sample test, Lopez-Paz and Oquab 2017
(arXiv 1610.06545).
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

BINS = (20, 50, 100)
"""Bins of the histograms along the first principal component."""

DIRECTIONS = 500
HOLE_QUANTILE = 0.001
"""Share of the data that is said to lie in a hole."""

_TAIL = 0.0005  # of the data beyond the outermost bins on either side
_NEIGHBOURS = 5
_CLASSIFIED = 5000
_QUERIED = 20_000
_HALVINGS, _SLICED_HALVINGS = 20, 10
_THREE_SD = 0.99865  # share of a normal law below its mean and three standard deviations
_LEAST_SPREAD = 1e-3  # of the largest, where directions without variance are whitened


@dataclass(frozen=True)
class SampleScores:
    """Distances between samples and data that they were not made from.

    Attributes
    ----------
    tvd : mapping of int to float
        Total variation distance of histograms along the first principal component, by number of bins.
    sliced : float
        Sliced 2-Wasserstein distance, in standard deviations of the data.
    auroc, accuracy : float
        Of a classifier that tells samples from data; 0.5 where it cannot.
    holes : float
        Share of the samples that lie where the density is below its 0.1 % quantile over the data.
    """

    tvd: Mapping[int, float]
    sliced: float
    auroc: float
    accuracy: float
    holes: float

    def values(self) -> dict[str, float]:
        """All numbers by name: `tvd_20`, ..., `sliced`, `auroc`, `accuracy`, `holes`."""
        named = {f"tvd_{bins}": value for bins, value in self.tvd.items()}
        return named | {name: getattr(self, name) for name in ("sliced", "auroc", "accuracy", "holes")}


def principal_axes(points: NDArray[np.float64], count: int = 2) -> NDArray[np.float64]:
    """Directions of the largest variance, shape (count, d) or (d, d) where that is less.

    Of length 1, with a positive largest entry.
    """
    centred = points - points.mean(axis=0)
    axes = np.linalg.eigh(centred.T @ centred)[1][:, ::-1].T[:count]
    largest = np.take_along_axis(axes, np.abs(axes).argmax(axis=1)[:, None], axis=1)
    return axes * np.sign(largest)


def bin_edges(values: NDArray[np.float64], bins: int) -> NDArray[np.float64]:
    """Edges (bins + 1,) of equal bins from the 0.05th to the 99.95th percentile of the data."""
    low, high = np.quantile(values, [_TAIL, 1 - _TAIL])
    return np.linspace(low, high if high > low else low + 1.0, bins + 1)


def total_variation(a: NDArray[np.float64], b: NDArray[np.float64], edges: NDArray[np.float64]) -> float:
    """Total variation distance of two histograms, 1/2 sum |p - q|, from 0 to 1.

    Parameters
    ----------
    a, b : ndarray, shape (n,) and (m,)
    edges : ndarray, shape (bins + 1,)
        Two more bins reach from the outermost ones to infinity.
    """
    counts = [np.bincount(np.searchsorted(edges, x, side="right"), minlength=len(edges) + 1) for x in (a, b)]
    return 0.5 * float(np.abs(counts[0] / len(a) - counts[1] / len(b)).sum())


def whitening(points: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean (d,) and matrix (d, d) that give points mean 0 and covariance 1: (z - mean) @ matrix."""
    mean = points.mean(axis=0)
    values, vectors = np.linalg.eigh(np.atleast_2d(np.cov(points.T)))
    floor = max(values.max(), 1e-300) * _LEAST_SPREAD**2
    return mean, vectors / np.sqrt(np.maximum(values, floor))


def sliced_wasserstein(
    a: NDArray[np.float64], b: NDArray[np.float64], directions: int = DIRECTIONS, seed: int = 0
) -> float:
    """Sliced 2-Wasserstein distance: root mean over directions of W_2^2 of the projections.

    Parameters
    ----------
    a, b : ndarray, shape (n, d) and (m, d)
        Where the numbers differ, the larger sample is compared at the quantiles of the smaller one.
    directions : int
        Random ones.
    seed : int
        Of the directions.
    """
    first = np.arange(len(a) + len(b)) < len(a)
    return float(_sliced_distances(np.concatenate([a, b]), first[None], ~first[None], directions, seed)[0])


def _sliced_distances(
    points: NDArray[np.float64],
    first: NDArray[np.bool_],
    second: NDArray[np.bool_],
    directions: int,
    seed: int,
) -> NDArray[np.float64]:
    """Distances (R,) of R pairs of subsets, masks (R, N), of the points (N, d), which are sorted but once."""
    theta = np.random.default_rng(seed).normal(size=(points.shape[1], directions))
    theta /= np.linalg.norm(theta, axis=0)
    n = min(first[0].sum(), second[0].sum())
    total = np.zeros(len(first))
    for part in np.array_split(theta, max(1, directions // 50), axis=1):
        values = (points @ part).T
        order = values.argsort(axis=1)
        values = np.take_along_axis(values, order, axis=1)
        for k, masks in enumerate(zip(first, second)):
            x, y = (_quantiles(values[mask[order]].reshape(len(values), -1), int(n)) for mask in masks)
            total[k] += ((x - y) ** 2).mean(axis=1).sum()
    return np.sqrt(total / directions)


def _quantiles(ordered: NDArray[np.float64], n: int) -> NDArray[np.float64]:
    """Values (k, n) of sorted rows (k, m) at the middles of n equal parts."""
    m = ordered.shape[1]
    if m == n:
        return ordered
    place = np.clip((np.arange(n) + 0.5) / n * m - 0.5, 0, m - 1)
    low = np.minimum(place.astype(int), m - 2)
    share = place - low
    return (1 - share) * ordered[:, low] + share * ordered[:, low + 1]


def classifier_test(
    samples: NDArray[np.float64], data: NDArray[np.float64], seed: int = 0
) -> tuple[float, float]:
    """Classifier two-sample test: a small network in five-fold cross-validation.

    Parameters
    ----------
    samples, data : ndarray, shape (n, d)
        The same number of either.
    seed : int
        Of folds and networks.

    Returns
    -------
    auroc, accuracy : float
        Of the held-out folds. For equal laws 0.5, with a standard deviation of `null_sd`.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedKFold
    from sklearn.neural_network import MLPClassifier

    x = np.concatenate([samples, data])
    spread = data.std(axis=0)
    x = (x - data.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    y = np.repeat([1, 0], [len(samples), len(data)])
    guess = np.empty(len(y))
    for train, test in StratifiedKFold(5, shuffle=True, random_state=seed).split(x, y):
        network = MLPClassifier((64, 64), early_stopping=True, max_iter=100, random_state=seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            network.fit(x[train], y[train])
        guess[test] = network.predict_proba(x[test])[:, 1]
    return float(roc_auc_score(y, guess)), float(((guess > 0.5) == y).mean())


def null_sd(n: int) -> tuple[float, float]:
    """Standard deviation of AUROC and accuracy for n samples and n data of one law.

    Mann and Whitney 1947: (2 n + 1) / (12 n^2); and that of 2 n fair coins.
    """
    return math.sqrt((2 * n + 1) / 12) / n, 0.5 / math.sqrt(2 * n)


class Judge:
    """Compares samples with held-out data, with everything that depends on the data alone made once.

    Parameters
    ----------
    train : ndarray, shape (n, d)
        Gives the principal component, and the neighbours behind the density. In random order, as all points
        here: of large sets the first are taken.
    held_out : ndarray, shape (m, d)
        What samples are compared with.
    n : int, optional
        How many samples will be compared; by default as many as there are held-out points.
    seed : int

    Attributes
    ----------
    axes : ndarray, shape (2, d)
        First two principal components of the training part; one where d = 1.
    edges : dict of int to ndarray
        Of the histograms, by number of bins.
    """

    def __init__(
        self, train: NDArray[np.float64], held_out: NDArray[np.float64], n: int | None = None, seed: int = 0
    ) -> None:
        self.train, self.held_out, self.seed = train, held_out, seed
        self.n = len(held_out) if n is None else n
        self.axes = principal_axes(train)
        pooled = np.concatenate([train, held_out])
        self.edges = {bins: bin_edges(pooled @ self.axes[0], bins) for bins in BINS}
        self._mean, self._matrix = whitening(pooled)
        self._pooled = pooled

    def against(self, held_out: NDArray[np.float64]) -> Judge:
        """Compare with other held-out points, in the bins and units, and beside the floor, of this judge."""
        assert self.floor  # made from the first held-out points, before they go
        other = copy.copy(self)
        other.held_out = held_out
        other.__dict__.pop("_hole", None)
        return other

    @property
    def classified(self) -> int:
        """Samples, and as many data, that the classifier sees."""
        return min(_CLASSIFIED, self.n, len(self.held_out), len(self.train))

    def score(self, samples: NDArray[np.float64]) -> SampleScores:
        """Compare samples (n, d) with the held-out data."""
        tvd = self._variations(samples @ self.axes[0], self.held_out @ self.axes[0])
        sliced = self._sliced(samples, self.held_out)
        auroc, accuracy = classifier_test(
            samples[: self.classified], self.held_out[: self.classified], self.seed
        )
        far = self._distance(samples[:_QUERIED]) > self._hole
        return SampleScores(tvd, sliced, auroc, accuracy, float(far.mean()))

    @cached_property
    def floor(self) -> tuple[SampleScores, SampleScores]:
        """What data get in the place of samples, and the standard deviation of that from split to split.

        Total variation and Wasserstein distance: mean over random halvings of the data. Classifier: the
        training part against the held-out one, with the deviation known from theory. Holes: theory.
        """
        rng = np.random.default_rng(self.seed)
        n, m = min(self.n, len(self.train)), len(self.held_out)
        projected = self._pooled @ self.axes[0]
        tvd = []
        for _ in range(_HALVINGS):
            order = rng.permutation(len(projected))
            tvd.append(self._variations(projected[order[:n]], projected[order[n : n + m]]))
        sliced = self._sliced_floor(min(n, _QUERIED), min(m, _QUERIED), rng)
        size = self.classified
        auroc, accuracy = classifier_test(self.train[:size], self.held_out[:size], self.seed)
        holes = self._chance_holes
        columns = {bins: np.array([each[bins] for each in tvd]) for bins in BINS}
        mean = SampleScores(
            {bins: float(x.mean()) for bins, x in columns.items()},
            float(sliced.mean()),
            auroc,
            accuracy,
            float(holes.mean() / holes.args[0]),
        )
        spread = SampleScores(
            {bins: float(x.std(ddof=1)) for bins, x in columns.items()},
            float(sliced.std(ddof=1)),
            *null_sd(size),
            float(holes.std() / holes.args[0]),
        )
        return mean, spread

    def at_floor(self, scores: SampleScores) -> dict[str, bool]:
        """Whether each number is one that data get: within three standard deviations of the floor.

        The classifier is compared with 0.5; holes, which are few, with the same quantile of their own law.
        """
        mean, spread = (part.values() for part in self.floor)
        most = {name: mean[name] + 3 * spread[name] for name in mean}
        most |= {"auroc": 0.5 + 3 * spread["auroc"], "accuracy": 0.5 + 3 * spread["accuracy"]}
        most["holes"] = float(self._chance_holes.ppf(_THREE_SD) / self._chance_holes.args[0])
        return {name: value <= most[name] for name, value in scores.values().items()}

    def _variations(self, a: NDArray[np.float64], b: NDArray[np.float64]) -> dict[int, float]:
        return {bins: total_variation(a, b, edges) for bins, edges in self.edges.items()}

    def _sliced(self, a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
        x, y = ((points[:_QUERIED] - self._mean) @ self._matrix for points in (a, b))
        return sliced_wasserstein(x, y, seed=self.seed)

    def _sliced_floor(self, n: int, m: int, rng: np.random.Generator) -> NDArray[np.float64]:
        """Distances of disjoint random subsets of n and m of the data, one for every halving."""
        chosen = rng.permutation(len(self._pooled))[: n + m]
        points = (self._pooled[chosen] - self._mean) @ self._matrix
        first = np.zeros((_SLICED_HALVINGS, n + m), dtype=bool)
        for mask in first:
            mask[rng.permutation(n + m)[:n]] = True
        return _sliced_distances(points, first, ~first, DIRECTIONS, self.seed)

    @cached_property
    def _neighbours(self) -> Any:
        from sklearn.neighbors import NearestNeighbors

        return NearestNeighbors(n_neighbors=min(_NEIGHBOURS, len(self.train))).fit(self.train[:_QUERIED])

    def _distance(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Distance (n,) to the fifth nearest point of the training part: the less, the denser."""
        return self._neighbours.kneighbors(points)[0][:, -1]

    @property
    def _rank(self) -> int:
        """How many of the held-out points are said to lie in a hole."""
        return max(1, round(HOLE_QUANTILE * min(len(self.held_out), _QUERIED)))

    @cached_property
    def _hole(self) -> float:
        """Distance of the densest of those."""
        return float(np.sort(self._distance(self.held_out[:_QUERIED]))[-self._rank])

    @property
    def _chance_holes(self) -> Any:
        """Law of the number of samples that lie farther than that, where they are of the law of the data.

        The share of the law beyond the r-th farthest of m points is Beta(r, m - r + 1).
        """
        from scipy.stats import betabinom

        r, m = self._rank, min(len(self.held_out), _QUERIED)
        return betabinom(min(self.n, _QUERIED), r, m - r + 1)
