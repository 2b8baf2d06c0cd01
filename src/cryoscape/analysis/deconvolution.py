"""Gaussian mixtures of what was measured with a known error: the distribution behind the posteriors.

A particle's posterior q(z|x) = N(m, s^2) was made with the prior p0 = N(0, 1), so what its image alone says
of z is q / p0, a Gaussian of variance V = s^2 / (1 - s^2) about y = m / (1 - s^2). A mixture fitted to the
posterior means would be blurred by the errors and shrunk by the prior; here every particle keeps its error,

    p(x_i) ~ sum_k a_k N(y_i; mu_k, S_k + V_i),

and a, mu, S are found by expectation-maximisation ("extreme deconvolution").

Source: Bovy, Hogg and Roweis, Annals of Applied Statistics 5 (2011), equations 14 to 16.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_UNINFORMED = 0.95
"""Posterior variance, in units of the prior's, above which an image says nothing of a direction."""
_BLOCK = 20_000
_SHRINK = 1e-3


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
class DeconvolvedMixture:
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

    weight: Floats
    mean: Floats
    covariance: Floats
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
        out = np.empty((len(value), len(self.weight)))
        for start in range(0, len(value), _BLOCK):
            rows = slice(start, start + _BLOCK)
            for k in range(len(self.weight)):
                out[rows, k] = _component(self, k, value[rows], variance[rows])[0]
        return out

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

    Returns
    -------
    DeconvolvedMixture
        Components in the order of `start`. A component that loses all its particles keeps a share near 0.
    """
    r = np.eye(int(start.max()) + 1)[start] if start.ndim == 1 else np.asarray(start, dtype=np.float64)
    n, d = value.shape
    # Covariances may not shrink to nothing: a part of the total variance is their floor.
    floor = _SHRINK * np.eye(d) * max(float(value.var(axis=0).mean()), 1e-12)
    share = r.sum(axis=0) + 1e-9
    mean = r.T @ value / share[:, None]
    spread = np.stack([_weighted_covariance(value, r[:, k], mean[k]) for k in range(r.shape[1])])
    now = DeconvolvedMixture(share / share.sum(), mean, spread + floor, -np.inf, n)
    for _ in range(iterations):
        then, now = now, _step(now, value, variance, floor)
        if now.log_likelihood - then.log_likelihood < tolerance * n and np.isfinite(then.log_likelihood):
            break
    return now


def _weighted_covariance(value: Floats, weight: Floats, mean: Floats) -> Floats:
    centred = value - mean
    return np.asarray((weight[:, None] * centred).T @ centred / max(float(weight.sum()), 1e-9))


def _component(
    mixture: DeconvolvedMixture, k: int, value: Floats, variance: Floats
) -> tuple[Floats, Floats, Floats]:
    """Log joint (N,), S (S + V)^-1 (N, d, d) and the residuals y - mu (N, d) of one component."""
    d = value.shape[1]
    total = mixture.covariance[k] + variance[:, :, None] * np.eye(d)
    inverse = np.linalg.inv(total)
    residual = value - mixture.mean[k]
    distance = np.einsum("ni,nij,nj->n", residual, inverse, residual)
    log_det = np.linalg.slogdet(total)[1]
    log_weight = np.log(max(float(mixture.weight[k]), 1e-300))
    joint = log_weight - 0.5 * (distance + log_det + d * np.log(2 * np.pi))
    return joint, mixture.covariance[k] @ inverse, residual


def _step(mixture: DeconvolvedMixture, value: Floats, variance: Floats, floor: Floats) -> DeconvolvedMixture:
    """One round of expectation and maximisation; the log-likelihood is that of the mixture given."""
    k, (n, d) = len(mixture.weight), value.shape
    share, first = np.full(k, 1e-9), np.zeros((k, d))
    second, shrunk, total = np.zeros((k, d, d)), np.zeros((k, d, d)), 0.0
    for begin in range(0, n, _BLOCK):
        rows = slice(begin, begin + _BLOCK)
        parts = [_component(mixture, j, value[rows], variance[rows]) for j in range(k)]
        joint = np.stack([part[0] for part in parts], axis=1)
        evidence = np.logaddexp.reduce(joint, axis=1)
        r = np.exp(joint - evidence[:, None])
        total += float(evidence.sum())
        share += r.sum(axis=0)
        for j, (_, shrink, residual) in enumerate(parts):
            # Mean of the error-free code within the component, from the component's own mean.
            b = np.einsum("nij,nj->ni", shrink, residual)
            first[j] += r[:, j] @ b
            second[j] += (r[:, j, None] * b).T @ b
            shrunk[j] += np.tensordot(r[:, j], shrink, axes=1)
    move = first / share[:, None]
    covariance = (second - shrunk @ mixture.covariance) / share[:, None, None] + mixture.covariance
    covariance = covariance - move[:, :, None] * move[:, None, :] + floor
    covariance = 0.5 * (covariance + covariance.transpose(0, 2, 1))
    return DeconvolvedMixture(share / share.sum(), mixture.mean + move, covariance, total, n)
