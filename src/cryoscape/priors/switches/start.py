"""From a Gaussian mixture to switches: fields and couplings of its weights, additive means.

Energies are in kT: p(s) is proportional to exp(b.s + sum_(i<j) J_ij s_i s_j) with spins s = +-1.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cryoscape.priors.expectation_maximisation import MixtureEstimate

Floats = NDArray[np.float64]

_ROUNDS = 100
_SMOOTHING = 1e-4
_LEAST_VARIANCE = 0.05
_EXPLAINED = 0.75


def configurations(spins: int) -> Floats:
    """All 2^m configurations, shape (2^m, m), +-1: the first spin changes slowest, and -1 comes first."""
    index = np.arange(2**spins)[:, None] >> np.arange(spins - 1, -1, -1)
    return np.where(index & 1, 1.0, -1.0)


def pairs(spins: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows and columns of the pairs i < j."""
    rows, columns = np.triu_indices(spins, 1)
    return rows, columns


def pairwise_features(codes: Floats) -> Floats:
    """The spins and their products in pairs, (K, m) -> (K, m + m (m - 1) / 2)."""
    rows, columns = pairs(codes.shape[1])
    return np.concatenate([codes, codes[:, rows] * codes[:, columns]], axis=1)


def pairwise_likelihood(weight: Floats, features: Floats) -> float:
    """Mean log probability of configurations with these weights under the best fields and couplings."""
    return _objective(match_moments(weight, features), features, weight @ features)[0]


def least_squares_log_weights(weight: Floats, features: Floats) -> Floats:
    """Fields and couplings (F,) whose log weights come nearest to those given, up to a constant."""
    log_weight = np.log(np.maximum(weight, 1e-6 / len(weight)))
    design = np.concatenate([features, np.ones((len(features), 1))], axis=1)
    return np.linalg.lstsq(design, log_weight, rcond=None)[0][:-1]


def pairwise_weights(theta: Floats, features: Floats) -> Floats:
    """Probabilities of the configurations, shape (2^m,)."""
    return _objective(theta, features, np.zeros(len(theta)))[1]


def match_moments(weight: Floats, features: Floats) -> Floats:
    """Fields and couplings of largest likelihood, given how much is in every configuration.

    A concave problem, solved by Newton's method from the least-squares projection of the log weights: at the
    solution, the means of all spins and of their products are those of the weights. The weights are smoothed
    a little, so that two spins which are never seen in one of their four configurations keep a finite
    coupling.

    Parameters
    ----------
    weight : ndarray, shape (2^m,)
        Sums to 1.
    features : ndarray, shape (2^m, F)

    Returns
    -------
    ndarray, shape (F,)
    """
    target = (1 - _SMOOTHING) * weight @ features + _SMOOTHING * features.mean(0)
    theta = least_squares_log_weights(weight, features)
    value, p = _objective(theta, features, target)
    for _ in range(_ROUNDS):
        mean = p @ features
        curvature = (features * p[:, None]).T @ features - np.outer(mean, mean)
        step = np.linalg.solve(curvature + 1e-9 * np.eye(len(theta)), target - mean)
        length = 1.0
        trial, p_trial = _objective(theta + step, features, target)
        while not trial > value and length > 1e-6:
            length /= 2
            trial, p_trial = _objective(theta + length * step, features, target)
        if trial <= value + 1e-12:
            break
        theta, value, p = theta + length * step, trial, p_trial
    return theta


def _objective(theta: Floats, features: Floats, target: Floats) -> tuple[float, Floats]:
    """Mean log likelihood of configurations with these mean features, and the probabilities of all."""
    log_weight = features @ theta
    log_z = np.logaddexp.reduce(log_weight)
    return float(theta @ target - log_z), np.exp(log_weight - log_z)


def tie_weights(mixture: MixtureEstimate, features: Floats) -> MixtureEstimate:
    """The mixture with the pairwise weights that are nearest to its own."""
    weight = pairwise_weights(match_moments(mixture.weight, features), features)
    return MixtureEstimate(weight, mixture.mean, mixture.covariance)


def tie_additive(mixture: MixtureEstimate, codes: Floats) -> MixtureEstimate:
    """The mixture with means that add up over the spins and one covariance, of largest likelihood.

    Weighted least squares of the means on (1, s); what is left of them goes into the covariance.
    """
    origin, directions = additive_means(mixture, codes)
    mean = origin + codes @ directions
    left = mixture.mean - mean
    inside = np.einsum("k,kij->ij", mixture.weight, mixture.covariance)
    shared = inside + (left * mixture.weight[:, None]).T @ left
    return MixtureEstimate(mixture.weight, mean, np.tile(shared, (len(mean), 1, 1)))


def table_score(mixture: MixtureEstimate) -> float:
    """How well components in the order of the configurations suit switches with a Gaussian for each, nats.

    The mean log likelihood of complete data, up to what does not depend on the order.
    """
    features = pairwise_features(configurations(len(mixture.weight).bit_length() - 1))
    return pairwise_likelihood(mixture.weight, features)


def additive_score(mixture: MixtureEstimate) -> float:
    """The same for additive means and one covariance."""
    codes = configurations(len(mixture.weight).bit_length() - 1)
    shared = tie_additive(mixture, codes).covariance[0]
    return table_score(mixture) - 0.5 * float(np.linalg.slogdet(shared)[1])


def additive_means(mixture: MixtureEstimate, codes: Floats) -> tuple[Floats, Floats]:
    """Origin (d,) and directions (m, d) with means origin + s @ directions nearest to the mixture's."""
    design = np.concatenate([np.ones((len(codes), 1)), codes], axis=1)
    weighted = design * mixture.weight[:, None]
    # The ridge decides where a spin never changes.
    normal = weighted.T @ design + 1e-9 * np.eye(design.shape[1])
    solution = np.linalg.solve(normal, weighted.T @ mixture.mean)
    return solution[0], solution[1:]


def along_directions(
    directions: Floats, codes: Floats, origin: Floats, covariance: Floats
) -> MixtureEstimate:
    """Uncoupled switches that move the mean by +- one direction each.

    Parameters
    ----------
    directions : ndarray, shape (m, d)
    codes : ndarray, shape (K, m)
    origin : ndarray, shape (d,)
    covariance : ndarray, shape (d, d)
        Of all configurations.

    Returns
    -------
    MixtureEstimate
    """
    k = len(codes)
    return MixtureEstimate(np.full(k, 1 / k), origin + codes @ directions, np.tile(covariance, (k, 1, 1)))


def principal_switches(covariance: Floats, spins: int) -> Floats:
    """Directions (m, d) of switches along principal axes that explain three quarters of the variance.

    The axes take turns, the longest first. Switches of one axis have displacements in the ratios 1 : 1/2 :
    1/4, like the digits of a binary number, so that together they divide it evenly.
    """
    values, vectors = np.linalg.eigh(covariance)
    axes = vectors[:, ::-1].T * np.sqrt(np.maximum(values[::-1], 0.0))[:, None]
    turn, axis = np.divmod(np.arange(spins), len(axes))
    size = 0.5**turn
    total = np.bincount(axis, np.square(size))
    return np.sqrt(_EXPLAINED / total[axis])[:, None] * size[:, None] * axes[axis]


def unexplained(directions: Floats, covariance: Floats) -> Floats:
    """What uncoupled switches along directions (m, d) leave of a covariance (d, d).

    At least a twentieth is left in every direction, also where the switches would explain more than all.
    """
    root = np.linalg.cholesky(covariance + 1e-12 * np.trace(covariance) * np.eye(len(covariance)))
    inverse = np.linalg.inv(root)
    left = np.eye(len(root)) - inverse @ directions.T @ directions @ inverse.T
    values, vectors = np.linalg.eigh(left)
    return root @ (vectors * np.maximum(values, _LEAST_VARIANCE)) @ vectors.T @ root.T
