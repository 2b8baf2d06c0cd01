"""What held-out particles say of a prior: their density, their evidence, and their posteriors under it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

    from cryoscape.priors.base import LatentPrior
    from cryoscape.priors.fitting import Objective
    from cryoscape.priors.posterior_samples import PosteriorSamples

_CHUNK = 20_000


def particle_density(
    prior: LatentPrior, samples: PosteriorSamples, objective: Objective
) -> NDArray[np.float64]:
    """Log density of every particle, shape (N,), nats.

    Aggregate: mean over its samples of log p(z), or log p of one of them where a density takes long.
    Deconvolved: log of the mean of p(z) / p0(z), which is the
    evidence of its image over that under p0.

    Parameters
    ----------
    prior : LatentPrior
    samples : PosteriorSamples
        Of N particles.
    objective : {"aggregate", "deconvolved"}
    """
    import torch

    from cryoscape.priors.fitting import CostlyDensity

    if objective == "aggregate" and isinstance(prior, CostlyDensity):
        samples = samples.first(1)
    log_p = _log_density(prior, samples) - prior.log_partition().value
    if objective == "aggregate":
        return log_p.mean(0).numpy()
    return (torch.logsumexp(log_p - samples.log_reference, 0) - math.log(len(log_p))).numpy()


def evidence_bias(prior: LatentPrior, samples: PosteriorSamples) -> float:
    """By how much the evidence of few samples is too low, nats, mean over the particles.

    The log of a mean of K weights is below that of their expectation by half of their relative variance over
    K, to first order: (sum_k w^2 - 1 / K) / 2 with weights that sum to 1. Where single samples have all the
    weight, it is more than that.
    """
    weight = _weights(prior, samples)
    return float(0.5 * (weight.square().sum(0) - 1 / len(weight)).mean())


def reweighted_points(prior: LatentPrior, samples: PosteriorSamples, seed: int) -> NDArray[np.float64]:
    """One point a particle, shape (N, d), from its posterior under another prior.

    Drawn among its samples by their weights p(z) / p0(z). Their law over the particles is p where p is right.

    Parameters
    ----------
    prior : LatentPrior
        p.
    samples : PosteriorSamples
        Of N particles, made under p0.
    seed : int
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    which = torch.multinomial(_weights(prior, samples).T, 1, generator=generator)[:, 0]
    return samples.z[which, torch.arange(len(samples))].double().numpy()


def _weights(prior: LatentPrior, samples: PosteriorSamples) -> torch.Tensor:
    """Weights of all samples, shape (K, N); those of a particle sum to 1."""
    import torch

    return torch.softmax(_log_density(prior, samples) - samples.log_reference, 0)


def _log_density(prior: LatentPrior, samples: PosteriorSamples) -> torch.Tensor:
    """Unnormalised log density of all samples, shape (K, N), in double precision."""
    import torch

    with torch.no_grad():
        parts = samples.z.flatten(0, 1).split(_CHUNK)
        return -torch.cat([prior.energy(part).cpu().double() for part in parts]).view(samples.z.shape[:2])
