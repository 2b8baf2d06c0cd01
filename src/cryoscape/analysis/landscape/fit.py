"""Populations of structures that cover a motion: the evidence of all images under a smooth log density.

Neighbouring structures have images that are nearly the same, so their most likely populations are spikes that
mean nothing (the ill-posed problem of deconvolution). Here the log density f has a Gaussian-process prior
over the distances of the structures (logistic Gaussian process: Leonard 1978, Lenk 1988),

    w_k ~ v_k exp(f_k),   f ~ N(0, amplitude^2 m(d / length)),   max_f sum_i log sum_k w_k L_ik + log p(f),

v_k the share of the space that structure k stands for, m the Matern function of order 5/2. Lengths and
amplitudes are weighed by their evidence (Laplace), the smoother a little more. Isolated states ask for a
short length and continuous motion for a long one, so nothing has to be chosen.

Images are compared with K structures only. Many more fill what lies between them, and share out the
population of each as the interpolated log density says.

Intervals are of randomised fits: images are drawn again with replacement *and* the mean of the prior is drawn
from the prior. Without the second the bands would hold the noise but not what smoothing hides; with both, the
fits are draws from the posterior where everything is Gaussian (randomised maximum likelihood: Oliver, He and
Reynolds 1996).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from cryoscape.analysis.populations.ensemble_weights import RESAMPLES, draw_counts, responsibilities
from cryoscape.progress import ProgressReporter, reporter_or_silent

Array = NDArray[np.float64]

LENGTHS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
"""Correlation lengths of the log density that are weighed, in units of the spacing of the structures."""

AMPLITUDES = (1.0, 2.0, 4.0, 8.0)
"""Standard deviations of the log density that are weighed, kT."""

PREFERENCE = 2.0
"""Power of the length in its prior: where the images cannot tell, the smoother density is taken."""

# Width, in units of the spacing, of what takes part in the population of a structure.
_REACH = 0.5
_JITTER = 1e-6
_ROUNDS = 100
# Expected gain of a Newton step, nats of all images, below which a fit has ended.
_GAIN = 1e-3
_NEGLIGIBLE = 1e-3


@dataclass(frozen=True, eq=False)
class SmoothPopulations:
    """Populations of K structures, and of M that fill the space between them.

    Attributes
    ----------
    weight : ndarray, shape (K,)
        The most probable ones, averaged over lengths and amplitudes by their evidence; they sum to 1.
    fine : ndarray, shape (M,)
        The same shared out among all structures.
    shared : ndarray, shape (K, M)
        Which part of each of the K populations each of the M structures gets; rows sum to 1.
    resampled : ndarray, shape (R, M)
        `fine` of the randomised fits.
    evidence : float
        Mean log evidence of an image, nats, up to the constant of the table.
    spacing : float
        Mean distance of nearest neighbours, in the unit of the distances.
    length : float
        Correlation length of the log density, the geometric mean over what was weighed, in that unit.
    amplitude : float
        Its standard deviation, likewise, kT.
    """

    weight: Array
    fine: Array
    shared: Array
    resampled: Array
    evidence: float
    spacing: float
    length: float
    amplitude: float

    def responsibilities(self, table: Array) -> Array:
        """Probability of every structure given each image, (N, K) -> (N, K)."""
        return responsibilities(table, self.weight)


def fit_populations(
    table: Array,
    distance: Array,
    *,
    groups: NDArray | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
    progress: ProgressReporter | None = None,
) -> SmoothPopulations:
    """Fit populations and their randomised fits.

    Parameters
    ----------
    table : ndarray, shape (N, K)
        log p(x_i | structure k), nats, up to a constant for each image.
    distance : ndarray, shape (M, M)
        Euclidean, between M structures that are spread evenly, the first K of which are those of the table.
    groups : ndarray, shape (N,), optional
        Micrograph of each image; images are drawn one by one without it.
    resamples : int
        R.
    seed : int
    progress : ProgressReporter, optional

    Returns
    -------
    SmoothPopulations
    """
    top = table.max(axis=1)
    likelihood = np.exp(table - top[:, None])
    rng = np.random.default_rng(seed)
    space = _Space(distance, table.shape[1])
    report = reporter_or_silent(progress)
    fits = []
    with report.task("smoothness", len(LENGTHS) * len(AMPLITUDES), "fits") as task:
        for prior in _priors(space):
            fits.append(_Fit(likelihood, space, prior))
            task.advance()
    smoothness = np.log([fit.prior.length for fit in fits])
    log_share = np.array([fit.log_evidence for fit in fits]) + PREFERENCE * smoothness
    share = np.exp(log_share - log_share.max())
    share = np.where(share < _NEGLIGIBLE * share.max(), 0.0, share)
    share /= share.sum()
    weight = share @ np.array([fit.weight for fit in fits])
    parts = np.zeros((len(weight), len(distance)))
    for one, fit in zip(share, fits):
        parts += one * fit.weight[:, None] * fit.shared
    drawn = []
    with report.task("bootstrap", resamples, "fits") as task:
        for _ in range(resamples):
            fit = fits[rng.choice(len(fits), p=share)]
            drawn.append(fit.randomised(likelihood, draw_counts(groups, len(table), rng), rng))
            task.advance()
    scales = np.log([(fit.prior.length, fit.prior.amplitude) for fit in fits])
    length, amplitude = np.exp(share @ scales)
    evidence = float((np.log(likelihood @ weight) + top).mean())
    resampled = np.array(drawn).reshape(resamples, len(distance))
    return SmoothPopulations(
        weight,
        parts.sum(axis=0),
        parts / np.maximum(weight, 1e-300)[:, None],
        resampled,
        evidence,
        space.spacing,
        float(length),
        float(amplitude),
    )


def neighbour_spacing(distance: Array) -> float:
    """Mean distance to the nearest neighbour; 1 for one structure."""
    if len(distance) < 2:
        return 1.0
    return float((distance + np.diag(np.full(len(distance), np.inf))).min(axis=1).mean())


def log_volumes(distance: Array) -> Array:
    """Log of the share of the space that each structure stands for, up to a constant, shape (K,).

    One over the density of the structures themselves, estimated with a Gaussian as wide as their spacing.
    """
    scaled = distance / neighbour_spacing(distance)
    return -np.log(np.exp(-0.5 * np.square(scaled)).sum(axis=1))


class _Space:
    """M structures, the first K of which are compared with the images."""

    def __init__(self, distance: Array, count: int) -> None:
        self.distance = distance[:count, :count]
        self.between = distance[:, :count]
        self.spacing = neighbour_spacing(self.distance)
        self.volume = log_volumes(self.distance)
        # Who takes part in a population: the nearer a structure, the more, and each is shared out in full.
        log_near = -0.5 * np.square(self.between / (_REACH * self.spacing))
        log_near = log_near - np.logaddexp.reduce(log_near, axis=1, keepdims=True)
        self._log_near = (log_near + log_volumes(distance)[:, None]).T

    def share_out(self, f: Array) -> Array:
        """Part of each of the K populations that each of the M structures gets under a log density f (M,)."""
        logits = self._log_near + f
        return np.exp(logits - np.logaddexp.reduce(logits, axis=1, keepdims=True))


@dataclass(frozen=True, eq=False)
class _Prior:
    """A Gaussian process over the K structures, and its interpolation to all M."""

    length: float
    amplitude: float
    covariance: Array
    precision: Array
    root: Array
    interpolation: Array


def _priors(space: _Space) -> Iterator[_Prior]:
    jitter = _JITTER * np.eye(len(space.distance))
    for factor in LENGTHS:
        length = factor * space.spacing
        correlation = _matern(space.distance / length) + jitter
        inverse = np.asarray(np.linalg.inv(correlation), dtype=np.float64)
        root = np.asarray(np.linalg.cholesky(correlation), dtype=np.float64)
        interpolation = _matern(space.between / length) @ inverse
        for size in AMPLITUDES:
            covariance, precision = size**2 * correlation, inverse / size**2
            yield _Prior(length, size, covariance, precision, size * root, interpolation)


def _matern(scaled: Array) -> Array:
    """Matern correlation of order 5/2 at distances in units of the length."""
    a = np.sqrt(5.0) * scaled
    return (1 + a + np.square(a) / 3) * np.exp(-a)


class _Fit:
    """The most probable log density under one prior, and fits that start from it."""

    def __init__(self, likelihood: Array, space: _Space, prior: _Prior) -> None:
        self.prior, self._space, self._volume = prior, space, space.volume
        counts, zero = np.ones(len(likelihood)), np.zeros(len(space.volume))
        self._f, self._curvature = self._climb(likelihood, counts, zero, zero, None)
        self.weight, self.shared = self._populations(self._f)
        gain = self._objective(likelihood, counts, self._f, zero)[0]
        spread = np.eye(len(zero)) + prior.covariance @ self._curvature
        # Laplace: the integral over f of the likelihood times the prior, over that of the prior.
        self.log_evidence = gain - 0.5 * float(np.linalg.slogdet(spread)[1])

    def randomised(self, likelihood: Array, counts: Array, rng: np.random.Generator) -> Array:
        """Populations (M,) fitted to images that count so often, about a mean drawn from the prior."""
        mean = self.prior.root @ rng.standard_normal(len(self._f))
        used = counts > 0
        f, _ = self._climb(likelihood[used], counts[used], mean, self._f, self._curvature)
        weight, shared = self._populations(f)
        return weight @ shared

    def _populations(self, f: Array) -> tuple[Array, Array]:
        return softmax(f + self._volume), self._space.share_out(self.prior.interpolation @ f)

    def _objective(self, likelihood: Array, counts: Array, f: Array, mean: Array) -> tuple[float, Array]:
        mixed = likelihood @ softmax(f + self._volume)
        with np.errstate(divide="ignore"):
            value = counts @ np.log(mixed)
        return float(value - 0.5 * (f - mean) @ self.prior.precision @ (f - mean)), mixed

    def _climb(
        self, likelihood: Array, counts: Array, mean: Array, start: Array, curvature: Array | None
    ) -> tuple[Array, Array]:
        """Newton's method with the curvature of the scores; it is renewed where steps stop paying."""
        f, precision = start, self.prior.precision
        value, mixed = self._objective(likelihood, counts, f, mean)
        expected = np.inf
        for _ in range(_ROUNDS):
            w = softmax(f + self._volume)
            pull = w * ((counts / mixed) @ likelihood)
            gradient = pull - counts.sum() * w - precision @ (f - mean)
            if curvature is None:
                curvature, fresh = _curvature(likelihood, counts, mixed, w, pull), True
            else:
                fresh = False
            step = np.linalg.solve(curvature + precision, gradient)
            before, expected = expected, float(gradient @ step)
            if expected < _GAIN:
                break
            if not fresh and expected > 0.3 * before:
                curvature = None
                continue
            size = 1.0
            while True:
                found, mixed_there = self._objective(likelihood, counts, f + size * step, mean)
                if found >= value + 1e-4 * size * expected or size < 1e-6:
                    break
                size /= 2
            if size < 1.0:
                curvature = None
            f, value, mixed = f + size * step, found, mixed_there
        if curvature is None:
            w = softmax(f + self._volume)
            curvature = _curvature(likelihood, counts, mixed, w, w * ((counts / mixed) @ likelihood))
        return f, curvature


def _curvature(likelihood: Array, counts: Array, mixed: Array, w: Array, pull: Array) -> Array:
    """Sum over images of the outer products of their scores r_i - w, shape (K, K)."""
    scaled = likelihood * (np.sqrt(counts) / mixed)[:, None]
    second = np.outer(w, w) * (scaled.T @ scaled)
    cross = np.outer(pull, w)
    return second - cross - cross.T + counts.sum() * np.outer(w, w)
