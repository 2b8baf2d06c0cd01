"""How much better images that were not trained on are explained with a motion than without, in nats.

Populations of the objects, with the motion and without it, are fitted to some images and judged on others:

    gain_i = log sum_k w_k p(x_i | V_k) - max( log sum_k v_k p(x_i | V_k without), log p(x_i | V_single) ),

where the better of the two alternatives is chosen on the images of the fit. The encoder has no say. The
same number for images simulated of the best single object, in the same poses and noise, is the null.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from cryoscape.analysis.populations.ensemble_weights import FEWEST_GROUPS, maximise_evidence

Array = NDArray[np.float64]


_ENOUGH = 1e-7  # nats an image: of thousands of images a thousandth of a nat in all


@dataclass(frozen=True)
class Mean:
    """A mean over images with its standard error, nats."""

    value: float
    error: float

    @property
    def sigmas(self) -> float:
        """The mean in standard errors; 0 where there is none."""
        return self.value / self.error if self.error > 0 else 0.0

    def less(self, other: Mean) -> Mean:
        """Difference of two independent means."""
        return Mean(self.value - other.value, float(np.hypot(self.error, other.error)))


def mean_over_images(values: Array, micrograph: NDArray[np.int64]) -> Mean:
    """Mean of one number an image (n,), with its error by micrograph (n,) where there are enough."""
    n = len(values)
    mean = float(values.mean())
    names, group = np.unique(micrograph, return_inverse=True)
    if len(names) < FEWEST_GROUPS:
        return Mean(mean, float(values.std(ddof=1) / np.sqrt(n)) if n > 1 else float("inf"))
    sums = np.bincount(group, values - mean)
    g = len(names)
    return Mean(mean, float(np.sqrt(g / (g - 1) * np.square(sums).sum()) / n))


def fit_populations(table: Array) -> Array:
    """Most likely populations (K,) for a table (n, K) of log likelihoods."""
    top = table.max(axis=1, keepdims=True)
    return maximise_evidence(np.exp(table - top), np.ones(len(table)), tolerance=_ENOUGH)[0]


def log_evidence(table: Array, weight: Array) -> Array:
    """Log of sum_k w_k p(x | V_k) for a table (n, K), shape (n,)."""
    with np.errstate(divide="ignore"):
        return logsumexp(table + np.log(weight), axis=1)


@dataclass(frozen=True, eq=False)
class Explained:
    """Images explained with a motion and without it.

    Attributes
    ----------
    weight : ndarray, shape (K,)
        Populations with it, from the images of the fit.
    gain : Mean
        On the others.
    per_image : ndarray, shape (n,)
        The same for each of those.
    single : bool
        Whether the best alternative is one single object.
    """

    weight: Array
    gain: Mean
    per_image: Array
    single: bool


def explain(
    fit_full: Array,
    fit_without: Array,
    test_full: Array,
    test_without: Array,
    micrograph: NDArray[np.int64],
    weight: Array | None = None,
) -> Explained:
    """Compare objects with a motion and without it.

    Parameters
    ----------
    fit_full, fit_without : ndarray, shape (m, K) and (m, L)
        Tables of the images that populations are fitted to.
    test_full, test_without : ndarray, shape (n, K) and (n, L)
        Of those that judge.
    micrograph : ndarray, shape (n,)
    weight : ndarray, shape (K,), optional
        Populations with the motion, where they are known already.

    Returns
    -------
    Explained
    """
    weight = fit_populations(fit_full) if weight is None else weight
    other = fit_populations(fit_without)
    everything = np.concatenate([fit_full, fit_without], axis=1).mean(axis=0)
    best = int(everything.argmax())
    single = bool(everything[best] >= log_evidence(fit_without, other).mean())
    judged = np.concatenate([test_full, test_without], axis=1)
    alternative = judged[:, best] if single else log_evidence(test_without, other)
    per_image = log_evidence(test_full, weight) - alternative
    return Explained(weight, mean_over_images(per_image, micrograph), per_image, single)
