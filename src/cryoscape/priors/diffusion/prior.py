"""Latent diffusion: a denoiser learned on embeddings, whose flow is a bijection to a standard normal base.

Karras et al. (2022) give noise levels, scaling and samplers; Kreis et al. (2022) put it on the latent space
of cryo-EM, after the fact; LSGM (Vahdat et al. 2021) inside the evidence bound. The network corrects the
denoiser of a base that is known in closed form,

    F(y; sigma) = F_base(y; sigma) + network(y; sigma),

so that a prior that has not learned yet is its base (the "mixed prediction" of LSGM, whose share of the
network is here the size of the network's last layer).
"""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from cryoscape.priors.base import FitSchedule, LogPartition, PosteriorLike, weighted_mean
from cryoscape.priors.deconvolution import deconvolved_estimate
from cryoscape.priors.diffusion import flow
from cryoscape.priors.diffusion.analytic import MixtureDenoiser
from cryoscape.priors.diffusion.bound import excess_over_base
from cryoscape.priors.diffusion.network import MovingAverage, ResidualNetwork
from cryoscape.priors.diffusion.noise import SIGMA_MIN, noisy, training_levels
from cryoscape.priors.diffusion.samplers import Denoise, SamplerKind, guided, heun, stochastic, unguided
from cryoscape.priors.expectation_maximisation import MixtureEstimate, improve, start_mixture
from cryoscape.priors.gaussians import normal_noise
from cryoscape.priors.guidance import LogPotentialGradient
from cryoscape.priors.transport import TransportPrior

Base = Literal["mixture", "normal"]

_PART = 512
"""Points whose flow is followed at a time; they share the length of a step."""
_FLOOR = 0.01
"""Smallest standard deviation of a component of the base, whitened."""


class DiffusionPrior(TransportPrior):
    """Diffusion in the latent space.

    Parameters
    ----------
    z_dim : int
        Dimension d of z.
    layers, width : int
        Of the network.
    base : {"normal", "mixture"}
        What the network corrects: one round Gaussian, or a Gaussian mixture fitted first.
    components : int
        Of the mixture.
    noise_mean, noise_std : float
        Of ln sigma in training, whitened.
    average : float
        Decay of the moving average of the weights, by which alone the prior is judged, sampled and used.
    sampling : {"heun", "stochastic"}
    sampling_steps : int
    tolerance : float
        Local error of the flow behind densities and codes.

    Attributes
    ----------
    network : ResidualNetwork
        As trained.
    averaged : MovingAverage
        As used.
    base : MixtureDenoiser
        A new prior is N(0, I).
    estimates_likelihood_gradient : bool
        False: the loss is the error of denoising.
    """

    schedule = FitSchedule(steps=2000, batch=1024, lr=3e-3)
    estimates_likelihood_gradient = False
    fit_checks: ClassVar[int] = 4
    fit_watched: ClassVar[int] = 384

    def __init__(
        self,
        z_dim: int,
        *,
        layers: int = 5,
        width: int = 128,
        base: Base = "normal",
        components: int = 16,
        noise_mean: float = 0.0,
        noise_std: float = 1.2,
        average: float = 0.999,
        sampling: SamplerKind = "heun",
        sampling_steps: int = 40,
        tolerance: float = 1e-5,
    ) -> None:
        super().__init__(z_dim)
        self.noise_mean, self.noise_std = noise_mean, noise_std
        self.sampling: SamplerKind = sampling
        self.sampling_steps, self.tolerance = sampling_steps, tolerance
        self._from_mixture = base == "mixture"
        self.base = MixtureDenoiser(components if self._from_mixture else 1, z_dim)
        self.network = ResidualNetwork(z_dim, layers, width)
        self.averaged = MovingAverage(self.network, average)

    def predict(self, scaled: Tensor, sigma: Tensor) -> Tensor:
        """F of the averaged network, at scaled points (n, d) and noise levels () or (n,), shape (n, d)."""
        predicted: Tensor = self.base(scaled, sigma) + self.averaged(scaled, sigma)
        return predicted

    def predict_with_trace(self, scaled: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """As `predict`, with the trace of the Jacobian in the scaled points, (n,)."""
        base, base_trace = self.base.with_trace(scaled, sigma)
        correction, trace = self.averaged.with_trace(scaled, sigma)
        return base + correction, base_trace + trace

    # -- the density and the flow ----------------------------------------------------------------

    def unit_energy(self, u: Tensor) -> Tensor:
        """Return -log p by the flow of probability with the exact trace, shape (..., d) -> (...), nats."""
        flat = u.reshape(-1, self.z_dim)
        log_p = [flow.log_density(self.predict_with_trace, p, self.tolerance) for p in flat.split(_PART)]
        return -torch.cat(log_p).view(u.shape[:-1])

    def unit_log_partition(self) -> LogPartition:
        """Return 0: the energy is normalised."""
        return LogPartition.exact()

    def unit_encode(self, u: Tensor) -> Tensor:
        """Whitened points (..., d) to the base, which is x / sqrt(sigma_max^2 + 1)."""
        parts = u.reshape(-1, self.z_dim).split(_PART)
        return torch.cat([flow.encode(self.predict, part, self.tolerance) for part in parts]).view(u.shape)

    def unit_decode(self, base: Tensor) -> Tensor:
        """Base (..., d) to whitened points."""
        parts = base.reshape(-1, self.z_dim).split(_PART)
        return torch.cat([flow.decode(self.predict, part, self.tolerance) for part in parts]).view(base.shape)

    def blurred_score(self, z: Tensor, sigma: float) -> Tensor:
        """Gradient of log of the density blurred by sigma, (D - z) / sigma^2, shape (..., d); one evaluation.

        `score` is the slope of the density itself, through the whole flow, at the cost of hundreds of
        evaluations. As sigma falls, the error of the network counts 1 / sigma times.

        Parameters
        ----------
        z : Tensor, shape (..., d)
        sigma : float
            In the units of z.
        """
        u = self.whitened(z)
        level = u.new_tensor(sigma) / self.scale
        point = unguided(self.predict)(u.reshape(-1, self.z_dim), level).view(u.shape)
        return (point - u) / level.square() / self.scale

    # -- samples ---------------------------------------------------------------------------------

    @torch.no_grad()
    def unit_sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw n points from noise by the sampler."""
        return self._draw(n, unguided(self.predict), generator)

    @torch.no_grad()
    def guided_sample(
        self,
        n: int,
        log_potential_gradient: LogPotentialGradient,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Draw points from about p(z) c(z) / const, shape (n, d), in the units of z.

        Parameters
        ----------
        n : int
        log_potential_gradient : callable
            Points (m, d) in the units of z -> gradient of log c in them, (m, d).
        generator : torch.Generator, optional

        Returns
        -------
        Tensor, shape (n, d)
        """

        def whitened(u: Tensor) -> Tensor:
            return self.scale * log_potential_gradient(self.shift + self.scale * u)

        return self.shift + self.scale * self._draw(n, guided(self.predict, whitened), generator)

    def _draw(self, n: int, denoiser: Denoise, generator: torch.Generator | None) -> Tensor:
        noise = torch.randn(n, self.z_dim, generator=generator, dtype=self.shift.dtype).to(self.shift.device)
        if self.sampling == "stochastic":
            return stochastic(denoiser, noise, self.sampling_steps, generator)
        return torch.cat([heun(denoiser, part, self.sampling_steps) for part in noise.split(_PART)])

    # -- learning --------------------------------------------------------------------------------

    def loss(
        self, z: Tensor, weights: Tensor | None = None, generator: torch.Generator | None = None
    ) -> Tensor:
        """Mean error of denoising in units of F, the weighting of Karras et al. (2022), per dimension.

        In training mode every call with a gradient moves the average of the weights first, so that it
        follows the optimiser a step behind.
        """
        if self.training and torch.is_grad_enabled() and self.network.exit.weight.requires_grad:
            self.averaged.update(self.network)
        u = self.whitened(z.detach())
        sigma = training_levels(len(u), self.noise_mean, self.noise_std, generator).to(u)
        noise = normal_noise(u, generator)
        scaled, target = noisy(u, sigma, noise)
        predicted = self.base(scaled, sigma) + self.network(scaled, sigma)
        return weighted_mean((predicted - target).square().mean(-1), weights)

    def kl_divergence(self, q: PosteriorLike, z: Tensor | None = None) -> Tensor:
        """KL(q(z|x) || p) of every particle, shape (B,), nats.

        In evaluation by the exact density. In training by the bound of LSGM, unbiased, with one noise level a
        sample and likelihood weighting; the gradient reaches q through its samples.
        """
        if not self.training:
            return super().kl_divergence(q, z)
        z = q.rsample(1) if z is None else z
        return (q.log_prob(z) + self.cross_entropy(z)).mean(0)

    def cross_entropy(self, z: Tensor) -> Tensor:
        """Unbiased estimate of the bound of -log p(z) that training uses, (..., d) -> (...), nats."""
        u = self.whitened(z).reshape(-1, self.z_dim)
        bound = excess_over_base(self.predict, self.base, u) - self.base.log_prob(u, SIGMA_MIN)
        return bound.view(z.shape[:-1]) + self.z_dim * self.scale.log()

    def warm_start(self, z: Tensor, generator: torch.Generator | None = None) -> None:
        """Whiten, fit the base, and set the network to correct nothing."""
        points = z.detach().double()
        spread = points.var(0, correction=0).mean().sqrt()
        self._begin(points.mean(0), spread)
        if self._from_mixture:
            u, components = self.whitened(z), len(self.base.log_weight)
            self._take(improve(u, start_mixture(u, components, _FLOOR, generator), _FLOOR))

    def deconvolve(self, mean: Tensor, sd: Tensor) -> bool:
        """Fit a mixture as the base by extreme deconvolution; True where the base is one.

        The network corrects nothing then, until joint training goes on: with weights on few samples of each
        posterior, what it would learn is farther from the population than the mixture is.
        """
        if not self._from_mixture:
            return False
        generator = torch.Generator().manual_seed(0)

        def begin(z: Tensor, active: np.ndarray) -> MixtureEstimate:
            return start_mixture(
                z[:, torch.as_tensor(active)], len(self.base.log_weight), _FLOOR * float(spread), generator
            )

        spread = mean.double().var(0, correction=0).mean().sqrt()
        estimate = deconvolved_estimate(mean, sd, begin)
        centre = estimate.weight @ estimate.mean
        total = np.einsum("k,kii->", estimate.weight, estimate.covariance)
        total += estimate.weight @ ((estimate.mean - centre) ** 2).sum(1)
        self._begin(torch.as_tensor(centre), torch.as_tensor(math.sqrt(total / self.z_dim)))
        self._take(estimate.whitened(self.shift, self.scale))
        return True

    @torch.no_grad()
    def _begin(self, centre: Tensor, spread: Tensor) -> None:
        self.shift.copy_(centre)
        self.scale.copy_(spread.clamp_min(1e-6))
        self.network.reset()
        self.averaged.copy(self.network)

    def _take(self, estimate: MixtureEstimate) -> None:
        self.base.set(estimate.weight, estimate.mean, estimate.covariance)

    def faults(self) -> tuple[str, ...]:
        """What is not finite, in the network and its average."""
        found = super().faults()
        if not found and not all(bool(torch.isfinite(t).all()) for t in self.buffers()):
            found = ("the averaged network of the prior is not finite",)
        return found
