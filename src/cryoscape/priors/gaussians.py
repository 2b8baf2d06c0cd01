"""Gaussians with full covariances as modules: log densities by Cholesky factors, and samples.

The covariance of every component is L L' + floor^2 I with a lower triangular L of positive diagonal, so no
component is narrower than the floor in any direction.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

_ENTRIES = 20_000_000
"""Numbers held at once by a table of log densities where no gradient is asked for."""


class CovarianceFactors(nn.Module):
    """Covariances L L' + floor^2 I of K components, as parameters.

    Parameters
    ----------
    components : int
        K.
    dim : int
        d.
    floor : float
        Smallest standard deviation in any direction.

    Attributes
    ----------
    log_diagonal : Parameter, shape (K, d)
        Logarithm of the diagonal of L.
    below : Parameter, shape (K, d, d)
        L below the diagonal; the rest of it is not used.
    """

    def __init__(self, components: int, dim: int, floor: float) -> None:
        super().__init__()
        self.floor = floor
        start = 0.5 * math.log(max(1.0 - floor**2, 1e-6))
        self.log_diagonal = nn.Parameter(torch.full((components, dim), start))
        self.below = nn.Parameter(torch.zeros(components, dim, dim))

    def matrices(self) -> Tensor:
        """Covariances, shape (K, d, d)."""
        factor = self.below.tril(-1) + torch.diag_embed(self.log_diagonal.exp())
        eye = torch.eye(factor.shape[-1], dtype=factor.dtype, device=factor.device)
        return factor @ factor.mT + self.floor**2 * eye

    def cholesky(self) -> Tensor:
        """Lower Cholesky factors of the covariances, shape (K, d, d)."""
        return torch.linalg.cholesky(self.matrices())

    def whiteners(self) -> tuple[Tensor, Tensor]:
        """Inverses W of the Cholesky factors (K, d, d), so that W S W' = I, and log |W| (K,)."""
        factor = self.cholesky()
        eye = torch.eye(factor.shape[-1], dtype=factor.dtype, device=factor.device)
        whitener = torch.linalg.solve_triangular(factor, eye.expand_as(factor), upper=False)
        return whitener, -factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)

    @torch.no_grad()
    def set(self, covariance: Tensor) -> None:
        """Take the covariances (K, d, d); directions narrower than the floor are widened to just above it."""
        values, vectors = torch.linalg.eigh(covariance.double())
        # What lies above the floor must stay positive for L to exist.
        above = (values - self.floor**2).clamp_min(0.01 * self.floor**2)
        factor = torch.linalg.cholesky((vectors * above[:, None]) @ vectors.mT)
        self.log_diagonal.copy_(factor.diagonal(dim1=-2, dim2=-1).log())
        self.below.copy_(factor.tril(-1))

    @torch.no_grad()
    def narrow(self) -> Tensor:
        """Which components are about as narrow as the floor in some direction, shape (K,), bool."""
        return torch.linalg.eigvalsh(self.matrices().double())[:, 0] < (1.2 * self.floor) ** 2


class FullGaussians(nn.Module):
    """K Gaussians, each with a mean and a covariance of its own.

    Parameters
    ----------
    components : int
        K.
    dim : int
        d.
    floor : float
        Smallest standard deviation in any direction.

    Attributes
    ----------
    mean : Parameter, shape (K, d)
        Near the origin at first, and not equal, so that the components can part.
    covariance : CovarianceFactors
    """

    def __init__(self, components: int, dim: int, floor: float) -> None:
        super().__init__()
        self.mean = nn.Parameter(0.1 * torch.randn(components, dim))
        self.covariance = CovarianceFactors(components, dim, floor)

    def log_prob(self, u: Tensor) -> Tensor:
        """Log density under every component, (..., d) -> (..., K), nats."""
        whitener, log_det = self.covariance.whiteners()
        return gaussian_log_prob(u, self.mean, whitener, log_det)

    def means(self) -> Tensor:
        """Means of the components, shape (K, d)."""
        return self.mean

    def covariances(self) -> Tensor:
        """Covariances of the components, shape (K, d, d)."""
        return self.covariance.matrices()

    @torch.no_grad()
    def set(self, mean: NDArray[np.float64], covariance: NDArray[np.float64]) -> None:
        """Take means (K, d) and covariances (K, d, d)."""
        self.mean.copy_(torch.as_tensor(mean))
        self.covariance.set(torch.as_tensor(covariance).to(self.mean.device))

    @torch.no_grad()
    def sample(self, which: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Draw a point from component which[i], (n,) -> (n, d)."""
        noise = torch.randn(len(which), self.mean.shape[1], generator=generator, dtype=self.mean.dtype)
        return self.mean[which] + through_factors(self.covariance.cholesky(), which, noise)


def gaussian_log_prob(u: Tensor, mean: Tensor, whitener: Tensor, log_det: Tensor) -> Tensor:
    """Log densities of K Gaussians, (..., d) -> (..., K).

    Parameters
    ----------
    u : Tensor, shape (..., d)
    mean : Tensor, shape (K, d)
    whitener : Tensor, shape (K, d, d)
        W with W S W' = I.
    log_det : Tensor, shape (K,)
        log |W|.
    """
    k, d = mean.shape
    flat = whitener.reshape(k * d, d).T
    origin = (whitener @ mean[:, :, None]).reshape(k * d)
    constant = log_normaliser(log_det, d)

    def table(part: Tensor) -> Tensor:
        residual = part @ flat - origin
        return constant - 0.5 * residual.view(len(part), k, d).square().sum(-1)

    return in_parts(table, u, k * d)


def log_normaliser(log_det: Tensor, dim: int) -> Tensor:
    """Log density of a Gaussian at its mean, from log |W| of its whitener; same shape."""
    return log_det - 0.5 * dim * math.log(2 * math.pi)


def in_parts(table: Callable[[Tensor], Tensor], u: Tensor, entries: int) -> Tensor:
    """Apply a table (n, d) -> (n, K) to points (..., d), in parts where no gradient is asked for.

    Parameters
    ----------
    table : callable
    u : Tensor, shape (..., d)
    entries : int
        Numbers that the table holds at once for every point.
    """
    points = u.reshape(-1, u.shape[-1])
    if torch.is_grad_enabled() or len(points) * entries <= _ENTRIES:
        out = table(points)
    else:
        out = torch.cat([table(part) for part in points.split(max(1, _ENTRIES // entries))])
    return out.view(*u.shape[:-1], -1)


def through_factors(factor: Tensor, which: Tensor, noise: Tensor) -> Tensor:
    """Noise (n, d) through the Cholesky factors (K, d, d) of components which[i], shape (n, d)."""
    return (factor[which] @ noise.to(factor.device)[:, :, None])[:, :, 0]


def draw_components(weight: Tensor, n: int, generator: torch.Generator | None = None) -> Tensor:
    """Draw n of K components with their weights (K,), on the CPU, shape (n,)."""
    return torch.multinomial(weight.detach().double().cpu(), n, replacement=True, generator=generator)


def normal_noise(like: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Standard normal numbers of the shape, type and device of a tensor; drawn on the CPU."""
    return torch.randn(like.shape, generator=generator, dtype=like.dtype).to(like.device)
