"""The interface of a latent prior p(z).

A prior works inside the evidence bound of any decoder (through `kl_divergence` and `loss`) and on its own,
fitted to saved embeddings (`fit`). The weight of the KL term and free bits belong to the objective.

A family defines its density in whitened units u = (z - shift) / scale; everything public is in the units of
z, with the Jacobian d log(scale) in `log_partition`. Before a fit to embeddings, shift is 0 and scale is 1.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

if TYPE_CHECKING:
    from cryoscape.priors.fitting import FitReport, Objective
    from cryoscape.priors.posterior_samples import PosteriorSamples
    from cryoscape.progress import ProgressReporter


class PosteriorLike(Protocol):
    """The part of a posterior that a prior needs; see `cryoscape.models.posteriors`."""

    @property
    def mean(self) -> Tensor:
        """Mean, shape (B, d); of a binary posterior the probabilities of 1."""
        ...

    def log_prob(self, z: Tensor) -> Tensor:
        """Log density (..., B, d) -> (..., B), nats."""
        ...

    def rsample(self, k: int = 1, generator: torch.Generator | None = None) -> Tensor:
        """Samples (k, B, d)."""
        ...

    def entropy(self) -> Tensor:
        """Entropy (B,), nats."""
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

    @classmethod
    def exact(cls, value: float = 0.0) -> LogPartition:
        """A value without error."""
        return cls(value, 0.0, math.inf, "exact")


@dataclass(frozen=True)
class FitSchedule:
    """How a family is best fitted to saved embeddings.

    Parameters
    ----------
    steps : int
        Steps of Adam after the warm start.
    batch : int
        Points a step.
    lr : float
        Learning rate, in whitened units; it falls to 0 by a cosine.
    """

    steps: int
    batch: int
    lr: float


@dataclass(frozen=True)
class PriorStates:
    """The K states that a prior is made of: components of a mixture, configurations of switches.

    Parameters
    ----------
    weight : ndarray, shape (K,)
        Their populations under the prior; sum to 1.
    mean : ndarray, shape (K, d)
        Their centres, in the units of z.
    covariance : ndarray, shape (K, d, d)
        Their shapes.
    names : tuple of str, length K
        For example "component 3" or "+-+--+".
    """

    weight: NDArray[np.float64]
    mean: NDArray[np.float64]
    covariance: NDArray[np.float64]
    names: tuple[str, ...]


@runtime_checkable
class CoupledSwitches(Protocol):
    """A prior made of m switches, or bits, that are coupled in pairs."""

    def fields_kt(self) -> Tensor:
        """Field of every switch, shape (m,), kT; positive favours on."""
        ...

    def couplings_kt(self) -> Tensor:
        """Couplings, shape (m, m), symmetric with a diagonal of 0, kT; positive favours on together."""
        ...


class LatentPrior(nn.Module, ABC):
    """Distribution of the latent variable over the population of particles.

    Parameters
    ----------
    z_dim : int
        Dimension d of z.

    Attributes
    ----------
    support : {"real", "binary"}
        Where z lives. Binary: {0, 1}^d; energies take probabilities as well.
    normalized : bool
        Whether log Z is known exactly as a function of the parameters, so that no negative phase is needed.
    whitens : bool
        Whether `fit` may set shift and scale.
    estimates_likelihood_gradient : bool
        Whether the gradient of `loss` in the parameters is that of the mean of -log p(z), if only on average.
    schedule : FitSchedule
        For `fit`.
    shift : Tensor, shape (d,)
        Origin of the whitened units.
    scale : Tensor, shape ()
        Their length in units of z.
    """

    support: Literal["real", "binary"] = "real"
    normalized: bool = True
    whitens: ClassVar[bool] = True
    estimates_likelihood_gradient: bool = True
    schedule: FitSchedule = FitSchedule(steps=1000, batch=1024, lr=2e-3)
    shift: Tensor
    scale: Tensor

    def __init__(self, z_dim: int) -> None:
        super().__init__()
        self.z_dim = z_dim
        self.register_buffer("shift", torch.zeros(z_dim))
        self.register_buffer("scale", torch.ones(()))
        self._known: tuple[tuple[Any, ...], LogPartition] | None = None

    # -- what a family defines, in whitened units ------------------------------------------------

    @abstractmethod
    def unit_energy(self, u: Tensor) -> Tensor:
        """Unnormalised -log density of whitened points, (..., d) -> (...), nats; differentiable."""

    @abstractmethod
    def unit_sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw n whitened points, shape (n, d), on the device of the prior.

        Noise is drawn on the CPU, so that a seed gives the same numbers on every device.
        """

    @abstractmethod
    def unit_log_partition(self) -> LogPartition:
        """Log of the integral (or sum) of exp(-unit_energy)."""

    # -- the density -----------------------------------------------------------------------------

    @property
    def event_shape(self) -> torch.Size:
        """Shape of one z."""
        return torch.Size([self.z_dim])

    def whitened(self, z: Tensor) -> Tensor:
        """(..., d) in units of z -> whitened units."""
        return (z - self.shift) / self.scale

    def energy(self, z: Tensor) -> Tensor:
        """Unnormalised -log p(z), shape (..., d) -> (...), nats."""
        return self.unit_energy(self.whitened(z))

    @torch.no_grad()
    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw n points, shape (n, d), without gradient."""
        return self.shift + self.scale * self.unit_sample(n, generator)

    @torch.no_grad()
    def log_partition(self) -> LogPartition:
        """Log Z of `energy` with its error; estimated anew only when a parameter has changed."""
        state = tuple((id(t), t._version) for t in (*self.parameters(), *self.buffers()))
        if self._known is None or self._known[0] != state:
            unit = self.unit_log_partition()
            jacobian = self.z_dim * math.log(float(self.scale))
            # The estimate itself may have moved chains, which are buffers.
            state = tuple((id(t), t._version) for t in (*self.parameters(), *self.buffers()))
            self._known = state, replace(unit, value=unit.value + jacobian)
        return self._known[1]

    def log_prob(self, z: Tensor | NDArray[np.floating[Any]]) -> Tensor:
        """Log density of points, also of a NumPy array of embeddings, shape (..., d) -> (...), nats."""
        z = z if isinstance(z, Tensor) else torch.as_tensor(z, dtype=self.shift.dtype)
        return -self.energy(z) - self.log_partition().value

    def score(self, z: Tensor) -> Tensor:
        """Gradient of log p with respect to z, shape (..., d)."""
        with torch.enable_grad():
            leaf = z.detach().requires_grad_()
            return -torch.autograd.grad(self.energy(leaf).sum(), leaf)[0]

    # -- learning --------------------------------------------------------------------------------

    def kl_divergence(self, q: PosteriorLike, z: Tensor | None = None) -> Tensor:
        """KL(q(z|x) || p) of every particle; where the prior is not `normalized`, less the constant log Z.

        Parameters
        ----------
        q : posterior
            Of B particles.
        z : Tensor, shape (K, B, d), optional
            Reparameterised samples of q; one is drawn where none is given.

        Returns
        -------
        Tensor, shape (B,)
            Nats: mean over the samples of log q(z|x) + E(z), plus log Z of a normalised prior.
        """
        if z is None:
            z = q.rsample(1)
        kl = (q.log_prob(z) + self.energy(z)).mean(0)
        return kl + self.log_partition().value if self.normalized else kl

    def loss(
        self, z: Tensor, weights: Tensor | None = None, generator: torch.Generator | None = None
    ) -> Tensor:
        """Scalar whose gradient in the prior's parameters is the learning signal.

        Parameters
        ----------
        z : Tensor, shape (B, d)
            Samples of posteriors; no gradient reaches them.
        weights : Tensor, shape (B,), optional
            Non-negative; they are normalised to mean 1.
        generator : torch.Generator, optional
            Of the negative phase, where there is one.

        Returns
        -------
        Tensor
            Of a normalised prior the weighted mean of -log p(z), nats; of another one a surrogate, whose
            value means nothing.
        """
        return weighted_mean(-self.log_prob(z.detach()), weights)

    def warm_start(self, z: Tensor, generator: torch.Generator | None = None) -> None:
        """Set the parameters from embeddings z (N, d), in the units of z; by default nothing is done.

        In joint training this happens once, with samples of the posteriors, when the prior takes over from
        N(0, I); in `fit` it comes first.
        """

    def warm_start_posteriors(
        self, mean: Tensor, sd: Tensor, generator: torch.Generator | None = None
    ) -> bool:
        """Set the parameters from Gaussian posteriors, where the family is made of posteriors itself.

        Parameters
        ----------
        mean, sd : Tensor, shape (N, d)
            In the units of z.
        generator : torch.Generator, optional

        Returns
        -------
        bool
            Whether it was done; False by default, and then `fit` calls `warm_start` with samples.
        """
        return False

    def deconvolve(self, mean: Tensor, sd: Tensor) -> bool:
        """Fit to Gaussian posteriors made under N(0, I), in closed form or by EM, where the family can.

        Parameters
        ----------
        mean, sd : Tensor, shape (N, d)
            In the units of z.

        Returns
        -------
        bool
            Whether it was done; False by default, and then `fit` reweights samples.
        """
        return False

    def fit(
        self,
        z: Tensor | NDArray[np.floating[Any]] | PosteriorSamples,
        objective: Objective = "aggregate",
        *,
        steps: int | None = None,
        lr: float | None = None,
        validation: float = 0.1,
        seed: int = 0,
        progress: ProgressReporter | None = None,
    ) -> FitReport:
        """Fit the prior to embeddings after the fact; see `cryoscape.priors.fitting.fit_prior`."""
        from cryoscape.priors.fitting import fit_prior

        return fit_prior(
            self, z, objective, steps=steps, lr=lr, validation=validation, seed=seed, progress=progress
        )

    # -- what it says of itself ------------------------------------------------------------------

    def states(self) -> PriorStates | None:
        """The states that the prior is made of, or None where it has none."""
        return None

    def responsibilities(self, z: Tensor) -> Tensor:
        """Probability of every state given z, shape (..., d) -> (..., K).

        Raises
        ------
        NotImplementedError
            If the prior has no states.
        """
        raise NotImplementedError(f"{type(self).__name__} has no states")

    def faults(self) -> tuple[str, ...]:
        """What is wrong with the prior as it stands, in words a user understands; empty where nothing is."""
        bad = [name for name, t in self.named_parameters() if not bool(torch.isfinite(t).all())]
        return (f"parameters of the prior are not finite: {', '.join(bad)}",) if bad else ()


def weighted_mean(values: Tensor, weights: Tensor | None) -> Tensor:
    """Mean of values (B,), with weights (B,) where given."""
    if weights is None:
        return values.mean()
    return (values * weights).sum() / weights.sum().clamp_min(1e-30)
