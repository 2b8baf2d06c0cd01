"""Langevin dynamics of the latent variable, under a prior and a further potential U(z).

In the base of a prior that is a bijection to N(0, I), the Langevin equation is an Ornstein-Uhlenbeck process,
whose step is known exactly: e <- a e + sqrt(1 - a^2) noise, a = exp(-dt / 2). (Kreis et al. 2022, equation 7,
is its first-order form, whose samples are 2.6 % too wide at dt = 0.1.) A potential is taken into account by
Metropolis: the step keeps the prior, so that U alone decides (pCN: Cotter et al., Statistical Science 2013).

For comparison, and for priors without a base, the Langevin equation in z itself, corrected by Metropolis
(MALA: Roberts and Tweedie, Bernoulli 1996).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from cryoscape.priors.base import LatentPrior
from cryoscape.priors.gaussians import normal_noise
from cryoscape.priors.langevin import Place, accepted_by, metropolis_step
from cryoscape.priors.samplers.health import integrated_autocorrelation
from cryoscape.priors.transport import TransportPrior

Potential = Callable[[Tensor], Tensor]
"""Points (n, d) in the units of z -> U, (n,), in nats or kT."""


@dataclass(frozen=True)
class Trajectory:
    """Chains of latent points.

    Attributes
    ----------
    points : Tensor, shape (steps + 1, n, d)
        In the units of z, the start among them.
    accepted : float
        Share of the proposals that were.
    """

    points: Tensor
    accepted: float

    def autocorrelation(self) -> float:
        """Integrated autocorrelation time of the slowest coordinate, in steps."""
        return max(integrated_autocorrelation(series) for series in self.points.unbind(-1))


@torch.no_grad()
def ornstein_uhlenbeck(
    prior: TransportPrior,
    start: Tensor,
    steps: int,
    *,
    dt: float = 0.1,
    potential: Potential | None = None,
    generator: torch.Generator | None = None,
) -> Trajectory:
    """Langevin dynamics in the base of a prior; stationary at p(z) exp(-U(z)), exactly.

    Without a potential the autocorrelation time in the base is about 4 / dt steps.

    Parameters
    ----------
    prior : TransportPrior
    start : Tensor, shape (n, d)
        In the units of z.
    steps : int
    dt : float
        Time of a step.
    potential : Potential, optional
    generator : torch.Generator, optional
        Of the noise, drawn on the CPU.

    Returns
    -------
    Trajectory
    """
    keep = math.exp(-dt / 2)
    fresh = math.sqrt(-math.expm1(-dt))
    base, z = prior.encode(start), start
    if potential is None:
        bases = [base]
        for _ in range(steps):
            bases.append(keep * bases[-1] + fresh * normal_noise(base, generator))
        moved = torch.stack(bases[1:]) if steps else base.new_empty(0, *base.shape)
        return Trajectory(torch.cat([start[None], prior.decode(moved)]), 1.0)
    level, points, taken = potential(z), [z], 0.0
    for _ in range(steps):
        proposal = keep * base + fresh * normal_noise(base, generator)
        there = prior.decode(proposal)
        height = potential(there)
        accept = accepted_by(level - height, level.dtype, generator)
        base, z = (torch.where(accept[:, None], a, b) for a, b in ((proposal, base), (there, z)))
        level = torch.where(accept, height, level)
        points.append(z)
        taken += float(accept.double().mean())
    return Trajectory(torch.stack(points), taken / max(1, steps))


def adjusted_langevin(
    prior: LatentPrior,
    start: Tensor,
    steps: int,
    *,
    step_size: float,
    potential: Potential | None = None,
    generator: torch.Generator | None = None,
) -> Trajectory:
    """Langevin dynamics in z, corrected by Metropolis; stationary at p(z) exp(-U(z)), exactly.

    Parameters
    ----------
    prior : LatentPrior
        Of real z.
    start : Tensor, shape (n, d)
        In the units of z.
    steps : int
    step_size : float
        Standard deviation of the noise of a step, in the units of z.
    potential : Potential, optional
        Differentiable.
    generator : torch.Generator, optional
        Of the noise, drawn on the CPU.

    Returns
    -------
    Trajectory
    """

    def log_density(z: Tensor) -> Tensor:
        return -prior.energy(z) if potential is None else -prior.energy(z) - potential(z)

    place = Place.at(log_density, start)
    points, accepted = [start], 0.0
    for _ in range(steps):
        place, taken = metropolis_step(log_density, place, step=step_size, generator=generator)
        points.append(place.points)
        accepted += float(taken.double().mean())
    return Trajectory(torch.stack(points), accepted / max(1, steps))
