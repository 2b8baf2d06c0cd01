"""The flow of probability between points and a standard normal base, and the density that it gives.

Noise is taken away along dy / d angle = -F(y; sigma) with sigma = tan(angle) and y = x cos(angle), which is
the equation dx / d sigma = (x - D) / sigma of Karras et al. (2022) in other variables: for N(0, I) nothing
moves at all, so that steps are spent on what differs from it. Along the flow

    log p(u) = log N(base) + integral of the trace of d(dy / d angle) / dy + constants of scale.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from cryoscape.priors.diffusion.noise import SIGMA_MAX, SIGMA_MIN, Prediction
from cryoscape.priors.diffusion.solver import integrate

TracedPrediction = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""As a `Prediction`, with the trace of the Jacobian of F in the scaled points, (n,)."""

_NATS = 100.0
_LOW, _HIGH = math.atan(SIGMA_MIN), math.atan(SIGMA_MAX)


def encode(predict: Prediction, u: Tensor, tolerance: float) -> Tensor:
    """Whitened points (n, d) to the base: x / sqrt(SIGMA_MAX^2 + 1) at the highest noise."""
    return integrate(_velocity(predict), u * math.cos(_LOW), _LOW, _HIGH, tolerance)


def decode(predict: Prediction, base: Tensor, tolerance: float) -> Tensor:
    """Base (n, d) to whitened points."""
    end = integrate(_velocity(predict), base, _HIGH, _LOW, tolerance)
    return end / math.cos(_LOW)


def log_density(predict: TracedPrediction, u: Tensor, tolerance: float) -> Tensor:
    """Log density of whitened points (n, d) with the exact trace, shape (n,), nats; differentiable in u.

    The error allowed in a step is `tolerance` in the flow and 100 times as many nats in the density.
    """

    def field(angle: float, state: Tensor) -> Tensor:
        value, trace = predict(state[:, :-1], state.new_tensor(math.tan(angle)))
        return -torch.cat([value, trace[:, None] / _NATS], 1)

    d = u.shape[1]
    start = torch.cat([u * math.cos(_LOW), u.new_zeros(len(u), 1)], 1)
    end = integrate(field, start, _LOW, _HIGH, tolerance)
    base, log_det = end[:, :-1], _NATS * end[:, -1]
    normal = -0.5 * base.square().sum(1) - 0.5 * d * math.log(2 * math.pi)
    return normal + log_det + d * math.log(math.cos(_LOW))


def _velocity(predict: Prediction) -> Callable[[float, Tensor], Tensor]:
    def move(angle: float, y: Tensor) -> Tensor:
        return -predict(y, y.new_tensor(math.tan(angle)))

    return move
