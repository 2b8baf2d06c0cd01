"""Positional encodings of spatial frequencies: plane waves, as points of the particle would scatter.

A point at x contributes exp(-2 pi i k.x) to the transform of a map. Cosines and sines of 2 pi k.x at a set of
positions x are therefore the natural features of k: a linear read-out of them is already a density of
point charges, and positions as far out as the particle reaches hold its finest fringes. The published
encodings of cryoDRGN are two choices of the positions.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Encoding = Literal["gaussian", "geometric"]


def gaussian_positions(n: int, sigma: float, generator: torch.Generator | None = None) -> Tensor:
    """Positions drawn from an isotropic Gaussian.

    Parameters
    ----------
    n : int
        How many.
    sigma : float
        Standard deviation per axis, in sides of the box. cryoDRGN's `feat_sigma` s is s / (4 pi) here
        (its phase is s xi.q / 2 for standard normal xi and integer frequencies q).
    generator : torch.Generator, optional

    Returns
    -------
    Tensor, shape (3, n)
        In sides of the box.
    """
    return sigma * torch.randn(3, n, generator=generator)


def geometric_positions(n: int, nearest: float, farthest: float) -> Tensor:
    """Positions on the three axes, in geometric progression.

    Parameters
    ----------
    n : int
        How many in all, spread evenly over the axes x, y, z (rounded up to a multiple of three).
    nearest, farthest : float
        Smallest and largest distance from the origin, in sides of the box. The encoding of Zhong et al.
        2021 (section 3.2) has wavelengths from the box's Nyquist frequency up: 1 / box to 1 / 2.

    Returns
    -------
    Tensor, shape (3, n)
        In sides of the box.
    """
    each = -(-n // 3)
    distance = torch.logspace(0, 1, each, base=farthest / nearest) * nearest
    return torch.block_diag(distance[None], distance[None], distance[None])


def encode(frequencies: Tensor, positions: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Cosines, then sines, of 2 pi k.x.

    Parameters
    ----------
    frequencies : Tensor, shape (P, 3)
        k in units of 1 / box side.
    positions : Tensor, shape (3, F)
        x in sides of the box.
    dtype : torch.dtype, optional
        Of the result; the phases are computed in the type of the frequencies.

    Returns
    -------
    Tensor, shape (P, 2 F)
    """
    n = positions.shape[1]
    phase = torch.mm(frequencies, 2 * torch.pi * positions)
    out = phase.new_empty(len(phase), 2 * n, dtype=dtype or phase.dtype)
    out[:, :n] = torch.cos(phase)
    out[:, n:] = torch.sin(phase)
    return out
