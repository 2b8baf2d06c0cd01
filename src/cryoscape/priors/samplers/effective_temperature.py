"""The temperature that samples have, by maximum pseudo-likelihood (Besag 1975)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from scipy.optimize import brentq
from torch import Tensor

from cryoscape.priors.samplers.base import IsingProblem


@dataclass(frozen=True)
class EffectiveBeta:
    """Inverse temperature of samples.

    Attributes
    ----------
    value : float
        Relative to the energy of the problem; infinite where no flip of a spin lowers the energy, and not a
        number where none changes it.
    std_err : float
        For independent samples.
    """

    value: float
    std_err: float


@torch.no_grad()
def effective_beta(
    problem: IsingProblem, spins: Tensor, log_weight: Tensor | None = None, largest: float = 50.0
) -> EffectiveBeta:
    """Find the beta of p(s) proportional to exp(-beta E) that makes samples most plausible.

    The pseudo-likelihood of a sample is the product over its spins of p(s_u | others) = sigmoid(-beta x_u),
    with x_u = 2 s_u (h_u + sum_v J_uv s_v); its logarithm is concave in beta.

    Parameters
    ----------
    problem : IsingProblem
    spins : Tensor, shape (R, n)
        +-1.
    log_weight : Tensor, shape (R,), optional
    largest : float
        Values beyond it, of either sign, are given as infinite.
    """
    s = spins.double()
    field = problem.fields.detach().double() + s @ problem.dense.double()
    gain = 2 * s * field
    weight = (
        torch.full((len(s),), 1 / len(s)).to(s)
        if log_weight is None
        else torch.softmax(log_weight.double(), 0)
    )

    def slopes(beta: float) -> Tensor:
        return -(gain * torch.sigmoid(beta * gain)).sum(1)

    def slope(beta: float) -> float:
        return float(weight @ slopes(beta))

    if not bool(gain.any()):
        return EffectiveBeta(math.nan, math.inf)
    if slope(largest) >= 0:
        return EffectiveBeta(math.inf, math.inf)
    if slope(-largest) <= 0:
        return EffectiveBeta(-math.inf, math.inf)
    value = float(brentq(slope, -largest, largest, xtol=1e-8))
    chance = torch.sigmoid(value * gain)
    curvature = float(weight @ (gain.square() * chance * (1 - chance)).sum(1))
    error = float(torch.sqrt((weight * slopes(value)).square().sum())) / curvature
    return EffectiveBeta(value, error)
