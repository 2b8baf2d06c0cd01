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
            bases.append(keep * bases[-1] + fresh * _noise(base, generator))
        moved = torch.stack(bases[1:]) if steps else base.new_empty(0, *base.shape)
        return Trajectory(torch.cat([start[None], prior.decode(moved)]), 1.0)
    level, points, taken = potential(z), [z], 0.0
    for _ in range(steps):
        proposal = keep * base + fresh * _noise(base, generator)
        there = prior.decode(proposal)
        height = potential(there)
        accept = _accepted(level - height, generator)
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

    def landscape(z: Tensor) -> tuple[Tensor, Tensor]:
        """Energy and its gradient."""
        with torch.enable_grad():
            leaf = z.detach().requires_grad_()
            energy = prior.energy(leaf)
            if potential is not None:
                energy = energy + potential(leaf)
            return energy.detach(), torch.autograd.grad(energy.sum(), leaf)[0]

    z = start
    (energy, slope), half = landscape(z), 0.5 * step_size**2
    points, taken = [z], 0.0
    for _ in range(steps):
        there = z - half * slope + step_size * _noise(z, generator)
        height, steepness = landscape(there)
        forth = (there - z + half * slope).square().sum(-1)
        back = (z - there + half * steepness).square().sum(-1)
        accept = _accepted(energy - height + (forth - back) / (4 * half), generator)
        z, slope = (torch.where(accept[:, None], a, b) for a, b in ((there, z), (steepness, slope)))
        energy = torch.where(accept, height, energy)
        points.append(z)
        taken += float(accept.double().mean())
    return Trajectory(torch.stack(points), taken / max(1, steps))


def _noise(like: Tensor, generator: torch.Generator | None) -> Tensor:
    return torch.randn(like.shape, generator=generator, dtype=like.dtype).to(like.device)


def _accepted(log_ratio: Tensor, generator: torch.Generator | None) -> Tensor:
    """Metropolis: which proposals are taken, (n,), bool; none whose ratio is not a number."""
    chance = torch.rand(len(log_ratio), generator=generator, dtype=log_ratio.dtype).to(log_ratio.device)
    return chance.log() < log_ratio
