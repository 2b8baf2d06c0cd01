"""Energy-based prior: a fitted base, made likelier here and less likely there by a network.

    p(z) = p_b(z) exp(f(z)) / Z

The base is N(0, I) (Pang et al. 2020), or better a mixture or flow that is fitted first (noise-contrastive
priors: Aneja et al. 2021): then f only has to say what the base has wrong, chains have little to do, and
log Z is an average over points of the base.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, Self

import torch
from torch import Tensor

from cryoscape.errors import InputError
from cryoscape.priors.base import LatentPrior, LogPartition
from cryoscape.priors.energies.annealing import annealed_partition
from cryoscape.priors.energies.bases import fit_base
from cryoscape.priors.energies.drawing import PROPOSALS, LawSampler, Resampling, ShortRun, pool
from cryoscape.priors.energies.faults import energy_faults
from cryoscape.priors.energies.negative import NegativePhase, NoiseContrast
from cryoscape.priors.energies.tilt import Tilt, TiltedLaw


class EnergyPrior(LatentPrior):
    """Exponential tilt of a base.

    Parameters
    ----------
    z_dim : int
        Dimension d of z.
    base : LatentPrior, optional
        Normalised; a mixture of 16 Gaussians by default. It is fitted in the warm start and never learned.
    hidden : tuple of int
        Widths of the network f.
    negative : NegativePhase, optional
        How f is learned; by noise contrast by default.
    penalty : float
        Weight of the mean of f^2 in the loss.
    sampler : LawSampler, optional
        How points are drawn; resampled from the base by default.
    proposals : int
        Points of the base behind log Z.

    Attributes
    ----------
    law : TiltedLaw
        Base and f, in whitened units.
    negative : NegativePhase
    sampler : LawSampler
    estimates_likelihood_gradient : bool
        Whether the gradient of `loss` is, but for noise, that of the mean of -log p. Where it is not, f is
        learned by another criterion, whose best f may be the same.

    Raises
    ------
    InputError
        If the base is not normalised or not of dimension d.
    """

    normalized = False

    def __init__(
        self,
        z_dim: int,
        *,
        base: LatentPrior | None = None,
        hidden: tuple[int, ...] = (128, 128),
        negative: NegativePhase | None = None,
        penalty: float = 1e-4,
        sampler: LawSampler | None = None,
        proposals: int = PROPOSALS,
    ) -> None:
        super().__init__(z_dim)
        if base is None:
            from cryoscape.priors.mixture import MixturePrior

            base = MixturePrior(z_dim)
        if not base.normalized or base.z_dim != z_dim or base.support != "real":
            raise InputError(f"a base must be a normalised real prior of {z_dim} dimensions")
        self.law = TiltedLaw(base, Tilt(z_dim, hidden))
        self.negative = NoiseContrast() if negative is None else negative
        self.sampler = Resampling(proposals) if sampler is None else sampler
        self.penalty, self.proposals = penalty, proposals
        self.schedule = self.negative.schedule
        self.estimates_likelihood_gradient = self.negative.estimates_likelihood_gradient

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Whether the network is learned; the base never is."""
        super().requires_grad_(requires_grad)
        self.law.base.requires_grad_(False)
        return self

    # -- the density -----------------------------------------------------------------------------

    def unit_energy(self, u: Tensor) -> Tensor:
        """Energy of the base less f, shape (..., d) -> (...), nats."""
        return -self.law.log_density(u)

    def unit_log_partition(self) -> LogPartition:
        """Log Z of the base plus that of the tilt, by importance from the base."""
        base = self.law.base.log_partition().value
        found = pool(self.law, self.proposals, torch.Generator().manual_seed(0)).log_partition("importance")
        return replace(found, value=found.value + base)

    @torch.no_grad()
    def log_partition_estimates(
        self, *, chains: int = 512, temperatures: int = 500, seed: int = 0
    ) -> dict[Literal["importance", "annealed"], LogPartition]:
        """Log Z of `energy` by two routes that should agree.

        Parameters
        ----------
        chains, temperatures, seed : int
            Of annealed importance sampling.
        """
        importance = self.log_partition()
        tilt = annealed_partition(self.law, chains=chains, temperatures=temperatures, seed=seed)
        constant = self.law.base.log_partition().value + self.z_dim * float(self.scale.log())
        return {"importance": importance, "annealed": replace(tilt, value=tilt.value + constant)}

    @torch.no_grad()
    def unit_sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw n points by the sampler."""
        return self.sampler.draw(self.law, n, generator)

    @torch.no_grad()
    def sample_by(self, sampler: LawSampler, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw n points, shape (n, d), in another way than `sample` does."""
        return self.shift + self.scale * sampler.draw(self.law, n, generator)

    # -- learning --------------------------------------------------------------------------------

    def loss(
        self, z: Tensor, weights: Tensor | None = None, generator: torch.Generator | None = None
    ) -> Tensor:
        """Loss of the negative phase. Its value is no log likelihood, of none of the ways to learn.

        Parameters
        ----------
        z : Tensor, shape (B, d)
        weights : Tensor, shape (B,), optional
        generator : torch.Generator, optional
        """
        return self.negative.loss(self.law, self.whitened(z.detach()), weights, self.penalty, generator)

    @torch.no_grad()
    def warm_start(self, z: Tensor, generator: torch.Generator | None = None) -> None:
        """Fit the base to z, set f to 0, and start the negative phase."""
        fit_base(self.law.base, self.whitened(z), generator)
        self.law.tilt.restart()
        self.negative.start(self.law, generator)

    # -- what it says of itself ------------------------------------------------------------------

    def short_run(self) -> ShortRun | None:
        """The short chains that it learns from or draws from, where it does."""
        for part in (self.sampler, getattr(self.negative, "sampler", None)):
            if isinstance(part, ShortRun):
                return part
        return None

    def faults(self) -> tuple[str, ...]:
        """What is not finite, a base that hardly overlaps, chains that stand still or draw another law."""
        return super().faults() or energy_faults(self)
