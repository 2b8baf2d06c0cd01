"""Laws in two dimensions whose log Z is a sum over a grid."""

import math

import numpy as np
import torch
from torch import nn

from cryoscape.priors.energies.prior import EnergyPrior
from cryoscape.priors.normal import NormalPrior


class Banana(nn.Module):
    """f(u) = -2 (u_1 - u_0^2 + 1)^2: over N(0, I), a bent ridge."""

    def forward(self, u):
        return -2.0 * (u[..., 1] - u[..., 0].square() + 1.0).square()


def banana(**settings):
    prior = EnergyPrior(2, base=NormalPrior(2), **settings)
    prior.law.tilt = Banana()
    return prior


def draw_banana(n, seed=0):
    """Points by rejection from N(0, I), by numpy alone."""
    rng = np.random.default_rng(seed)
    u = rng.standard_normal((40 * n, 2))
    f = -2.0 * (u[:, 1] - u[:, 0] ** 2 + 1.0) ** 2
    return u[rng.random(len(u)) < np.exp(f)][:n]


def grid(half=7.0, n=561):
    axis = torch.linspace(-half, half, n, dtype=torch.float64)
    return torch.cartesian_prod(axis, axis), float(axis[1] - axis[0]) ** 2


def log_integral(log_density, half=7.0):
    points, cell = grid(half)
    with torch.no_grad():
        return float(torch.logsumexp(log_density(points), 0)) + math.log(cell)


def banana_log_prob(z):
    """Normalised by a sum over the grid."""
    z = torch.as_tensor(z, dtype=torch.float64)

    def log_density(u):
        return Banana()(u) - 0.5 * u.square().sum(-1)

    return log_density(z) - log_integral(log_density)


def distance_from_banana(prior):
    """KL(banana || prior) by sums over grids, log Z of the prior as well, nats."""
    prior = prior.double()
    points, cell = grid()
    truth = banana_log_prob(points)
    with torch.no_grad():
        model = -prior.energy(points)
        model = model - torch.logsumexp(model, 0) - math.log(cell)
    return float((truth.exp() * (truth - model)).sum() * cell)
