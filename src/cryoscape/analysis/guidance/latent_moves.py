"""Markov moves of latents that leave p(z) exp(log weight of z) as it is, for many walkers at once.

Where a prior is a bijection to N(0, I), proposals keep N(0, I) exactly and only the weight decides
(preconditioned Crank-Nicolson: Cotter et al., Statistical Science 28, 2013). Otherwise the Langevin equation,
corrected by Metropolis (MALA: Roberts and Tweedie, Bernoulli 2, 1996), in units of the walkers' covariance.
Bits are turned over one at a time.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from cryoscape.analysis.variables.conditions import Conditions, Evaluation
from cryoscape.priors.base import LatentPrior
from cryoscape.priors.transport import TransportPrior


@dataclass(frozen=True)
class Stage:
    """One law between the prior and the prior under all conditions.

    Attributes
    ----------
    weight, wall : float
        Powers of the weights and of the walls' half-harmonics.
    cut : bool
        Whether walls are passed or not, and nothing else.
    """

    weight: float
    wall: float
    cut: bool = False

    def log_weight(self, found: Evaluation) -> Tensor:
        """Log weight of every walker, shape (n,), nats."""
        # A power of 0 makes even a weight of 0 count as 1.
        out = self.weight * found.weight if self.weight else torch.zeros_like(found.weight)
        if self.wall:
            out = out + self.wall * found.wall
        return out.masked_fill(~found.inside, -math.inf) if self.cut else out


@dataclass
class Walkers:
    """Points on their way.

    Attributes
    ----------
    z : Tensor, shape (n, d)
    found : Evaluation
        Of z.
    family : Tensor, shape (n,), int64
        The draw of the prior that each descends from.
    base : Tensor, shape (n, d), or None
        z in the base of a transport prior.
    """

    z: Tensor
    found: Evaluation
    family: Tensor
    base: Tensor | None = None

    def __len__(self) -> int:
        return len(self.z)

    def take(self, index: Tensor) -> Walkers:
        """The walkers of an index."""
        base = None if self.base is None else self.base[index]
        return Walkers(self.z[index], self.found.take(index), self.family[index], base)

    def where(self, chosen: Tensor, other: Walkers) -> Walkers:
        """Those of `other` where chosen (n,), these elsewhere."""
        base = None
        if self.base is not None and other.base is not None:
            base = torch.where(chosen[:, None], other.base, self.base)
        return Walkers(
            torch.where(chosen[:, None], other.z, self.z),
            self.found.where(chosen, other.found),
            torch.where(chosen, other.family, self.family),
            base,
        )

    @property
    def place(self) -> Tensor:
        """Where they are in the space that they move in, shape (n, d)."""
        return self.z if self.base is None else self.base


def draw_walkers(
    prior: LatentPrior,
    conditions: Conditions,
    n: int,
    generator: torch.Generator,
    first_family: int = 0,
) -> Walkers:
    """Independent walkers from the prior, each the first of its family."""
    base = None
    if isinstance(prior, TransportPrior):
        noise = torch.randn(n, prior.z_dim, generator=generator, dtype=prior.shift.dtype)
        base = noise.to(prior.shift.device)
        with torch.no_grad():
            z = prior.decode(base)
    else:
        z = prior.sample(n, generator)
    return Walkers(z, conditions(z), torch.arange(first_family, first_family + n, device=z.device), base)


@dataclass(frozen=True)
class Tuning:
    """What a move has learnt of the walkers.

    Attributes
    ----------
    length : float
        Of its steps.
    root : Tensor, shape (d, d), or None
        Cholesky factor of the walkers' covariance.
    """

    length: float = 1.0
    root: Tensor | None = None


class LatentMove(ABC):
    """A kind of proposal.

    Parameters
    ----------
    prior : LatentPrior
    conditions : Conditions

    Attributes
    ----------
    tuning : Tuning
    goal : float
        Share of accepted moves that the length of the steps is adapted to.
    longest : float
        Largest length of a step.
    """

    goal: ClassVar[float] = 0.3
    longest: ClassVar[float] = 1.0

    def __init__(self, prior: LatentPrior, conditions: Conditions) -> None:
        self.prior, self.conditions = prior, conditions
        self.tuning = Tuning()
        self._adapts = True

    def start(self, walkers: Walkers, stage: Stage, tuning: Tuning | None = None) -> None:
        """Prepare for a new stage.

        Parameters
        ----------
        walkers : Walkers
        stage : Stage
        tuning : Tuning, optional
            Taken as it is. Without, the move learns from these walkers, and is then no longer independent of
            them.
        """
        self._adapts = tuning is None
        self.tuning = self.measure(walkers) if tuning is None else tuning

    def measure(self, walkers: Walkers) -> Tuning:
        """What walkers tell: by default nothing new."""
        return self.tuning

    @abstractmethod
    def propose(self, walkers: Walkers, stage: Stage, generator: torch.Generator) -> tuple[Walkers, Tensor]:
        """New walkers, and the log of their acceptance ratio (n,)."""

    def accepted(self, chosen: Tensor) -> None:  # noqa: B027
        """Told which proposals (n,) were taken; by default nothing depends on it."""

    def __call__(self, walkers: Walkers, stage: Stage, generator: torch.Generator) -> Walkers:
        """Move every walker once."""
        proposed, log_ratio = self.propose(walkers, stage, generator)
        chance = torch.rand(len(walkers), generator=generator).to(log_ratio)
        # A ratio that is not a number is refused.
        chosen = chance.log() < log_ratio
        self.accepted(chosen)
        if self._adapts:
            change = math.exp(float(chosen.float().mean()) - self.goal)
            self.tuning = replace(self.tuning, length=min(self.longest, self.tuning.length * change))
        return walkers.where(chosen, proposed)


class CrankNicolson(LatentMove):
    """b' = sqrt(1 - s^2) b + s N(0, I) in the base: reversible under the prior for every s up to 1."""

    prior: TransportPrior

    @torch.no_grad()
    def propose(self, walkers: Walkers, stage: Stage, generator: torch.Generator) -> tuple[Walkers, Tensor]:
        """A step of the base."""
        assert walkers.base is not None
        noise = torch.randn(walkers.base.shape, generator=generator, dtype=walkers.base.dtype)
        length = self.tuning.length
        base = math.sqrt(1 - length**2) * walkers.base + length * noise.to(walkers.base)
        z = self.prior.decode(base)
        new = Walkers(z, self.conditions(z), walkers.family, base)
        return new, stage.log_weight(new.found) - stage.log_weight(walkers.found)


class Langevin(LatentMove):
    """z' = z + s^2 / 2 C grad log p + s C^1/2 N(0, I), with C the covariance of the walkers."""

    goal = 0.57
    longest = 3.0

    def measure(self, walkers: Walkers) -> Tuning:
        """Covariance of the walkers."""
        centred = (walkers.z - walkers.z.mean(0)).double()
        covariance = centred.T @ centred / len(walkers)
        floor = 1e-6 * covariance.diagonal().mean().clamp_min(1e-12)
        covariance += floor * torch.eye(len(covariance), dtype=covariance.dtype, device=covariance.device)
        return Tuning(self.tuning.length, torch.linalg.cholesky(covariance).to(walkers.z))

    def start(self, walkers: Walkers, stage: Stage, tuning: Tuning | None = None) -> None:
        """Take a covariance, and the density and its slope where the walkers are."""
        super().start(walkers, stage, tuning)
        _, self._log_density, self._pull = self._at(walkers.z, stage)

    def propose(self, walkers: Walkers, stage: Stage, generator: torch.Generator) -> tuple[Walkers, Tensor]:
        """A step uphill, and a random one."""
        assert self.tuning.root is not None
        length = self.tuning.length
        noise = torch.randn(walkers.z.shape, generator=generator, dtype=walkers.z.dtype).to(walkers.z)
        step = 0.5 * length * self._pull + noise
        z = walkers.z + length * step @ self.tuning.root.T
        found, log_density, pull = self._at(z, stage)
        # The way back takes this noise; the determinants of both ways are the same.
        back = -step - 0.5 * length * pull
        log_ratio = log_density - self._log_density + 0.5 * (noise.square().sum(-1) - back.square().sum(-1))
        self._proposed = log_density, pull
        return Walkers(z, found, walkers.family), log_ratio

    def accepted(self, chosen: Tensor) -> None:
        """Keep density and slope of the walkers as they are now."""
        log_density, pull = self._proposed
        self._log_density = torch.where(chosen, log_density, self._log_density)
        self._pull = torch.where(chosen[:, None], pull, self._pull)

    def _at(self, z: Tensor, stage: Stage) -> tuple[Evaluation, Tensor, Tensor]:
        """Evaluation, log density (n,) and its slope (n, d) in units of the walkers' covariance."""
        assert self.tuning.root is not None
        found, slope = self.conditions.with_gradient(z, stage.weight, stage.wall)
        with torch.enable_grad():
            leaf = z.detach().requires_grad_()
            energy = self.prior.energy(leaf)
            slope = slope - torch.autograd.grad(energy.sum(), leaf)[0]
        return found, stage.log_weight(found) - energy.detach(), slope @ self.tuning.root


class BitFlip(LatentMove):
    """One bit of every walker turned over, chosen at random."""

    @torch.no_grad()
    def start(self, walkers: Walkers, stage: Stage, tuning: Tuning | None = None) -> None:
        """Energy where the walkers are."""
        super().start(walkers, stage, tuning)
        self._energy = self.prior.energy(walkers.z)

    @torch.no_grad()
    def propose(self, walkers: Walkers, stage: Stage, generator: torch.Generator) -> tuple[Walkers, Tensor]:
        """Turn one bit over."""
        which = torch.randint(self.prior.z_dim, (len(walkers), 1), generator=generator).to(walkers.z.device)
        z = walkers.z.scatter(1, which, 1 - walkers.z.gather(1, which))
        new = Walkers(z, self.conditions(z), walkers.family)
        self._proposed = self.prior.energy(z)
        weights = stage.log_weight(new.found) - stage.log_weight(walkers.found)
        return new, weights + self._energy - self._proposed

    def accepted(self, chosen: Tensor) -> None:
        """Keep the energy of the walkers as they are now."""
        self._energy = torch.where(chosen, self._proposed, self._energy)


class FreshDraw(LatentMove):
    """A new draw of the prior in place of a walker: the only move that founds a family."""

    _next = 1_000_000

    def propose(self, walkers: Walkers, stage: Stage, generator: torch.Generator) -> tuple[Walkers, Tensor]:
        """As many draws as there are walkers."""
        new = draw_walkers(self.prior, self.conditions, len(walkers), generator, self._next)
        self._next += len(walkers)
        return new, stage.log_weight(new.found) - stage.log_weight(walkers.found)


class ProposedDraw(LatentMove):
    """A draw of another law whose density is known, in place of a walker.

    Parameters
    ----------
    prior : LatentPrior
    conditions : Conditions
    proposal : LatentPrior
        With an exact density.
    """

    def __init__(self, prior: LatentPrior, conditions: Conditions, proposal: LatentPrior) -> None:
        super().__init__(prior, conditions)
        self.proposal = proposal

    @torch.no_grad()
    def propose(self, walkers: Walkers, stage: Stage, generator: torch.Generator) -> tuple[Walkers, Tensor]:
        """As many draws as there are walkers, with the ratio of both laws."""
        z = self.proposal.sample(len(walkers), generator)
        base = self.prior.encode(z) if isinstance(self.prior, TransportPrior) else None
        new = Walkers(z, self.conditions(z), walkers.family, base)
        log_ratio = self._advantage(new, stage) - self._advantage(walkers, stage)
        return new, log_ratio

    def _advantage(self, walkers: Walkers, stage: Stage) -> Tensor:
        return (
            stage.log_weight(walkers.found) - self.prior.energy(walkers.z) + self.proposal.energy(walkers.z)
        )


def local_move(prior: LatentPrior, conditions: Conditions) -> LatentMove:
    """The move that suits a prior."""
    if prior.support == "binary":
        return BitFlip(prior, conditions)
    if isinstance(prior, TransportPrior):
        return CrankNicolson(prior, conditions)
    return Langevin(prior, conditions)
