"""Langevin chains in a continuous space, with and without the Metropolis correction.

    u' = u + step^2 / 2 * grad log p(u) + step * noise

Without correction the law that it leaves unchanged is p only for a step that goes to 0; short chains of large
steps are a sampler of their own (Nijkamp et al. 2019). Accepted with the probability of Metropolis and
Hastings (MALA: Roberts and Tweedie 1996) the chain leaves p itself unchanged.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from cryoscape.priors.gaussians import normal_noise

LogDensity = Callable[[Tensor], Tensor]
"""Unnormalised log density, (n, d) -> (n,)."""

BEST_ACCEPTANCE = 0.57
"""Of MALA in many dimensions (Roberts and Rosenthal 1998)."""

_PULL = 0.3


@dataclass(frozen=True, eq=False)
class Place:
    """Where chains are, and what the log density is there.

    Attributes
    ----------
    points : Tensor, shape (n, d)
    value : Tensor, shape (n,)
        Unnormalised log density.
    slope : Tensor, shape (n, d)
        Its gradient.
    """

    points: Tensor
    value: Tensor
    slope: Tensor

    @classmethod
    def at(cls, log_density: LogDensity, points: Tensor) -> Place:
        """Look at a log density."""
        return cls(points, *value_and_slope(log_density, points))

    def where(self, chosen: Tensor, other: Place) -> Place:
        """Those of `other` where chosen (n,), these elsewhere."""
        return Place(
            torch.where(chosen[:, None], other.points, self.points),
            torch.where(chosen, other.value, self.value),
            torch.where(chosen[:, None], other.slope, self.slope),
        )


@dataclass(frozen=True, eq=False)
class Chains:
    """Where chains have come to.

    Attributes
    ----------
    points : Tensor, shape (n, d)
    accepted : Tensor, shape (n,)
        Share of the steps of every chain that were accepted.
    """

    points: Tensor
    accepted: Tensor

    @property
    def acceptance(self) -> float:
        """Mean share of the steps that were accepted."""
        return float(self.accepted.mean())


def value_and_slope(log_density: LogDensity, u: Tensor) -> tuple[Tensor, Tensor]:
    """Log density (n,) and its gradient (n, d) at points (n, d), both without a graph."""
    with torch.enable_grad():
        leaf = u.detach().requires_grad_()
        value = log_density(leaf)
        (slope,) = torch.autograd.grad(value.sum(), leaf)
    return value.detach(), slope


@torch.no_grad()
def langevin(
    log_density: LogDensity,
    start: Tensor,
    *,
    step: float,
    steps: int,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Move chains by Langevin steps without correction, (n, d) -> (n, d).

    Parameters
    ----------
    log_density : callable
    start : Tensor, shape (n, d)
    step : float
        Standard deviation of the noise of a step.
    steps : int
    generator : torch.Generator, optional
    """
    u = start
    for _ in range(steps):
        slope = value_and_slope(log_density, u)[1]
        u = u + 0.5 * step**2 * slope + step * normal_noise(u, generator)
    return u


def metropolis_step(
    log_density: LogDensity,
    place: Place,
    *,
    step: float | Tensor,
    generator: torch.Generator | None = None,
) -> tuple[Place, Tensor]:
    """One step of all chains, with what was accepted, (n,), bool; the arguments of `metropolis_langevin`."""
    noise = normal_noise(place.points, generator)
    forth = Place.at(log_density, place.points + 0.5 * step**2 * place.slope + step * noise)
    back = (place.points - forth.points - 0.5 * step**2 * forth.slope) / step
    log_ratio = forth.value - place.value - 0.5 * (back.square() - noise.square()).sum(-1)
    taken = accepted_by(log_ratio, place.points.dtype, generator)
    return place.where(taken, forth), taken


def accepted_by(log_ratio: Tensor, dtype: torch.dtype, generator: torch.Generator | None = None) -> Tensor:
    """Metropolis: which proposals are taken, (n,), bool; none whose ratio is not a number.

    Parameters
    ----------
    log_ratio : Tensor, shape (n,)
        Of the densities, with those of proposing either way.
    dtype : torch.dtype
        Of the random numbers.
    generator : torch.Generator, optional
    """
    chance = torch.rand(len(log_ratio), generator=generator, dtype=dtype).to(log_ratio.device)
    return chance.log() < log_ratio


@torch.no_grad()
def metropolis_langevin(
    log_density: LogDensity,
    start: Tensor,
    *,
    step: float | Tensor,
    steps: int,
    generator: torch.Generator | None = None,
) -> Chains:
    """Move chains by Langevin steps that are accepted or not.

    Parameters
    ----------
    log_density : callable
        A proposal where it is not finite is never accepted.
    start : Tensor, shape (n, d)
    step : float or Tensor, shape (n, 1)
        Standard deviation of the noise of a step; of every chain where it is a tensor.
    steps : int
    generator : torch.Generator, optional
    """
    place = Place.at(log_density, start)
    accepted = torch.zeros_like(place.value)
    for _ in range(steps):
        place, taken = metropolis_step(log_density, place, step=step, generator=generator)
        accepted += taken
    return Chains(place.points, accepted / max(1, steps))


def tuned(step: float, acceptance: float) -> float:
    """A step that is accepted more nearly as often as it should be."""
    return step * math.exp(_PULL * (acceptance / BEST_ACCEPTANCE - 1))


def tuned_step(
    log_density: LogDensity,
    start: Tensor,
    *,
    step: float = 0.3,
    rounds: int = 40,
    generator: torch.Generator | None = None,
) -> tuple[float, Tensor]:
    """Find a step of MALA by trial, and the points that the trials came to.

    Parameters
    ----------
    log_density : callable
    start : Tensor, shape (n, d)
    step : float
        The first one to try.
    rounds : int
        Trials, each of one step of all chains.
    generator : torch.Generator, optional

    Returns
    -------
    step : float
    points : Tensor, shape (n, d)
    """
    u = start
    for _ in range(rounds):
        chains = metropolis_langevin(log_density, u, step=step, steps=1, generator=generator)
        u, step = chains.points, tuned(step, chains.acceptance)
    return step, u
