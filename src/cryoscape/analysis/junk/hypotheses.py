"""Log evidence of one image under what it may show, in closed form, nats over pure noise.

With X the coefficients of the image, T its transfer function, s2 the noise, w the weights of the half-plane
and Y the projection of a structure, everything that an image says of that structure is in two numbers,

    L = sum_k w Re(X* T Y) / s2,    Q = sum_k w |T Y|^2 / s2.

Noise alone has evidence 0, for all evidences are relative to it.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[np.float64]


def scaled_evidence(linear: Tensor, power: Tensor, mean: float, variance: float) -> Tensor:
    """Evidence of a structure whose strength in the image, a, is not known but a ~ N(mean, variance).

    The integral of exp(a L - a^2 Q / 2) over a,

        m L - m^2 Q / 2 + v (L - m Q)^2 / (2 (1 + v Q)) - log(1 + v Q) / 2.

    Ice of another thickness or a scale that the table gives wrongly makes an image no junk.

    Parameters
    ----------
    linear, power : Tensor
        L and Q, of any shape.
    mean, variance : float
        m and v; with v = 0 the strength is m.

    Returns
    -------
    Tensor
        Nats.
    """
    spread = 1 + variance * power
    misfit = linear - mean * power
    fixed = mean * linear - 0.5 * mean**2 * power
    return fixed + 0.5 * variance * misfit.square() / spread - 0.5 * spread.log()


def posterior_strength(linear: Array, power: Array, mean: float, variance: float) -> tuple[Array, Array]:
    """Mean and variance of a structure's strength in the image, which is N(mean, variance) before."""
    spread = 1 + variance * power
    return mean + variance * (linear - mean * power) / spread, variance / spread


def random_signal_evidence(
    images: Tensor, mean: Tensor, variance: Tensor, weights: Tensor, factors: Tensor
) -> Tensor:
    """Evidence that images show some other object: a Gaussian random signal of known mean and spectrum.

    Coefficients are independent, X ~ N(sqrt(c) mu, s2 (1 + c rho)), for an object c times as strong in power.
    A complex coefficient of the half-plane (w = 2) is one complex degree of freedom; of those with w = 1 both
    members of a conjugate pair are in the sum, each with half of it. Over noise that is

        1/2 sum_k w [ |x|^2 - |x - sqrt(c) mu|^2 / (1 + c rho) - log(1 + c rho) ],    x = X / sqrt(s2).

    Parameters
    ----------
    images : Tensor, shape (B, ...), complex
        x.
    mean : Tensor, shape (B, ...) or ()
        mu, in the same units.
    variance : Tensor, shape (B, ...)
        rho.
    weights : Tensor, shape (...)
    factors : Tensor, shape (A,)
        Powers c that are tried.

    Returns
    -------
    Tensor, shape (B, A), float64
        Nats.
    """
    dims = tuple(range(1, images.ndim))
    power = images.abs().square()
    columns = []
    for factor in factors.tolist():
        ratio = factor * variance
        misfit = (images - factor**0.5 * mean).abs().square()
        term = power - misfit / (1 + ratio) - torch.log1p(ratio)
        columns.append(0.5 * (weights * term).sum(dims, dtype=torch.float64))
    return torch.stack(columns, 1)
