"""Weighted points of a proposal: log Z, averages, and samples by resampling (sampling-importance-resampling).

With proposals x_i from q and w_i = p~(x_i) / q(x_i), log Z is the log of the mean weight, and points that are
drawn again in proportion to their weights follow p. The effective sample size (sum w)^2 / sum w^2 says how
many points of p itself the proposals are worth (Rubin 1988; Kong 1992).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from cryoscape.errors import InputError
from cryoscape.priors.base import LogPartition
from cryoscape.priors.samplers.bennett import log_mean_exp
from cryoscape.priors.samplers.population import comb

MOST_DRAWN = 0.1
"""Points that are drawn again from a pool of proposals, as a share of these, at most."""

Proposals = Callable[[int, torch.Generator | None], tuple[Tensor, Tensor]]
"""Draws n proposals (n, d), with their log weights (n,)."""


@dataclass(frozen=True, eq=False)
class WeightedPoints:
    """Proposals with their weights.

    Parameters
    ----------
    points : Tensor, shape (M, d)
    log_weight : Tensor, shape (M,), double
        Nats.
    """

    points: Tensor
    log_weight: Tensor

    @property
    def weight(self) -> Tensor:
        """Weights that sum to 1, shape (M,), double."""
        return self.log_weight.softmax(0)

    @property
    def share(self) -> float:
        """Effective sample size over the number of proposals."""
        return float(1.0 / self.weight.square().sum() / len(self.weight))

    def log_partition(self, method: str) -> LogPartition:
        """Log of the mean weight, with its standard error and the effective sample size."""
        value, error, ess = log_mean_exp(self.log_weight)
        return LogPartition(float(value), float(error), float(ess), method)

    def mean(self, values: Tensor) -> tuple[float, float]:
        """Weighted mean of values (M,), and its standard error (delta method)."""
        weight = self.weight
        mean = (weight * values).sum()
        return float(mean), float((weight * (values - mean)).square().sum().sqrt())

    def draw(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw n of the points, shape (n, d), by systematic resampling, in random order.

        A point of weight w comes floor(n w) or ceil(n w) times: no point twice unless it has to.

        Raises
        ------
        InputError
            If the sum of the weights is not finite, or 0.
        """
        if not bool(torch.isfinite(torch.logsumexp(self.log_weight, 0))):
            raise InputError(
                "the density of the prior is not finite where its samples are proposed",
                remedy="Fit it again, with a smaller --lr.",
            )
        start = float(torch.rand((), generator=generator, dtype=torch.float64))
        which = comb(self.log_weight, n, start)
        order = torch.randperm(n, generator=generator).to(which.device)
        return self.points[which[order].to(self.points.device)]


def weighted(proposals: Proposals, n: int, generator: torch.Generator | None = None) -> WeightedPoints:
    """Draw n proposals."""
    points, log_weight = proposals(n, generator)
    return WeightedPoints(points, log_weight.double())


def resampled(proposals: Proposals, pool: int, n: int, generator: torch.Generator | None = None) -> Tensor:
    """Draw n points, shape (n, d), from as many pools of proposals as that takes.

    Parameters
    ----------
    proposals : Proposals
    pool : int
        Proposals of a pool; no more than a tenth of them is drawn from it.
    n : int
    generator : torch.Generator, optional
    """
    most = max(1, int(MOST_DRAWN * pool))
    sizes = [most] * (n // most) + [n % most] * (n % most > 0)
    return torch.cat([weighted(proposals, pool, generator).draw(size, generator) for size in sizes])
