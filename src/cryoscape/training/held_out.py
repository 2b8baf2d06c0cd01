"""The evidence bound of particles that are not trained on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from cryoscape.data.images import ImageBatch
from cryoscape.models.image_model import ImageModel
from cryoscape.priors.base import LatentPrior
from cryoscape.training.sampling import step_generator

WATCHED = 1024
"""Particles that are looked at during a run, at most."""


@dataclass(frozen=True)
class HeldOutBound:
    """Means over particles, nats.

    Attributes
    ----------
    elbo, kl : float
        With log Z where the prior is not normalised.
    log_z_err : float or None
        Standard error of that log Z, which both share; None where it is exact.
    """

    elbo: float
    kl: float
    log_z_err: float | None


@torch.no_grad()
def held_out_bound(
    model: ImageModel, prior: LatentPrior, batches: Iterable[tuple[ImageBatch, Tensor]], seed: int
) -> HeldOutBound:
    """Mean evidence bound, each particle with one posterior sample.

    Parameters
    ----------
    model, prior
        The parts.
    batches : iterable of (ImageBatch, Tensor)
        Images and their encoder input.
    seed : int
        Of the samples.
    """
    partition = None if prior.normalized else prior.log_partition()
    likelihood = kl = 0.0
    count = 0
    for batch, features in batches:
        q = model.posterior(features).float()
        z = q.sample(1, step_generator(seed, -1))
        likelihood += float(model.log_likelihood(z[0], batch).sum())
        kl += float(prior.kl_divergence(q, z).sum())
        count += len(batch.rows)
    kl /= max(count, 1)
    error = None
    if partition is not None:
        kl += partition.value
        error = partition.std_err if partition.std_err > 0 else None
    return HeldOutBound(likelihood / max(count, 1) - kl, kl, error)
