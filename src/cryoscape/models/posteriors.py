"""Approximate posteriors q(z | x)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class DiagonalGaussian:
    """Independent normal posterior.

    Parameters
    ----------
    mean : Tensor, shape (B, d)
        Mean of z.
    log_var : Tensor, shape (B, d)
        Logarithm of the variance.
    """

    mean: Tensor
    log_var: Tensor

    @property
    def stddev(self) -> Tensor:
        """Standard deviation, shape (B, d)."""
        return torch.exp(0.5 * self.log_var)

    def rsample(self, k: int = 1, generator: torch.Generator | None = None) -> Tensor:
        """Draw z = mean + sd * eps, shape (k, B, d).

        The noise is drawn on the CPU from `generator`, so that a seed gives the same numbers on every device.
        """
        noise = torch.randn(k, *self.mean.shape, generator=generator, dtype=self.mean.dtype)
        return self.mean + self.stddev * noise.to(self.mean.device)

    def log_prob(self, z: Tensor) -> Tensor:
        """Log density of z, shape (..., B, d) -> (..., B), nats."""
        square = (z - self.mean).square() * torch.exp(-self.log_var)
        return -0.5 * (square + self.log_var + math.log(2 * math.pi)).sum(-1)

    def entropy(self) -> Tensor:
        """Differential entropy, shape (B,), nats."""
        return 0.5 * (self.log_var + 1.0 + math.log(2 * math.pi)).sum(-1)
