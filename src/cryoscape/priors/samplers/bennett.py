"""The ratio of two partition functions from weights in both directions (Bennett 1976)."""

from __future__ import annotations

import math

import torch
from scipy.optimize import brentq
from torch import Tensor


def log_mean_exp(log_weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Log of the mean weight over the last dimension, its standard error, and the effective sample size.

    (..., R) -> three of shape (...); sd(w) / (mean(w) sqrt(R)), and (sum w)^2 / sum w^2.
    """
    reads = log_weight.shape[-1]
    log_sum = torch.logsumexp(log_weight, -1)
    ess = torch.exp(2 * log_sum - torch.logsumexp(2 * log_weight, -1))
    error = torch.sqrt((1 / ess - 1 / reads).clamp_min(0) * (reads / max(1, reads - 1)))
    return log_sum - math.log(reads), error, ess


def bennett_log_ratio(forward: Tensor, backward: Tensor) -> tuple[float, float]:
    """Estimate log Z_1 / Z_0 and its standard error.

    Parameters
    ----------
    forward : Tensor, shape (R,)
        Log weights of paths from law 0 to law 1: the mean of their exponentials is Z_1 / Z_0.
    backward : Tensor, shape (S,)
        Of the reversed paths from law 1 to law 0.

    Returns
    -------
    value, std_err : float
        The error is that of independent weights (Shirts and Chodera 2008).
    """
    up, down = forward.double(), backward.double()
    shift = math.log(len(up) / len(down))

    def terms(ratio: float) -> tuple[Tensor, Tensor]:
        return torch.sigmoid(up - ratio - shift), torch.sigmoid(down + ratio + shift)

    def balance(ratio: float) -> float:
        left, right = terms(ratio)
        return float(left.sum() - right.sum())

    low = float(torch.minimum(up.min(), (-down).min())) - abs(shift) - 1
    high = float(torch.maximum(up.max(), (-down).max())) + abs(shift) + 1
    value = float(brentq(balance, low, high, xtol=1e-10))
    variance = sum(
        (float(t.square().mean()) / max(float(t.mean()) ** 2, 1e-300) - 1) / len(t) for t in terms(value)
    )
    return value, math.sqrt(max(variance, 0.0))
