"""Energies on a ladder of noise levels, each learned as the way back over one blur (LSD-EBM).

With y_t = sqrt(1 - s_(t+1)^2) u_t, the data below a blur, and u_(t+1) = y_t + s_(t+1) noise above it,

    p(y_t | u_(t+1)) proportional to exp(F(y_t, t) - |y_t - u_(t+1)|^2 / 2 s_(t+1)^2).

This law is narrow and has nearly one mode, so that short chains follow it, and F is learned from pairs
without chains that would have to cross between states (recovery likelihood: Gao et al. 2021; on latent
variables: Wang et al. 2024). F = log b_t + f: f says how the data at a level differ from a base, a fitted
mixture blurred to that level, or N(0, I). Chains start from the way back under the base alone, which is known
exactly.

There are two models in it, equal only where all levels are learned perfectly. Samples come down the ladder
from N(0, I), level by level. The density is that of the lowest level alone, exp F(., 0), which by the best
learning is the density of the data. But the lowest level is learned from pairs that are one small blur apart:
how much likelier one state is than another far away, and anything off the data, it only has from its base.
"""

from __future__ import annotations

from typing import Literal, Self

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from cryoscape.priors.base import FitSchedule, LatentPrior, LogPartition, weighted_mean
from cryoscape.priors.energies.bases import fit_base
from cryoscape.priors.energies.blurred import BlurredMixture
from cryoscape.priors.energies.drawing import PROPOSALS
from cryoscape.priors.energies.faults import recovery_faults
from cryoscape.priors.energies.ladder import NoiseLadder
from cryoscape.priors.energies.resampling import WeightedPoints, resampled, weighted
from cryoscape.priors.energies.tilt import PART, Tilt, drawn_in_parts
from cryoscape.priors.langevin import BEST_ACCEPTANCE, Chains, metropolis_langevin, tuned
from cryoscape.priors.mixture import MixturePrior

FIRST_STEP, LONGEST_STEP = 0.7, 1.5
"""Noise of a Langevin step over that of the blur, at first and at most."""

_MEMORY = 0.05


class RecoveryPrior(LatentPrior):
    """Energies of T noise levels, learned by recovery likelihood.

    Parameters
    ----------
    z_dim : int
        Dimension d of z.
    levels : int
        T.
    hidden : tuple of int
        Widths of the network f, one for all levels.
    steps : int
        Langevin steps over one blur, accepted or not by Metropolis, in learning and in sampling; they start
        from an exact draw under the base.
    base : {"mixture", "normal"}
        What f corrects. N(0, I) as published; its lowest level knows nothing of what is far apart.
    components : int
        Gaussians of the mixture, which is also what log Z is estimated from.
    sampling : {"ladder", "resampling"}
        How `sample` draws: down the ladder, or from the density of the lowest level by resampling points of
        the mixture.
    penalty : float
        Weight of the mean of f^2 in the loss.
    proposals : int
        Points of the mixture behind log Z and resampling.

    Attributes
    ----------
    tilt : Tilt
        f, of a whitened point and its level.
    ladder : NoiseLadder
    proposal : MixturePrior
        Fitted in the warm start; never learned.
    step : Tensor, shape (T,)
        Noise of a Langevin step over the noise of the blur, of every level; it follows the acceptance.
    acceptance : Tensor, shape (T,)
        Share of the Langevin steps that is accepted in learning; running mean of about 20 steps.
    estimates_likelihood_gradient : bool
        False: the likelihood is that of the ways back, not of the marginal density.
    """

    normalized = False
    schedule = FitSchedule(steps=2000, batch=256, lr=2e-3)
    estimates_likelihood_gradient = False
    acceptance: Tensor
    step: Tensor

    def __init__(
        self,
        z_dim: int,
        *,
        levels: int = 6,
        hidden: tuple[int, ...] = (128, 128),
        steps: int = 10,
        base: Literal["mixture", "normal"] = "mixture",
        components: int = 16,
        sampling: Literal["ladder", "resampling"] = "ladder",
        penalty: float = 1e-4,
        proposals: int = PROPOSALS,
    ) -> None:
        super().__init__(z_dim)
        self.ladder = NoiseLadder(levels)
        self.tilt = Tilt(z_dim + levels, hidden)
        self.proposal = MixturePrior(z_dim, components)
        self.proposal.requires_grad_(False)
        self.steps, self.base, self.sampling = steps, base, sampling
        self.penalty, self.proposals = penalty, proposals
        self.register_buffer("acceptance", torch.full((levels,), BEST_ACCEPTANCE))
        self.register_buffer("step", torch.full((levels,), FIRST_STEP))

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Whether the network is learned; the mixture never is."""
        super().requires_grad_(requires_grad)
        self.proposal.requires_grad_(False)
        return self

    # -- the energies of the levels --------------------------------------------------------------

    def blurred_base(self) -> BlurredMixture:
        """The base at every level."""
        if self.base == "mixture":
            weight = self.proposal.logits.log_softmax(0)
            gaussians = self.proposal.gaussians
            return BlurredMixture(weight, gaussians.means(), gaussians.covariances(), self.ladder)
        eye = torch.eye(self.z_dim, dtype=self.shift.dtype, device=self.shift.device)
        return BlurredMixture(
            self.shift.new_zeros(1), self.shift.new_zeros(1, self.z_dim), eye[None], self.ladder
        )

    def level_tilt(self, y: Tensor, level: Tensor | int) -> Tensor:
        """F at shrunk points y (..., d), of one level or of levels (...), int64: shape (...), nats."""
        levels = torch.as_tensor(level, device=y.device).expand(y.shape[:-1])
        code = one_hot(levels, len(self.ladder)).to(y)
        # All levels have about unit variance for the network when the shrinking is undone.
        return self.tilt(torch.cat([y / self.ladder.shrink[levels][..., None], code], -1))

    def _recover(self, above: Tensor, level: Tensor | int, generator: torch.Generator | None) -> Chains:
        """Draw y_t given u_(t+1) by short chains from where the base alone would put it, (n, d) -> (n, d)."""
        base, sd = self.blurred_base(), self.ladder.sd[level].reshape(-1, 1)
        step = self.step[level].reshape(-1, 1) * sd

        def log_density(y: Tensor) -> Tensor:
            blur = 0.5 * ((y - above) / sd).square().sum(-1)
            return base.log_prob(y, level) + self.level_tilt(y, level) - blur

        start = base.draw_back(above, level, generator)
        return metropolis_langevin(log_density, start, step=step, steps=self.steps, generator=generator)

    # -- the density of the lowest level ---------------------------------------------------------

    def unit_energy(self, u: Tensor) -> Tensor:
        """Return -F of the lowest level, shape (..., d) -> (...), nats."""
        y = self.ladder.shrink[0] * u
        return -self.blurred_base().log_prob(y, 0) - self.level_tilt(y, 0)

    @torch.no_grad()
    def proposed(self, n: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Whitened points of the mixture (n, d), and the log of density over theirs (n,), double."""
        points = drawn_in_parts(self.proposal, n, generator)
        parts = [self.proposal.energy(part) - self.unit_energy(part) for part in points.split(PART)]
        return points, torch.cat(parts).double()

    def pool(self, generator: torch.Generator | None = None) -> WeightedPoints:
        """Points of the mixture with their weights."""
        return weighted(self.proposed, self.proposals, generator)

    def unit_log_partition(self) -> LogPartition:
        """Log Z of the lowest level, by importance from the mixture."""
        return self.pool(torch.Generator().manual_seed(0)).log_partition("importance")

    @torch.no_grad()
    def unit_sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw n points, down the ladder or by resampling."""
        if self.sampling == "resampling":
            return resampled(self.proposed, self.proposals, n, generator)
        return self.descend(n, generator)

    @torch.no_grad()
    def descend(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw n whitened points down the ladder, from N(0, I) at its top."""
        u = torch.randn(n, self.z_dim, generator=generator, dtype=self.shift.dtype).to(self.shift.device)
        for t in reversed(range(len(self.ladder))):
            u = self._recover(u, t, generator).points / self.ladder.shrink[t]
        return u

    # -- learning --------------------------------------------------------------------------------

    def loss(
        self, z: Tensor, weights: Tensor | None = None, generator: torch.Generator | None = None
    ) -> Tensor:
        """Surrogate of the recovery likelihood, every point at a level drawn at random.

        Parameters
        ----------
        z : Tensor, shape (B, d)
        weights : Tensor, shape (B,), optional
        generator : torch.Generator, optional
        """
        u = self.whitened(z.detach())
        level = torch.randint(len(self.ladder), (len(u),), generator=generator).to(u.device)
        below, above = self.ladder.climb(u, level, generator)
        run = self._recover(above, level, generator)
        self._follow(run, level)
        seen, model = self.level_tilt(below, level), self.level_tilt(run.points, level)
        squares = weighted_mean(seen.square() + model.square(), weights)
        return weighted_mean(model - seen, weights) + 0.5 * self.penalty * squares

    @torch.no_grad()
    def _follow(self, run: Chains, level: Tensor) -> None:
        """Let the steps of every level follow what was accepted there."""
        for t in level.unique().tolist():
            accepted = float(run.accepted[level == t].mean())
            self.acceptance[t] += _MEMORY * (accepted - self.acceptance[t])
            self.step[t] = min(tuned(float(self.step[t]), accepted), LONGEST_STEP)

    @torch.no_grad()
    def warm_start(self, z: Tensor, generator: torch.Generator | None = None) -> None:
        """Fit the mixture, and set f to 0."""
        fit_base(self.proposal, self.whitened(z), generator)
        self.tilt.restart()
        self.acceptance.fill_(BEST_ACCEPTANCE)
        self.step.fill_(FIRST_STEP)

    def faults(self) -> tuple[str, ...]:
        """What is not finite, a mixture that hardly overlaps, chains at rest, a ladder that misses."""
        return super().faults() or recovery_faults(self)
