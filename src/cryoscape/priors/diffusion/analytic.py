"""The denoiser of a Gaussian mixture, in closed form.

For p(u) = sum_k a_k N(u; mu_k, S_k) noised to level sigma,

    D(x; sigma) = sum_k r_k(x) [mu_k + S_k (S_k + sigma^2 I)^-1 (x - mu_k)],

with r_k the shares of the components at x. Its F has a form without differences of near numbers: along an
axis of S_k with variance v, sin [(v - 1) cos y + mu] / (v cos^2 + sin^2) (see `noise` for the angle).
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cryoscape.priors.diffusion.noise import scales


class MixtureDenoiser(nn.Module):
    """Denoiser of a mixture of K Gaussians with full covariances, which is not trained.

    Parameters
    ----------
    components : int
        K.
    dim : int
        d.

    Attributes
    ----------
    log_weight : Tensor, shape (K,)
        log a_k.
    mean : Tensor, shape (K, d)
        mu_k along the axes of each component.
    variance : Tensor, shape (K, d)
        Eigenvalues of S_k.
    axes : Tensor, shape (K, d, d)
        Eigenvectors of S_k, in columns. A new mixture is N(0, I).
    """

    log_weight: Tensor
    mean: Tensor
    variance: Tensor
    axes: Tensor

    def __init__(self, components: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("log_weight", torch.full((components,), -math.log(components)))
        self.register_buffer("mean", torch.zeros(components, dim))
        self.register_buffer("variance", torch.ones(components, dim))
        self.register_buffer("axes", torch.eye(dim).repeat(components, 1, 1))

    @torch.no_grad()
    def set(
        self, weight: NDArray[np.float64], mean: NDArray[np.float64], covariance: NDArray[np.float64]
    ) -> None:
        """Take weights (K,), means (K, d) and covariances (K, d, d), in whitened units."""
        variance, axes = np.linalg.eigh(covariance)
        self.log_weight.copy_(torch.as_tensor(np.log(np.maximum(weight, 1e-12))).log_softmax(0))
        self.mean.copy_(torch.as_tensor(np.einsum("kji,kj->ki", axes, mean)))
        self.variance.copy_(torch.as_tensor(np.maximum(variance, 1e-8)))
        self.axes.copy_(torch.as_tensor(axes))

    def _along_axes(self, u: Tensor) -> Tensor:
        """Points (n, d) in the axes of every component, (n, K, d)."""
        return (u @ self.axes.transpose(0, 1).flatten(1)).unflatten(1, self.mean.shape)

    def _log_joint(self, residual: Tensor, variance: Tensor) -> Tensor:
        """Log of a_k N at residuals (n, K, d) with variances (..., K, d), shape (n, K)."""
        exponent = (residual.square() / variance + variance.log()).sum(-1)
        return self.log_weight - 0.5 * exponent - 0.5 * residual.shape[-1] * math.log(2 * math.pi)

    def forward(self, scaled: Tensor, sigma: Tensor) -> Tensor:
        """F at scaled points (n, d) and noise levels () or (n,), shape (n, d)."""
        share, each, *_ = self._parts(scaled, sigma)
        return self._combined(share, each)

    def with_trace(self, scaled: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """F (n, d) and the trace of its Jacobian in the scaled points, (n,)."""
        share, each, slope, pull = self._parts(scaled, sigma)
        # sum_k r_k tr(dF_k) + sum_k dr_k . F_k, where dr_k = r_k (g_k - sum_l r_l g_l).
        inner = (each * pull).sum(-1)
        mean_pull = self._combined(share, pull)
        value = self._combined(share, each)
        trace = (share * (slope.sum(-1) + inner)).sum(-1) - (value * mean_pull).sum(-1)
        return value, trace

    def _parts(self, scaled: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Of every component, along its axes: share (n, K), F_k, its slopes, and the slope of log N."""
        cos, sin = (c[..., None, None] for c in scales(sigma))
        along = self._along_axes(scaled)
        variance = self.variance * cos.square() + sin.square()
        residual = along - self.mean * cos
        share = self._log_joint(residual, variance).softmax(-1)
        slope = sin * cos * (self.variance - 1) / variance
        each = slope * along + sin * self.mean / variance
        return share, each, slope, -residual / variance

    def _combined(self, share: Tensor, each: Tensor) -> Tensor:
        """Mean over the components (n, K) of vectors along their axes (n, K, d), shape (n, d)."""
        return (share[:, :, None] * each).flatten(1) @ self.axes.mT.flatten(0, 1)

    def log_prob(self, u: Tensor, sigma: float = 0.0) -> Tensor:
        """Log density of points (n, d) blurred by sigma, shape (n,), nats."""
        return torch.logsumexp(self._log_joint(self._along_axes(u) - self.mean, self.variance + sigma**2), -1)
