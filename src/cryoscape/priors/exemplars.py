"""Choosing exemplars among points, how wide to make them and how much they weigh."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from cryoscape.priors.gaussians import in_parts
from cryoscape.priors.machines.negative_phase import drawn_seed

_ROUNDS = 30
_NARROWEST, _WIDEST = 0.01, 2.0


def choose_exemplars(points: Tensor, count: int, generator: torch.Generator | None = None) -> Tensor:
    """Choose rows that are far apart: each with the squared distance to the nearest one so far (k-means++).

    Parameters
    ----------
    points : Tensor, shape (N, d)
    count : int
        K.
    generator : torch.Generator, optional

    Returns
    -------
    Tensor, shape (K,), int64
        Without repetition as long as there are points.
    """
    from sklearn.cluster import kmeans_plusplus

    x = points.detach().cpu().double().numpy()
    few = min(count, len(x))
    _, rows = kmeans_plusplus(x, few, random_state=drawn_seed(generator))
    return torch.as_tensor(rows, dtype=torch.long).repeat(-(-count // few))[:count]


def exemplar_log_prob(u: Tensor, mean: Tensor, log_var: Tensor) -> Tensor:
    """Log densities of K diagonal Gaussians with means and log variances (K, d), (..., d) -> (..., K)."""
    sharpness = torch.exp(-0.5 * log_var)
    constant = -0.5 * (log_var + math.log(2 * math.pi)).sum(-1)

    def table(part: Tensor) -> Tensor:
        return constant - 0.5 * ((part[:, None, :] - mean) * sharpness).square().sum(-1)

    return in_parts(table, u, mean.numel())


def weights_of(log_density: Tensor, rounds: int = _ROUNDS) -> Tensor:
    """Log weights of largest likelihood by expectation-maximisation, from log densities (N, K) -> (K,)."""
    log_weight = torch.full_like(log_density[0], -math.log(log_density.shape[1]))
    for _ in range(rounds):
        log_weight = (log_density + log_weight).softmax(1).mean(0).clamp_min(1e-12).log().log_softmax(0)
    return log_weight


def shared_width(exemplars: Tensor, train: Tensor, held_out: Tensor) -> float:
    """Standard deviation around all exemplars (K, d) at which points held out are likeliest.

    For every width that is tried the weights are fitted to the points of `train` (n, d); none of them may be
    an exemplar itself.
    """
    from scipy.optimize import minimize_scalar

    squares = [torch.cdist(points, exemplars).square() for points in (train, held_out)]

    def loss(log_sd: float) -> float:
        constant = -exemplars.shape[1] * (log_sd + 0.5 * math.log(2 * math.pi))
        near, far = (constant - 0.5 * square * math.exp(-2 * log_sd) for square in squares)
        return -float(torch.logsumexp(far + weights_of(near), 1).mean())

    limits = (math.log(_NARROWEST), math.log(_WIDEST))
    found = minimize_scalar(loss, bounds=limits, method="bounded", options={"xatol": 0.02})
    return float(np.exp(found.x))
