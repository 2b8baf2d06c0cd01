"""Mixture of the posteriors of exemplar particles (VampPrior with real data: Tomczak and Welling 2018).

    p(z) = sum_k w_k q(z | u_k),      u_k particles of the data set

is the aggregate posterior of a few particles, and the best prior of an encoder is the aggregate posterior of
all. In joint training the exemplars are encoded anew in every step and gradients reach the encoder through
them; afterwards the prior keeps the posteriors it saw last and stands alone.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from cryoscape.priors.base import FitSchedule, LatentPrior, LogPartition, PriorStates, weighted_mean
from cryoscape.priors.exemplars import choose_exemplars, exemplar_log_prob, shared_width, weights_of
from cryoscape.priors.gaussians import draw_components, normal_noise

_WIDTH_POINTS = 10_000
_WEIGHT_POINTS = 20_000


class VampPrior(LatentPrior):
    """Mixture of K diagonal Gaussian posteriors with learned weights.

    Parameters
    ----------
    z_dim : int
        Dimension d of z.
    exemplars : int
        K.

    Attributes
    ----------
    rows : Tensor, shape (K,), int64
        Particles whose posteriors these are; -1 where they are of no known particle.
    mean, log_var : Tensor, shape (K, d)
        The posteriors as they were last placed, in whitened units. N(0, I) at first.
    logits : Parameter, shape (K,)
        The weights are their softmax.
    """

    schedule = FitSchedule(steps=300, batch=1024, lr=5e-3)
    rows: Tensor
    mean: Tensor
    log_var: Tensor

    def __init__(self, z_dim: int, exemplars: int = 128) -> None:
        super().__init__(z_dim)
        self.register_buffer("rows", torch.full((exemplars,), -1))
        self.register_buffer("mean", torch.zeros(exemplars, z_dim))
        self.register_buffer("log_var", torch.zeros(exemplars, z_dim))
        self.logits = nn.Parameter(torch.zeros(exemplars))
        self._placed: tuple[Tensor, Tensor] | None = None

    @property
    def exemplars(self) -> int:
        """Number K of exemplars."""
        return len(self.logits)

    # -- the exemplars ---------------------------------------------------------------------------

    def choose(self, rows: Tensor, mean: Tensor, log_var: Tensor) -> None:
        """Take other particles as exemplars, with equal weights.

        Parameters
        ----------
        rows : Tensor, shape (n,), int64
            K of them; where there are fewer, they are taken more than once.
        mean, log_var : Tensor, shape (n, d)
            Their posteriors, in the units of z.
        """
        again = torch.arange(self.exemplars, device=rows.device) % len(rows)
        with torch.no_grad():
            self.rows.copy_(rows[again])
            self.logits.zero_()
            self.place(mean[again.to(mean.device)], log_var[again.to(mean.device)])
        self._placed = None

    def place(self, mean: Tensor, log_var: Tensor) -> None:
        """Tell the posteriors of the exemplars as the encoder has them now.

        Until the next call `energy` is differentiable in them, and with them `kl_divergence`; `loss` is not.

        Parameters
        ----------
        mean, log_var : Tensor, shape (K, d)
            In the units of z.
        """
        placed = (mean - self.shift) / self.scale, log_var - 2 * self.scale.log()
        with torch.no_grad():
            self.mean.copy_(placed[0])
            self.log_var.copy_(placed[1])
        self._placed = placed

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the tensors with a history, so that the prior can be copied."""
        return {**self.__dict__, "_placed": None}

    def _apply(self, fn: Any, recurse: bool = True) -> VampPrior:
        self._placed = None
        return super()._apply(fn, recurse)

    def _load_from_state_dict(self, *arguments: Any, **named: Any) -> None:
        self._placed = None
        super()._load_from_state_dict(*arguments, **named)

    # -- the density -----------------------------------------------------------------------------

    def _log_joint(self, u: Tensor, mean: Tensor, log_var: Tensor) -> Tensor:
        """Log of w_k q(u | u_k), (..., d) -> (..., K)."""
        return exemplar_log_prob(u, mean, log_var) + self.logits.log_softmax(0)

    def unit_energy(self, u: Tensor) -> Tensor:
        """Return -log p, shape (..., d) -> (...), nats."""
        return -torch.logsumexp(self._log_joint(u, *(self._placed or (self.mean, self.log_var))), -1)

    def unit_log_partition(self) -> LogPartition:
        """Return 0: the energy is normalised."""
        return LogPartition.exact()

    @torch.no_grad()
    def unit_sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw n points: an exemplar, then a point of its posterior."""
        which = draw_components(self.logits.softmax(0), n, generator).to(self.shift.device)
        noise = torch.randn(n, self.z_dim, generator=generator, dtype=self.shift.dtype).to(self.shift.device)
        return self.mean[which] + torch.exp(0.5 * self.log_var[which]) * noise

    # -- learning --------------------------------------------------------------------------------

    def loss(
        self, z: Tensor, weights: Tensor | None = None, generator: torch.Generator | None = None
    ) -> Tensor:
        """Weighted mean of -log p(z), nats, with a gradient in the weights of the exemplars only."""
        joint = self._log_joint(self.whitened(z.detach()), self.mean, self.log_var)
        return weighted_mean(-torch.logsumexp(joint, -1), weights) + self.log_partition().value

    @torch.no_grad()
    def warm_start(self, z: Tensor, generator: torch.Generator | None = None) -> None:
        """Choose exemplars among bare points, with the one width at which other points are likeliest."""
        u = self.whitened(z)
        u = u[torch.randperm(len(u), generator=generator).to(u.device)]
        chosen = choose_exemplars(u, self.exemplars, generator).to(u.device)
        others = torch.ones(len(u), dtype=torch.bool, device=u.device)
        others[chosen] = False
        rest = u[others] if bool(others.sum() >= 2) else u
        half = min(len(rest) // 2, _WIDTH_POINTS)
        sd = shared_width(u[chosen], rest[:half], rest[half : 2 * half])
        self._settle(u[chosen], torch.full_like(u[chosen], 2 * math.log(sd)), rest)

    @torch.no_grad()
    def warm_start_posteriors(
        self, mean: Tensor, sd: Tensor, generator: torch.Generator | None = None
    ) -> bool:
        """Choose exemplars among Gaussian posteriors (N, d), each with its own width; True."""
        noise = normal_noise(mean, generator)
        u = self.whitened(mean + sd * noise)
        chosen = choose_exemplars(self.whitened(mean), self.exemplars, generator).to(mean.device)
        others = torch.ones(len(u), dtype=torch.bool, device=u.device)
        others[chosen] = False
        log_var = 2 * (sd[chosen] / self.scale).log()
        self._settle(self.whitened(mean[chosen]), log_var, u[others] if bool(others.any()) else u)
        return True

    def _settle(self, mean: Tensor, log_var: Tensor, points: Tensor) -> None:
        """Take exemplars in whitened units, of no known rows, and weights by expectation-maximisation."""
        self._placed = None
        self.rows.fill_(-1)
        self.mean.copy_(mean)
        self.log_var.copy_(log_var)
        some = points[:_WEIGHT_POINTS].to(self.mean)
        self.logits.copy_(weights_of(exemplar_log_prob(some, self.mean, self.log_var)))

    # -- what it says of itself ------------------------------------------------------------------

    @torch.no_grad()
    def states(self) -> PriorStates:
        """The exemplars, in the units of z, named by the particles' rows from 1 where these are known."""
        names = tuple(
            f"particle {row + 1}" if row >= 0 else f"exemplar {k + 1}"
            for k, row in enumerate(self.rows.tolist())
        )
        variance = self.scale**2 * self.log_var.exp()
        return PriorStates(
            self.logits.softmax(0).double().cpu().numpy(),
            (self.shift + self.scale * self.mean).double().cpu().numpy(),
            torch.diag_embed(variance).double().cpu().numpy(),
            names,
        )

    def responsibilities(self, z: Tensor) -> Tensor:
        """Probability of every exemplar given z, shape (..., d) -> (..., K)."""
        return self._log_joint(self.whitened(z), self.mean, self.log_var).softmax(-1)

    def faults(self) -> tuple[str, ...]:
        """What is not finite, and weights that rest on a single exemplar."""
        found = super().faults()
        if not bool(torch.isfinite(self.mean).all() and torch.isfinite(self.log_var).all()):
            found += ("posteriors of the exemplars are not finite",)
        if not found and self.exemplars > 1 and float(self.logits.softmax(0).max()) > 0.99:
            found += ("one exemplar has all the weight",)
        return found
