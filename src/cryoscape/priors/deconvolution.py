"""Gaussian mixtures of what was measured with a known error: the distribution behind the posteriors.

A particle's posterior q(z|x) = N(m, s^2) was made with the prior p0 = N(0, 1), so what its image alone says
of z is q / p0, a Gaussian of variance V = s^2 / (1 - s^2) about y = m / (1 - s^2). A mixture fitted to the
posterior means would be blurred by the errors and shrunk by the prior; here every particle keeps its error,

    p(x_i) ~ sum_k a_k N(y_i; mu_k, S_k + V_i),

and a, mu, S are found by expectation-maximisation ("extreme deconvolution").

Source: Bovy, Hogg and Roweis, Annals of Applied Statistics 5 (2011), equations 14 to 16.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryoscape.priors.expectation_maximisation import MixtureEstimate, Tie

Floats = NDArray[np.float64]

_UNINFORMED = 0.95
"""Posterior variance, in units of the prior's, above which an image says nothing of a direction."""
_BLOCK = 8192
"""Pairs of a particle and a component that are worked on at once, so that they stay in the cache."""
_SHRINK = 1e-3
_MOST_PAIRS = 640_000
"""Particles times components up to which a prior is fitted to all particles; beyond, to a random part."""
_FEWEST = 5000


@dataclass(frozen=True)
class Measurements:
    """What the images alone say of the latent codes, direction by direction.

    Attributes
    ----------
    value : ndarray, shape (N, d)
        Most likely code.
    variance : ndarray, shape (N, d)
        Its error, independent between directions.
    active : ndarray, shape (D,), bool
        The d directions of the D that were measured at all.
    """

    value: Floats
    variance: Floats
    active: NDArray[np.bool_]


def measurements(z: NDArray, z_sd: NDArray) -> Measurements:
    """Divide the prior N(0, 1) out of Gaussian posteriors.

    Parameters
    ----------
    z, z_sd : ndarray, shape (N, D)
        Posterior means and standard deviations.

    Returns
    -------
    Measurements
        Directions in which the typical posterior is as wide as the prior are left out; where none is left,
        the one with the widest spread of means is kept.
    """
    z, variance = np.asarray(z, dtype=np.float64), np.square(np.asarray(z_sd, dtype=np.float64))
    active = np.median(variance, axis=0) < _UNINFORMED
    if not active.any():
        active[z.var(axis=0).argmax()] = True
    kept = np.minimum(variance[:, active], _UNINFORMED)
    return Measurements(z[:, active] / (1 - kept), kept / (1 - kept), active)


@dataclass(frozen=True)
class DeconvolvedMixture(MixtureEstimate):
    """A Gaussian mixture of the error-free codes.

    Attributes
    ----------
    weight : ndarray, shape (K,)
        Share of each component: an estimate of the population, not a count of blurred points.
    mean : ndarray, shape (K, d)
    covariance : ndarray, shape (K, d, d)
    log_likelihood : float
        Of the measurements it was fitted to, nats.
    n : int
        How many those were.
    """

    log_likelihood: float
    n: int

    @property
    def bic(self) -> float:
        """Bayesian information criterion; the smaller, the better."""
        k, d = self.mean.shape
        free = k * (1 + d + d * (d + 1) // 2) - 1
        return -2 * self.log_likelihood + free * float(np.log(self.n))

    def log_joint(self, value: Floats, variance: Floats) -> Floats:
        """Log of a_k N(y_i; mu_k, S_k + V_i), shape (N, K)."""
        rows = _row_blocks(len(value), len(self.weight))
        return np.concatenate([_Conditional.of(self, value[r], variance[r]).joint.T for r in rows])

    def responsibilities(self, value: Floats, variance: Floats) -> Floats:
        """Probability of each component for each measurement, shape (N, K)."""
        joint = self.log_joint(value, variance)
        return np.exp(joint - np.logaddexp.reduce(joint, axis=1)[:, None])


def fit_deconvolved(
    value: Floats,
    variance: Floats,
    start: NDArray,
    *,
    iterations: int = 200,
    tolerance: float = 1e-5,
    tie: Tie | None = None,
) -> DeconvolvedMixture:
    """Fit a mixture by extreme deconvolution.

    Parameters
    ----------
    value, variance : ndarray, shape (N, d)
        Measurements and their errors.
    start : ndarray, shape (N,), int, or (N, K)
        Group of every particle to begin with, or its probabilities.
    iterations : int
        At most so many.
    tolerance : float
        Stop when the log-likelihood per particle grows by less.
    tie : Tie, optional
        Constraints on the mixture, kept after every round.

    Returns
    -------
    DeconvolvedMixture
        Components in the order of `start`. A component that loses all its particles keeps a share near 0.
    """
    r = np.eye(int(start.max()) + 1)[start] if start.ndim == 1 else np.asarray(start, dtype=np.float64)
    n = len(value)
    # Covariances may not shrink to nothing: a part of the total variance is their floor.
    floor = _SHRINK * max(float(value.var(axis=0).mean()), 1e-12)
    share = r.sum(axis=0) + 1e-9
    mean = r.T @ value / share[:, None]
    spread = np.stack([_weighted_covariance(value, r[:, k], mean[k]) for k in range(r.shape[1])])
    now = _tied(MixtureEstimate(share / share.sum(), mean, _no_less(spread, floor)), tie, -np.inf, n)
    for _ in range(iterations):
        then, now = now, _step(now, value, variance, floor, tie)
        if now.log_likelihood - then.log_likelihood < tolerance * n and np.isfinite(then.log_likelihood):
            break
    return now


def _tied(mixture: MixtureEstimate, tie: Tie | None, log_likelihood: float, n: int) -> DeconvolvedMixture:
    kept = mixture if tie is None else tie(mixture)
    return DeconvolvedMixture(kept.weight, kept.mean, kept.covariance, log_likelihood, n)


def _weighted_covariance(value: Floats, weight: Floats, mean: Floats) -> Floats:
    centred = value - mean
    return np.asarray((weight[:, None] * centred).T @ centred / max(float(weight.sum()), 1e-9))


def _no_less(covariance: Floats, floor: float) -> Floats:
    """Covariances (K, d, d) whose variance is at least `floor` in every direction.

    A floor that is added in every round instead would pile up where the errors are large, and the rounds take
    off little each.
    """
    values, vectors = np.linalg.eigh(0.5 * (covariance + covariance.transpose(0, 2, 1)))
    return (vectors * np.maximum(values, floor)[:, None, :]) @ vectors.transpose(0, 2, 1)


def _row_blocks(n: int, components: int) -> list[slice]:
    size = max(1, _BLOCK // components)
    return [slice(start, start + size) for start in range(0, n, size)]


@dataclass(frozen=True)
class _Conditional:
    """Of n particles within each of K components.

    Attributes
    ----------
    joint : ndarray, shape (K, n)
        Log joint density of component and measurement.
    whitener : ndarray, shape (d, d, K, n)
        Inverse M of the lower Cholesky factor of S + V.
    pull : ndarray, shape (d, K, n)
        (S + V)^-1 (y - mu).
    """

    joint: Floats
    whitener: Floats
    pull: Floats

    @classmethod
    def of(cls, mixture: MixtureEstimate, value: Floats, variance: Floats) -> _Conditional:
        whitener = _inverse_cholesky(mixture.covariance, variance)
        d = value.shape[1]
        residual = value.T[:, None, :] - mixture.mean.T[:, :, None]
        whitened = np.einsum("ijkn,jkn->ikn", whitener, residual)
        pull = np.einsum("ijkn,ikn->jkn", whitener, whitened)
        log_det = np.log(np.einsum("iikn->ikn", whitener)).sum(axis=0)
        log_weight = np.log(np.maximum(mixture.weight, 1e-300))[:, None]
        joint = log_weight + log_det - 0.5 * (np.square(whitened).sum(axis=0) + d * np.log(2 * np.pi))
        return cls(joint, whitener, pull)


def _inverse_cholesky(covariance: Floats, variance: Floats) -> Floats:
    """Inverse lower Cholesky factors of S_k + diag(V_i), (K, d, d) and (n, d) -> (d, d, K, n).

    All particles and components go through the columns together, which is faster than one small matrix after
    the other.
    """
    k, d = covariance.shape[:2]
    factor, inverse = np.zeros((d, d, k, len(variance))), np.zeros((d, d, k, len(variance)))
    for j in range(d):
        pivot = covariance[:, j, j, None] + variance[:, j] - np.square(factor[j, :j]).sum(axis=0)
        inverse[j, j] = 1 / np.sqrt(pivot)
        for i in range(j + 1, d):
            known = np.einsum("pkn,pkn->kn", factor[i, :j], factor[j, :j])
            factor[i, j] = (covariance[:, i, j, None] - known) * inverse[j, j]
    for i in range(d):
        for j in range(i):
            known = np.einsum("pkn,pkn->kn", factor[i, j:i], inverse[j:i, j])
            inverse[i, j] = -known * inverse[i, i]
    return inverse


def _step(
    mixture: MixtureEstimate, value: Floats, variance: Floats, floor: float, tie: Tie | None
) -> DeconvolvedMixture:
    """One round of expectation and maximisation; the log-likelihood is that of the mixture given."""
    (k, d), n = mixture.mean.shape, len(value)
    share, pull = np.full(k, 1e-9), np.zeros((k, d))
    squares, precision, total = np.zeros((k, d, d)), np.zeros((k, d, d)), 0.0
    for rows in _row_blocks(n, k):
        part = _Conditional.of(mixture, value[rows], variance[rows])
        evidence = np.logaddexp.reduce(part.joint, axis=0)
        r = np.exp(part.joint - evidence)
        total += float(evidence.sum())
        share += r.sum(axis=1)
        weighted = (r * part.pull).transpose(1, 0, 2)
        pull += weighted.sum(axis=2)
        squares += weighted @ part.pull.transpose(1, 2, 0)
        # Sum of r (S + V)^-1: rows of M of all particles, side by side.
        flat = (np.sqrt(r) * part.whitener).transpose(2, 1, 0, 3).reshape(k, d, -1)
        precision += flat @ flat.transpose(0, 2, 1)
    # Of the error-free code within its component, by S times the sums: its mean from the component's own
    # mean, its second moment about that, and what the measurements take off the covariance.
    s = mixture.covariance
    shift = np.einsum("kij,kj->ki", s, pull) / share[:, None]
    covariance = s + s @ (squares - precision) @ s / share[:, None, None]
    covariance = _no_less(covariance - shift[:, :, None] * shift[:, None, :], floor)
    found = MixtureEstimate(share / share.sum(), mixture.mean + shift, covariance)
    return _tied(found, tie, total, n)


def deconvolved_estimate(
    mean: Tensor,
    sd: Tensor,
    begin: Callable[[Tensor, NDArray[np.bool_]], MixtureEstimate],
    *,
    tie: Tie | None = None,
    iterations: int = 100,
) -> MixtureEstimate:
    """The mixture behind posteriors that were made under N(0, I), for a prior to take over.

    Parameters
    ----------
    mean, sd : Tensor, shape (N, D)
    begin : callable
        Posterior means (N, D) and which directions were measured (D,) to a mixture of those directions. Its
        probabilities of each component for every particle are the start.
    tie : Tie, optional
        Constraints on the mixture of the measured directions.
    iterations : int

    Returns
    -------
    MixtureEstimate
        Directions that were not measured are N(0, 1) and independent of the rest, as the reference prior
        left them.
    """
    mean, sd = mean.detach().cpu().double(), sd.detach().cpu().double()
    measured = measurements(mean.numpy(), sd.numpy())
    groups = begin(mean, measured.active)
    most = max(_FEWEST, _MOST_PAIRS // len(groups.weight))
    rows = torch.randperm(len(mean), generator=torch.Generator().manual_seed(0))[:most].numpy()
    points = mean.numpy()[rows][:, measured.active]
    start = DeconvolvedMixture(groups.weight, groups.mean, groups.covariance, -np.inf, len(rows))
    r = start.responsibilities(points, np.zeros_like(points))
    value, variance = measured.value[rows], measured.variance[rows]
    found = fit_deconvolved(value, variance, r, iterations=iterations, tie=tie)
    return _with_idle_directions(found, measured.active)


def _with_idle_directions(mixture: MixtureEstimate, active: NDArray[np.bool_]) -> MixtureEstimate:
    k, d = len(mixture.weight), len(active)
    mean, covariance = np.zeros((k, d)), np.tile(np.eye(d), (k, 1, 1))
    mean[:, active] = mixture.mean
    covariance[np.ix_(np.arange(k), active, active)] = mixture.covariance
    return MixtureEstimate(mixture.weight, mean, covariance)
