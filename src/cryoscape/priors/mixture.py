"""Gaussian mixture with full covariances.

p(z) = sum_k a_k N(z; mu_k, S_k): everything about it is exact. It starts from expectation-maximisation on the
embeddings and goes on by gradients of the exact likelihood, in joint training together with the encoder.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cryoscape.priors.base import FitSchedule, LatentPrior, LogPartition, PriorStates
from cryoscape.priors.deconvolution import deconvolved_estimate
from cryoscape.priors.expectation_maximisation import MixtureEstimate, improve, start_mixture
from cryoscape.priors.gaussians import FullGaussians, draw_components

_DEAD = 0.01
"""Share of the even weight 1 / K below which a component is called dead."""


class MixturePrior(LatentPrior):
    """Mixture of K Gaussians, each with a full covariance.

    Parameters
    ----------
    z_dim : int
        Dimension d of z.
    components : int
        K.
    floor : float
        Smallest standard deviation of a component in any direction, in whitened units.

    Attributes
    ----------
    logits : Parameter, shape (K,)
        The weights are their softmax.
    gaussians : FullGaussians
        Means and covariances, in whitened units.
    """

    schedule = FitSchedule(steps=500, batch=1024, lr=1e-3)

    def __init__(self, z_dim: int, components: int = 16, *, floor: float = 0.01) -> None:
        super().__init__(z_dim)
        self.logits = nn.Parameter(torch.zeros(components))
        self.gaussians = FullGaussians(components, z_dim, floor)

    @property
    def components(self) -> int:
        """Number K of components."""
        return len(self.logits)

    def _log_joint(self, u: Tensor) -> Tensor:
        """Log of a_k N(u; mu_k, S_k), (..., d) -> (..., K)."""
        return self.gaussians.log_prob(u) + self.logits.log_softmax(0)

    def unit_energy(self, u: Tensor) -> Tensor:
        """Return -log p, shape (..., d) -> (...), nats."""
        return -torch.logsumexp(self._log_joint(u), -1)

    def unit_log_partition(self) -> LogPartition:
        """Return 0: the energy is normalised."""
        return LogPartition.exact()

    @torch.no_grad()
    def unit_sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw n points: a component, then a point of it."""
        which = draw_components(self.logits.softmax(0), n, generator)
        return self.gaussians.sample(which.to(self.shift.device), generator)

    def warm_start(self, z: Tensor, generator: torch.Generator | None = None) -> None:
        """Fit by expectation-maximisation: the best of three restarts from k-means, then more rounds."""
        u, floor = self.whitened(z), self.gaussians.covariance.floor
        self._take(improve(u, start_mixture(u, self.components, floor, generator), floor))

    def deconvolve(self, mean: Tensor, sd: Tensor) -> bool:
        """Fit by extreme deconvolution, with every particle's own error; True."""
        floor = self.gaussians.covariance.floor * float(self.scale)
        generator = torch.Generator().manual_seed(0)

        def begin(z: Tensor, active: NDArray[np.bool_]) -> MixtureEstimate:
            return start_mixture(z[:, torch.as_tensor(active)], self.components, floor, generator)

        self._take(deconvolved_estimate(mean, sd, begin).whitened(self.shift, self.scale))
        return True

    @torch.no_grad()
    def _take(self, estimate: MixtureEstimate) -> None:
        self.logits.copy_(torch.as_tensor(np.log(np.maximum(estimate.weight, 1e-12))))
        self.gaussians.set(estimate.mean, estimate.covariance)

    @torch.no_grad()
    def states(self) -> PriorStates:
        """The components, in the units of z."""
        names = tuple(f"component {k + 1}" for k in range(self.components))
        mean = self.shift + self.scale * self.gaussians.means()
        covariance = self.scale**2 * self.gaussians.covariances()
        return PriorStates(
            self.logits.softmax(0).double().cpu().numpy(),
            mean.double().cpu().numpy(),
            covariance.double().cpu().numpy(),
            names,
        )

    def responsibilities(self, z: Tensor) -> Tensor:
        """Probability of every component given z, shape (..., d) -> (..., K)."""
        return self._log_joint(self.whitened(z)).softmax(-1)

    def faults(self) -> tuple[str, ...]:
        """What is not finite, components without weight, and components as narrow as the floor."""
        found = super().faults()
        if found:
            return found
        dead = int((self.logits.softmax(0) * self.components < _DEAD).sum())
        narrow = int(self.gaussians.covariance.narrow().sum())
        if dead:
            found += (f"{dead} of the {self.components} components of the mixture are dead (no weight)",)
        if narrow:
            found += (
                f"{narrow} of the {self.components} components are as narrow as the floor in some direction: "
                "the points lie on fewer dimensions than the latent space has",
            )
        return found
