"""The standard normal prior."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from cryoscape.priors.base import FitSchedule, LatentPrior, LogPartition, PosteriorLike


class NormalPrior(LatentPrior):
    """p(z) = N(0, I): no parameters, closed-form KL with a diagonal Gaussian posterior."""

    whitens = False
    schedule = FitSchedule(steps=0, batch=1024, lr=0.0)

    def unit_energy(self, u: Tensor) -> Tensor:
        """Return |z|^2 / 2, shape (..., d) -> (...), nats."""
        return 0.5 * u.square().sum(-1)

    def unit_log_partition(self) -> LogPartition:
        """Return (d / 2) log 2 pi, exactly."""
        return LogPartition.exact(0.5 * self.z_dim * math.log(2 * math.pi))

    def unit_sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw n standard normal points, shape (n, d)."""
        return torch.randn(n, self.z_dim, generator=generator, dtype=self.shift.dtype).to(self.shift.device)

    def kl_divergence(self, q: PosteriorLike, z: Tensor | None = None) -> Tensor:
        """KL of every particle, shape (B,): closed form where q has a `log_var`, sampled otherwise.

        1/2 sum_j (mu_j^2 + s_j^2 - 1 - log s_j^2); Kingma and Welling 2014, appendix B.
        """
        log_var = getattr(q, "log_var", None)
        if log_var is None:
            return super().kl_divergence(q, z)
        return 0.5 * (q.mean.square() + log_var.exp() - 1.0 - log_var).sum(-1)
