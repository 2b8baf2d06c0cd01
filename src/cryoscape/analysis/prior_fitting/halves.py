"""The two halves of an embedding: one for priors to be fitted to, one for them to be judged on.

For the aggregate objective the data are samples of the posteriors, one a particle (or the points, where those
are all that is known).

For the deconvolved one no data of the fitted law exist. Where it is known how a particle is measured, samples
of a prior are measured as the held-out particles were, and compared with the embeddings of those. Otherwise
a prior p is compared with samples of the held-out posteriors under p itself, whose law is p where p is right.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cryoscape.analysis.prior_fitting.embeddings import EmbeddingSource, Support
from cryoscape.analysis.prior_fitting.evidence import reweighted_points
from cryoscape.errors import InputError

if TYPE_CHECKING:
    from cryoscape.priors.base import LatentPrior
    from cryoscape.priors.fitting import Objective
    from cryoscape.priors.posterior_samples import PosteriorSamples

WEIGHTS = 256
"""Posterior samples a particle behind an evidence, which of few samples is too low."""

_WEIGHED = 4000
_LEAST = 200
_IDLE = 0.95  # posterior variance, in units of the prior's, above which images say nothing of a direction


@dataclass(frozen=True, eq=False)
class Halves:
    """The halves, and how they are looked at.

    Attributes
    ----------
    train, held_out : EmbeddingSource
    objective : {"aggregate", "deconvolved"}
    support : {"real", "binary"}
        Of the priors.
    seed : int
    """

    train: EmbeddingSource
    held_out: EmbeddingSource
    objective: Objective
    support: Support
    seed: int

    @property
    def reweighted(self) -> bool:
        """Whether posteriors under each prior stand for data, for want of data of the fitted law."""
        return self.objective == "deconvolved" and not self.train.measures

    @cached_property
    def measured(self) -> NDArray[np.bool_]:
        """Directions of which images say something, shape (d,); where there is none, the one most is said of.

        Encoders give the others means that hardly differ, of which any law is far away.
        """
        if self.train.z_sd is None:
            return np.ones(self.train.z_dim, dtype=bool)
        variance = np.median(self.train.z_sd**2, axis=0)
        return (variance < _IDLE) | (variance == variance.min())

    @cached_property
    def weighed(self) -> PosteriorSamples:
        """Samples of held-out posteriors that densities and evidences are means over."""
        if self.objective == "aggregate":
            return self.held_out.posterior_samples("aggregate", self.support, self._noise(self.held_out))
        return self._many(self.held_out)

    def data(self, part: EmbeddingSource, prior: LatentPrior) -> NDArray[np.float64]:
        """What samples of a prior are compared with, shape (n, d)."""
        if self.reweighted:
            samples = self.weighed if part is self.held_out else self._many(part)
            return reweighted_points(prior, samples, self.seed)
        if self.objective == "deconvolved":
            return part.z[:, self.measured]
        return part.posterior_samples("aggregate", self.support, self._noise(part)).z[0].double().numpy()

    def drawn(self, prior: LatentPrior, n: int) -> NDArray[np.float64]:
        """Samples of a prior, measured like the held-out particles where the data are, shape (n, d)."""
        import torch

        points = prior.sample(n, torch.Generator().manual_seed(self.seed + 2)).double().cpu().numpy()
        if self.objective == "aggregate" or self.reweighted:
            return points
        particles = self.held_out.rows(np.arange(n) % len(self.held_out))
        return particles.measured(points, self.seed + 3)[:, self.measured]

    def _many(self, part: EmbeddingSource) -> PosteriorSamples:
        few = part.rows(np.arange(min(len(part), _WEIGHED)))
        return few.posterior_samples("deconvolved", self.support, self._noise(part), WEIGHTS)

    def _noise(self, part: EmbeddingSource) -> int:
        """Seed of the samples; with one for both, the halves would be more alike than data are."""
        return self.seed + (1 if part is self.held_out else 4)


def split(source: EmbeddingSource, settings: Sequence[Any], objective: Objective, seed: int) -> Halves:
    """Split an embedding at random.

    Parameters
    ----------
    source : EmbeddingSource
    settings : sequence of PriorConfig
        Of the priors that are to be fitted.
    objective : {"aggregate", "deconvolved"}
    seed : int

    Returns
    -------
    Halves

    Raises
    ------
    InputError
        If the priors are not of one support or do not suit the embedding, or there are too few particles.
    """
    import torch

    supports = {each.support for each in settings}
    if len(supports) != 1:
        raise InputError(
            "priors of bits and priors of real numbers cannot be compared", remedy="Give --kinds of one sort."
        )
    for each in settings:
        source.need_support(each.support, each.kind)
    if len(source) < _LEAST:
        raise InputError(
            f"halves of {len(source)} particles tell no prior from another",
            file=source.path,
            remedy=f"Give at least {_LEAST} particles, better thousands.",
        )
    order = torch.randperm(len(source), generator=torch.Generator().manual_seed(seed)).numpy()
    half = len(source) // 2
    return Halves(source.rows(order[:half]), source.rows(order[half:]), objective, supports.pop(), seed)
