"""The most probable conformations under conditions: ascent of log p(z) + log weights, from many starts."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from cryoscape.analysis.variables.conditions import Conditions
from cryoscape.errors import InputError
from cryoscape.priors.base import LatentPrior
from cryoscape.priors.guidance import BlurredScore

STEPS = 400
"""Of Adam."""

WALL_POWERS = (1.0, 10.0, 100.0, 1000.0)
"""Powers of the walls, a quarter of the steps each: the last leaves a hair's breadth outside."""

BLUR = 0.05
"""Blur, in widths of the prior, of the density that is climbed where the exact slope is dear (diffusion)."""

_RATE = 0.1
_SCALE_DRAWS = 512
# Part of a variable's scale by which a wall may be missed.
_TOLERANCE = 0.1


@dataclass(frozen=True, eq=False)
class Optima:
    """Where the ascents ended, the best first.

    Attributes
    ----------
    z : Tensor, shape (n, d)
    log_prob : Tensor, shape (n,)
        log p(z), nats.
    log_weight : Tensor, shape (n,)
        Of all that weighs, nats.
    met : Tensor, shape (n,), bool
        Whether walls are passed, to a tenth of the scale of their variable (0.05 A).
    slope : Tensor, shape (n,)
        What is left of the gradient, nats a standard deviation of the prior; small at an optimum.
    """

    z: Tensor
    log_prob: Tensor
    log_weight: Tensor
    met: Tensor
    slope: Tensor


def optimise(
    prior: LatentPrior,
    conditions: Conditions,
    starts: Tensor,
    *,
    steps: int = STEPS,
    generator: torch.Generator | None = None,
    progress: Callable[[int], None] | None = None,
) -> Optima:
    """Climb log p(z) + sum of the log weights of the conditions.

    With log p as regulariser an optimum is a conformation that the population has; without, decoders make
    impossible ones meet any condition. The optimum of a density depends on the parametrisation of z: it is a
    representative, and no statement about populations.

    Parameters
    ----------
    prior : LatentPrior
        On real latents.
    conditions : Conditions
        All differentiable.
    starts : Tensor, shape (n, d)
        For example samples of the prior.
    steps : int
    generator : torch.Generator, optional
        Of the draws that tell the width of the prior.
    progress : callable, optional
        Called with 1 after every step.

    Returns
    -------
    Optima

    Raises
    ------
    InputError
        Latents are bits, or a condition has no gradient.
    """
    if prior.support == "binary":
        raise InputError(
            "the latents of this run are bits, which cannot be climbed",
            remedy="Leave --optimise out: the samples under the conditions are few configurations.",
        )
    conditions.need_gradient(starts[:1])
    width = prior.sample(_SCALE_DRAWS, generator).std(0).clamp_min(1e-6)
    u = (starts.detach() / width).clone().requires_grad_()
    adam = torch.optim.Adam([u], lr=_RATE)
    for step in range(steps):
        power = WALL_POWERS[step * len(WALL_POWERS) // steps]
        # Every power is approached with long steps and settled with short ones.
        phase = (step * len(WALL_POWERS) / steps) % 1.0
        adam.param_groups[0]["lr"] = _RATE * 0.5 * (1.02 + math.cos(math.pi * phase)) / power**0.25
        u.grad = -_slope(prior, conditions, u.detach() * width, width, power) * width
        adam.step()
        if progress is not None:
            progress(1)
    z = u.detach() * width
    with torch.no_grad():
        found, log_prob = conditions(z), prior.log_prob(z)
    met = found.wall > -0.5 * _TOLERANCE**2
    slope = (_slope(prior, conditions, z, width, WALL_POWERS[-1]) * width).norm(dim=-1)
    order = torch.argsort(log_prob + found.weight + torch.where(met, 0.0, -1e6), descending=True)
    return Optima(z[order], log_prob[order], found.weight[order], met[order], slope[order])


def _slope(prior: LatentPrior, conditions: Conditions, z: Tensor, width: Tensor, power: float) -> Tensor:
    """Gradient of the objective with walls to a power, (n, d) -> (n, d)."""
    if isinstance(prior, BlurredScore):
        score = prior.blurred_score(z, BLUR * float(width.mean()))
    else:
        score = prior.score(z)
    return score + conditions.with_gradient(z, 1.0, power)[1]
