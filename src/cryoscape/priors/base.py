"""The interface of a latent prior p(z).

A prior works inside the evidence bound of any decoder (through `kl_divergence` and `loss`) and on its own,
fitted to saved embeddings (`fit`). The weight of the KL term and free bits belong to the objective.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn


class PosteriorLike(Protocol):
    """The part of a posterior that a prior needs; see `cryoscape.models.posteriors`."""

    @property
    def mean(self) -> Tensor:
        """Mean, shape (B, d)."""
        ...

    def log_prob(self, z: Tensor) -> Tensor:
        """Log density (..., B, d) -> (..., B), nats."""
        ...

    def rsample(self, k: int = 1, generator: torch.Generator | None = None) -> Tensor:
        """Samples (k, B, d)."""
        ...


@dataclass(frozen=True)
class LogPartition:
    """log Z of an energy, with its error.

    Parameters
    ----------
    value : float
        Nats.
    std_err : float
        Standard error of `value`; 0 where exact.
    ess : float
        Effective sample size of the estimate; infinite where exact.
    method : str
        How it was found.
    """

    value: float
    std_err: float
    ess: float
    method: str


class LatentPrior(nn.Module, ABC):
    """Distribution of the latent variable over the population of particles.

    Attributes
    ----------
    z_dim : int
        Dimension d of z.
    support : {"real", "binary"}
        Where z lives.
    normalized : bool
        Whether log Z is known, so that no negative phase is needed.
    """

    support: Literal["real", "binary"] = "real"
    normalized: bool = True

    def __init__(self, z_dim: int) -> None:
        super().__init__()
        self.z_dim = z_dim

    @property
    def event_shape(self) -> torch.Size:
        """Shape of one z."""
        return torch.Size([self.z_dim])

    @abstractmethod
    def energy(self, z: Tensor) -> Tensor:
        """Unnormalised -log p(z), shape (..., d) -> (...), nats."""

    @abstractmethod
    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw n points, shape (n, d), without gradient."""

    @abstractmethod
    def log_partition(self) -> LogPartition:
        """Log Z of `energy` with its error."""

    def log_prob(self, z: Tensor | NDArray[np.floating[Any]]) -> Tensor:
        """Log density of points, also of a NumPy array of embeddings, shape (..., d) -> (...), nats."""
        z = z if isinstance(z, Tensor) else torch.as_tensor(z, dtype=torch.float32)
        return -self.energy(z) - self.log_partition().value

    def kl_divergence(self, q: PosteriorLike, z: Tensor | None = None) -> Tensor:
        """KL(q(z|x) || p) of every particle, up to the constant log Z where that is not known.

        Parameters
        ----------
        q : posterior
            Of B particles.
        z : Tensor, shape (K, B, d), optional
            Reparameterised samples of q; one is drawn where none is given.

        Returns
        -------
        Tensor, shape (B,)
            Nats: mean over the samples of log q(z|x) + E(z).
        """
        if z is None:
            z = q.rsample(1)
        return (q.log_prob(z) + self.energy(z)).mean(0)

    def loss(self, z: Tensor) -> Tensor:
        """Scalar whose gradient in the prior's parameters is the learning signal; z (B, d) is detached."""
        return -self.log_prob(z.detach()).mean()

    def score(self, z: Tensor) -> Tensor:
        """Gradient of log p with respect to z, shape (..., d)."""
        with torch.enable_grad():
            leaf = z.detach().requires_grad_()
            return -torch.autograd.grad(self.energy(leaf).sum(), leaf)[0]

    def warm_start(self, z: Tensor) -> None:
        """Set the parameters from embeddings z (N, d), before joint training."""
