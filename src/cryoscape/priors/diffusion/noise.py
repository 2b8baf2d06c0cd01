"""Noise levels, and how inputs and outputs are scaled at each (Karras et al., NeurIPS 2022, table 1).

A point u is seen as x = u + sigma e, with e ~ N(0, I). In whitened units the standard deviation of the data
is 1, so that the denoiser is

    D(x; sigma) = c_skip x + c_out F(c_in x; sigma),
    c_skip = 1 / (1 + sigma^2),   c_out = sigma / sqrt(1 + sigma^2),   c_in = 1 / sqrt(1 + sigma^2).

With sigma = tan(angle) these are the squared cosine, the sine and the cosine of an angle: the scaled input is
y = u cos + e sin, the target of F is u sin - e cos, and the flow of probability is dy / d angle = -F.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

SIGMA_MIN, SIGMA_MAX = 0.002, 80.0
RHO = 7.0
"""Bends the levels of a sampler towards small noise."""

Prediction = Callable[[Tensor, Tensor], Tensor]
"""F: scaled points y (n, d) and noise levels sigma, () or (n,) -> (n, d)."""


def scales(sigma: Tensor) -> tuple[Tensor, Tensor]:
    """c_in and c_out, the cosine and the sine of the angle; same shape as sigma."""
    c_in = torch.rsqrt(1 + sigma.square())
    return c_in, sigma * c_in


def denoise(predict: Prediction, x: Tensor, sigma: Tensor) -> Tensor:
    """D(x; sigma), the mean of the points that x may have been, whitened.

    Parameters
    ----------
    predict : Prediction
    x : Tensor, shape (n, d)
    sigma : Tensor, shape () or (n,)

    Returns
    -------
    Tensor, shape (n, d)
    """
    c_in, c_out = (c[..., None] for c in scales(sigma))
    scaled = c_in * x
    return c_in * scaled + c_out * predict(scaled, sigma)


def noisy(u: Tensor, sigma: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Scaled noisy points and what F should say of them.

    Parameters
    ----------
    u : Tensor, shape (n, d)
    sigma : Tensor, shape (n,)
    noise : Tensor, shape (n, d)
        Standard normal.

    Returns
    -------
    scaled, target : Tensor, shape (n, d)
    """
    c_in, c_out = (c[..., None] for c in scales(sigma))
    return c_in * u + c_out * noise, c_out * u - c_in * noise


def sampler_levels(count: int, like: Tensor) -> Tensor:
    """Falling noise levels of a sampler, from SIGMA_MAX to SIGMA_MIN, shape (count,), as `like` in kind."""
    part = torch.linspace(0, 1, count, dtype=torch.float64)
    top, bottom = SIGMA_MAX ** (1 / RHO), SIGMA_MIN ** (1 / RHO)
    return (top + part * (bottom - top)).pow(RHO).to(like)


def training_levels(n: int, mean: float, std: float, generator: torch.Generator | None = None) -> Tensor:
    """Noise levels of n points with ln sigma ~ N(mean, std^2), within the range, shape (n,), float32, CPU.

    The points share the quantiles evenly among them, in random order (stratified sampling).
    """
    quantile = (torch.randperm(n, generator=generator) + torch.rand(n, generator=generator)) / n
    return torch.exp(mean + std * normal_quantile(quantile)).clamp(SIGMA_MIN, SIGMA_MAX)


def normal_quantile(part: Tensor) -> Tensor:
    """Quantiles of N(0, 1); those of 0 and 1 are finite."""
    return torch.special.ndtri(part.double().clamp(1e-9, 1 - 1e-9)).float()


def bounding_levels(n: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
    """Noise levels for the integral over ln sigma in a bound of the likelihood, and their weights.

    Half of them are even in ln sigma, which bounds the weights; half crowd about sigma = 0.3, where a prior
    departs from its base.

    Returns
    -------
    sigma, weight : Tensor, shape (n,), float32, CPU
        The mean of weight x f(sigma) over draws is the integral of f over ln sigma.
    """
    mean, std = -1.2, 1.2
    low, high = math.log(SIGMA_MIN), math.log(SIGMA_MAX)
    normal = torch.distributions.Normal(torch.tensor(mean).double(), torch.tensor(std).double())
    ends = normal.cdf(torch.tensor([low, high]).double())
    quantile = (torch.randperm(n, generator=generator) + torch.rand(n, generator=generator).double()) / n
    even = quantile < 0.5
    part = torch.where(even, 2 * quantile, 2 * quantile - 1)
    crowded = normal.icdf((ends[0] + part * (ends[1] - ends[0])).clamp(1e-12, 1 - 1e-12))
    log_sigma = torch.where(even, low + part * (high - low), crowded).clamp(low, high)
    density = 0.5 / (high - low) + 0.5 * normal.log_prob(log_sigma).exp() / (ends[1] - ends[0])
    return log_sigma.exp().float(), (1 / density).float()
