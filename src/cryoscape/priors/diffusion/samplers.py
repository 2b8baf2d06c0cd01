"""From noise to points: Heun's method, the stochastic sampler, and guidance (Karras et al. 2022)."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from cryoscape.priors.diffusion.noise import SIGMA_MAX, Prediction, denoise, sampler_levels, scales
from cryoscape.priors.gaussians import normal_noise
from cryoscape.priors.guidance import LogPotentialGradient

SamplerKind = Literal["heun", "stochastic"]

Denoise = Callable[[Tensor, Tensor], Tensor]
"""Noisy points x (n, d) and a noise level () -> denoised points (n, d)."""


def unguided(predict: Prediction) -> Denoise:
    """The denoiser itself."""
    return lambda x, sigma: denoise(predict, x, sigma)


def guided(predict: Prediction, gradient: LogPotentialGradient) -> Denoise:
    """A denoiser that is drawn towards high values of a potential c.

    D + t p, with p = sigma^2 grad_x log c(D(x; sigma)): the gradient g of log c at the denoised point, taken
    back through the denoiser, whose Jacobian times sigma^2 is the covariance V of the points that x may have
    been. Alone (t = 1) this takes c at their mean for the mean of c over them, and overshoots where c is
    narrower than V. The share t moves to the maximum along p of log c less the cost under V,

        t = g.p / (2 g.p - g(D + p).p),

    which is exact for a Gaussian c among Gaussian points that are as wide along all directions, and 1 for a
    constant slope. Elsewhere guidance is approximate.
    """

    def pulled(x: Tensor, sigma: Tensor) -> Tensor:
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            point = denoise(predict, leaf, sigma)
            slope = gradient(point.detach())
            pull = sigma.square() * torch.autograd.grad(point, leaf, slope)[0]
        point = point.detach()
        here = (slope * pull).sum(-1)
        bend = 2 * here - (gradient(point + pull) * pull).sum(-1)
        # A slope that steepens has no maximum nearby; a network that is not the slope of a density may
        # point away from it.
        share = torch.where((here > 0) & (bend > here), here / bend, torch.ones_like(here))
        return point + share[:, None] * pull

    return pulled


@torch.no_grad()
def heun(denoiser: Denoise, noise: Tensor, steps: int) -> Tensor:
    """Follow the flow of probability from SIGMA_MAX to SIGMA_MIN by Heun's method.

    In scaled points and the angle of the noise (see `noise`), at the levels of Karras et al. (2022): nothing
    is left to be integrated for N(0, I), where steps in x and sigma have an error of their own.

    Parameters
    ----------
    denoiser : Denoise
    noise : Tensor, shape (n, d)
        Standard normal.
    steps : int
        Of two evaluations each.

    Returns
    -------
    Tensor, shape (n, d)
    """
    levels = sampler_levels(steps + 1, noise)

    def slope(y: Tensor, sigma: Tensor) -> Tensor:
        cos, sin = scales(sigma)
        return (cos * y - denoiser(y / cos, sigma)) / sin

    y = noise
    for here, there in pairwise(levels):
        step = torch.atan(there) - torch.atan(here)
        first = slope(y, here)
        y = y + 0.5 * step * (first + slope(y + step * first, there))
    return y / scales(levels[-1])[0]


@torch.no_grad()
def stochastic(
    denoiser: Denoise, noise: Tensor, steps: int, generator: torch.Generator | None = None
) -> Tensor:
    """Euler-Maruyama steps of flow plus Langevin dynamics with beta = (d sigma / dt) / sigma.

    x <- x + 2 (s - s') (D - x) / s + sqrt(2 s (s - s')) e, from noise level s to s': equation 6 of Karras et
    al. (2022) with the churn of Kreis et al. (2022).

    Parameters
    ----------
    denoiser : Denoise
    noise : Tensor, shape (n, d)
        Standard normal: where to begin.
    steps : int
        Of one evaluation each; about 1,000 are needed.
    generator : torch.Generator, optional
        Of the noise on the way, which is drawn on the CPU.

    Returns
    -------
    Tensor, shape (n, d)
    """
    levels = sampler_levels(steps + 1, noise)
    x = math.hypot(SIGMA_MAX, 1.0) * noise
    for here, there in pairwise(levels):
        fresh = normal_noise(x, generator)
        drift = 2 * (here - there) / here * (denoiser(x, here) - x)
        x = x + drift + torch.sqrt(2 * here * (here - there)) * fresh
    return x
