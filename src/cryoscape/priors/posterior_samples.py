"""Posteriors of particles, as a prior is fitted to them: samples, and what they were made under."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryoscape.priors.base import CoupledSwitches
from cryoscape.priors.normal import NormalPrior

if TYPE_CHECKING:
    from cryoscape.priors.base import LatentPrior

SAMPLES = 32
"""Posterior samples a particle behind a deconvolution."""


@dataclass(frozen=True)
class PosteriorSamples:
    """Samples of N posteriors, and what they were made under.

    Parameters
    ----------
    z : Tensor, shape (K, N, d)
        K samples of every posterior; K = 1 for embeddings of which only one point is known.
    log_reference : Tensor, shape (K, N)
        log p0 of the samples, nats, p0 being the prior of the training; 0 where it is not known.
    mean, sd : Tensor, shape (N, d), optional
        Of Gaussian posteriors under p0 = N(0, I), for which deconvolution is exact.
    log_odds : Tensor, shape (N, d), optional
        Of bits: what each image says of them, the prior of the training taken out. A Boltzmann machine
        draws bits given them, so that no samples have to be reweighted.
    """

    z: Tensor
    log_reference: Tensor
    mean: Tensor | None = None
    sd: Tensor | None = None
    log_odds: Tensor | None = None

    def __len__(self) -> int:
        return self.z.shape[1]

    @classmethod
    def of_points(cls, z: Tensor | NDArray[np.floating[Any]]) -> PosteriorSamples:
        """Embeddings z (N, d) of which nothing but the points is known."""
        points = torch.as_tensor(np.asarray(z) if not isinstance(z, Tensor) else z, dtype=torch.float32)
        return cls(points[None], torch.zeros(1, len(points)))

    @classmethod
    def of_gaussians(
        cls,
        mean: Tensor,
        sd: Tensor,
        reference: LatentPrior | None = None,
        samples: int = SAMPLES,
        seed: int = 0,
    ) -> PosteriorSamples:
        """Diagonal Gaussian posteriors.

        Parameters
        ----------
        mean, sd : Tensor, shape (N, d)
        reference : LatentPrior, optional
            p0; N(0, I) by default.
        samples : int
            K.
        seed : int
            Of the samples.
        """
        noise = torch.randn(samples, *mean.shape, generator=torch.Generator().manual_seed(seed))
        z = mean + sd * noise
        normal = reference is None or isinstance(reference, NormalPrior)
        prior = NormalPrior(mean.shape[1]) if reference is None else reference
        with torch.no_grad():
            log_reference = torch.stack([prior.log_prob(part) for part in z])
        return cls(z, log_reference, mean if normal else None, sd if normal else None)

    @classmethod
    def of_probabilities(
        cls, probability: Tensor, reference: LatentPrior, samples: int = SAMPLES, seed: int = 0
    ) -> PosteriorSamples:
        """Factorised Bernoulli posteriors with probabilities (N, d) of 1, under a binary prior."""
        generator = torch.Generator().manual_seed(seed)
        uniform = torch.rand(samples, *probability.shape, generator=generator)
        z = (uniform < probability).float()
        with torch.no_grad():
            # log Z of the reference is the same for all samples and falls out of the weights.
            log_reference = torch.stack([-reference.energy(part) for part in z])
            return cls(z, log_reference, log_odds=_image_log_odds(probability, reference))

    def rows(self, index: Tensor) -> PosteriorSamples:
        """Some of the particles."""
        mean, sd, log_odds = (None if t is None else t[index] for t in (self.mean, self.sd, self.log_odds))
        return PosteriorSamples(self.z[:, index], self.log_reference[:, index], mean, sd, log_odds)

    def first(self, samples: int) -> PosteriorSamples:
        """The first few samples of every particle."""
        return replace(self, z=self.z[:samples], log_reference=self.log_reference[:samples])

    def points(self, limit: int, seed: int = 0) -> Tensor:
        """Up to `limit` samples, of as many particles as that allows, shape (n, d)."""
        flat = self.z.flatten(0, 1)
        if len(flat) <= limit:
            return flat
        return flat[torch.randperm(len(flat), generator=torch.Generator().manual_seed(seed))[:limit]]


def _image_log_odds(probability: Tensor, reference: LatentPrior) -> Tensor | None:
    """Log odds that images alone give to bits, from factorised posteriors under a pairwise machine.

    The best factorised posterior has logit p_i = l_i + a_i + sum_j W_ij p_j (mean field); exact for
    independent bits. None where the reference is no machine of the bits alone.
    """
    if not isinstance(reference, CoupledSwitches) or len(reference.fields_kt()) != probability.shape[1]:
        return None
    p = probability.clamp(1e-6, 1 - 1e-6)
    return torch.logit(p) - reference.fields_kt() - p @ reference.couplings_kt()
