"""Priors that can be steered while they make their samples."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

LogPotentialGradient = Callable[[Tensor], Tensor]
"""Points (n, d) in the units of z -> gradient (n, d) of a log potential there."""


@runtime_checkable
class GuidedSampler(Protocol):
    """A prior whose own sampler takes a log potential into account.

    Diffusion does so by D~ = D + sigma^2 grad log c (Dhariwal and Nichol 2021). Such samples only come near
    p(z) c(z): whoever asks for them corrects them.
    """

    def guided_sample(
        self,
        n: int,
        log_potential_gradient: LogPotentialGradient,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Draw n points, shape (n, d), in the units of z."""
        ...


@runtime_checkable
class BlurredScore(Protocol):
    """A prior that knows the slope of a slightly blurred density far more cheaply than that of its own."""

    def blurred_score(self, z: Tensor, sigma: float) -> Tensor:
        """Gradient of log of the density blurred by sigma (units of z), shape (..., d)."""
        ...
