"""Approximate posteriors q(z | x): normal for real latents, Bernoulli for bits."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Protocol, Self

import torch
from torch import Tensor
from torch.nn import functional

from cryoscape.models.relaxations import Exponential, Relaxation


class Posterior(Protocol):
    """What encoders give, and objectives and priors take: q(z | x) of B particles, factorised over d latents.

    The tensors that define one, its *leaves*, can be taken out and put back, so that whatever optimises a
    posterior directly does not have to know its family.
    """

    @property
    def mean(self) -> Tensor:
        """Mean of z, shape (B, d); of bits the probability of 1."""
        ...

    @property
    def stddev(self) -> Tensor:
        """Standard deviation of z, shape (B, d)."""
        ...

    def rsample(self, k: int = 1, generator: torch.Generator | None = None) -> Tensor:
        """Draw z with a gradient in the leaves, shape (k, B, d); of bits their relaxation.

        The noise is drawn on the CPU from `generator`, so that a seed gives the same numbers on every device.
        """
        ...

    def sample(self, k: int = 1, generator: torch.Generator | None = None) -> Tensor:
        """Draw z without gradient, shape (k, B, d); bits are 0 or 1."""
        ...

    def log_prob(self, z: Tensor) -> Tensor:
        """Log density of z, or log probability of bits, shape (..., B, d) -> (..., B), nats."""
        ...

    def entropy(self) -> Tensor:
        """Differential entropy, or entropy of bits, shape (B,), nats."""
        ...

    def leaves(self) -> tuple[Tensor, ...]:
        """Unconstrained tensors (B, d) that define the posterior."""
        ...

    def with_leaves(self, *leaves: Tensor) -> Self:
        """Another posterior of the same family with these leaves."""
        ...

    def float(self) -> Self:
        """The same in single precision."""
        ...

    def detach(self) -> Self:
        """The same, cut off from the graph."""
        ...


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

    @torch.no_grad()
    def sample(self, k: int = 1, generator: torch.Generator | None = None) -> Tensor:
        """The same numbers as `rsample`, without gradient, shape (k, B, d)."""
        return self.rsample(k, generator)

    def log_prob(self, z: Tensor) -> Tensor:
        """Log density of z, shape (..., B, d) -> (..., B), nats."""
        square = (z - self.mean).square() * torch.exp(-self.log_var)
        return -0.5 * (square + self.log_var + math.log(2 * math.pi)).sum(-1)

    def entropy(self) -> Tensor:
        """Differential entropy, shape (B,), nats."""
        return 0.5 * (self.log_var + 1.0 + math.log(2 * math.pi)).sum(-1)

    def leaves(self) -> tuple[Tensor, ...]:
        """Mean and log-variance."""
        return self.mean, self.log_var

    def with_leaves(self, *leaves: Tensor) -> Self:
        """Another one with this mean and this log-variance."""
        mean, log_var = leaves
        return replace(self, mean=mean, log_var=log_var)

    def float(self) -> Self:
        """The same in single precision."""
        return self.with_leaves(*(leaf.float() for leaf in self.leaves()))

    def detach(self) -> Self:
        """The same, cut off from the graph."""
        return self.with_leaves(*(leaf.detach() for leaf in self.leaves()))


@dataclass(frozen=True)
class Bernoulli:
    """Independent bits.

    The KL divergence to a Boltzmann machine needs only `mean` and `entropy`, because E_q[E(b)] = E(mean) for
    a pairwise energy; the decoder gets relaxed bits, through which there is a gradient.

    Parameters
    ----------
    logits : Tensor, shape (B, n)
        Log odds of 1.
    relaxation : Relaxation
        Of the bits that the decoder sees.
    """

    logits: Tensor
    relaxation: Relaxation = field(default_factory=Exponential)

    @property
    def mean(self) -> Tensor:
        """Probability of 1, shape (B, n)."""
        return torch.sigmoid(self.logits)

    @property
    def stddev(self) -> Tensor:
        """Standard deviation of the bits, sqrt(mean (1 - mean)), shape (B, n)."""
        return torch.sqrt(torch.sigmoid(self.logits) * torch.sigmoid(-self.logits))

    def rsample(self, k: int = 1, generator: torch.Generator | None = None) -> Tensor:
        """Relaxed bits zeta, shape (k, B, n), with a gradient in the logits.

        The noise is drawn on the CPU from `generator`, so that a seed gives the same numbers on every device.
        """
        return self.relaxation.sample(self.mean, self._uniform(k, generator))

    @torch.no_grad()
    def sample(self, k: int = 1, generator: torch.Generator | None = None) -> Tensor:
        """Bits, shape (k, B, n), in the precision of the logits.

        From the same random numbers as `rsample`, which lies on their side of 1/2 where its relaxation is
        sharp.
        """
        return (self._uniform(k, generator) >= torch.sigmoid(-self.logits)).to(self.logits.dtype)

    def log_prob(self, z: Tensor) -> Tensor:
        """Log probability of bits, shape (..., B, n) -> (..., B), nats; linear in between."""
        return (z * self.logits - functional.softplus(self.logits)).sum(-1)

    def relaxed_log_prob(self, zeta: Tensor) -> Tensor:
        """What relaxed bits have in the place of log q, shape (..., B, n) -> (..., B), nats.

        The log density of a smoothing; the probability with zeta put in where the relaxation only has that
        (`straight-through`, `gumbolt`). The counterpart of `relaxed_prior.relaxed_log_prior`: their
        difference is what an importance weight takes.
        """
        if not self.relaxation.smooths:
            return self.log_prob(zeta)
        return self.relaxation.log_density(zeta, self.mean).sum(-1)

    def entropy(self) -> Tensor:
        """Entropy of the bits, shape (B,), nats."""
        # In |logit|, where nothing cancels.
        size = self.logits.abs()
        return (functional.softplus(-size) + size * torch.sigmoid(-size)).sum(-1)

    def leaves(self) -> tuple[Tensor, ...]:
        """The logits."""
        return (self.logits,)

    def with_leaves(self, *leaves: Tensor) -> Self:
        """Another one with these logits and the same relaxation."""
        (logits,) = leaves
        return replace(self, logits=logits)

    def float(self) -> Self:
        """The same in single precision."""
        return self.with_leaves(*(leaf.float() for leaf in self.leaves()))

    def detach(self) -> Self:
        """The same, cut off from the graph."""
        return self.with_leaves(*(leaf.detach() for leaf in self.leaves()))

    def _uniform(self, k: int, generator: torch.Generator | None) -> Tensor:
        """Random numbers in (0, 1), shape (k, B, n)."""
        like = self.logits
        uniform = torch.rand(k, *like.shape, generator=generator, dtype=like.dtype)
        # Zero, which comes up once in 2^24 in single precision, has no logit and no quantile.
        return uniform.clamp_min(torch.finfo(like.dtype).eps / 4).to(like.device)
