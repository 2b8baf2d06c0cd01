"""The exact Fourier transform of a density made of Gaussians, on the grid of a map.

Summed in Fourier space, so the map that belongs to it is band-limited by its grid: no voxel is interpolated
and nothing aliases, however coarse the voxels are beside the Gaussians.
"""

from __future__ import annotations

import torch
from torch import Tensor

TABLE_MEMORY = 32 * 2**20
"""Bytes that the table of two axes may take; larger sums are done in pieces."""


def structure_factors(
    coords: Tensor, weights: Tensor, sigma: Tensor | float, box: int, voxel_size: float
) -> Tensor:
    """Continuous Fourier transform of a sum of isotropic Gaussians.

    F(k) = sum_n w_n exp(-2 pi^2 sigma_n^2 k^2) exp(-2 pi i k . r_n). Sine and cosine factorise over the axes,
    so the sum is a matrix product of real tables over one octant of k, and signs give the others.

    Parameters
    ----------
    coords : Tensor, shape (N, 3)
        World frame (origin at the centre voxel), Angstrom.
    weights : Tensor, shape (N,)
        Integral of each Gaussian.
    sigma : float or Tensor, shape (N,)
        Standard deviation, Angstrom.
    box : int
        Even side of the map.
    voxel_size : float
        Angstrom.

    Returns
    -------
    Tensor, shape (box, box, box // 2 + 1), complex64
        In the layout and the units of `slices.transform_volume`: the value at k = 0 is the sum of the
        weights. The Nyquist planes, whose signs a sampled map does not tell, are zero.

    Raises
    ------
    ValueError
        If the box is odd.
    """
    if box % 2:
        raise ValueError(f"structure factors need an even box, got {box}")
    n = box // 2
    k = torch.arange(n, dtype=torch.float64, device=coords.device) / (box * voxel_size)
    widths = torch.as_tensor(sigma, dtype=torch.float64, device=coords.device).expand(len(coords))
    octant = torch.zeros(2 * n, 4 * n * n, device=coords.device)
    at_once = max(1, TABLE_MEMORY // (4 * 4 * n * n))
    for part in torch.arange(len(coords), device=coords.device).split(at_once):
        x, y, z = (_axis_table(coords[part, i].double(), widths[part], k) for i in range(3))
        z *= weights[part].to(z)[:, None]
        plane = (y[:, :, None] * x[:, None, :]).reshape(len(part), -1)
        octant.addmm_(z.T, plane)
    return _all_octants(octant.reshape(2, n, 2, n, 2, n))


def _axis_table(position: Tensor, sigma: Tensor, k: Tensor) -> Tensor:
    """Cosines beside sines of one axis under the envelope: (N, 2 n), float32."""
    angle = 2 * torch.pi * position[:, None] * k
    envelope = torch.exp(-2 * (torch.pi * sigma[:, None] * k) ** 2)
    return torch.cat([angle.cos() * envelope, angle.sin() * envelope], dim=1).float()


def _all_octants(octant: Tensor) -> Tensor:
    """Coefficients of the half-space kx >= 0 from (z, y, x) products of cosines (0) and sines (1).

    With signs y and z: (cx - i sx) (cy - i y sy) (cz - i z sz).
    """
    n = octant.shape[-1]
    out = torch.zeros(2 * n, 2 * n, n + 1, 2, device=octant.device)
    # Row n is the Nyquist frequency; rows after it are the frequencies -(n - 1) .. -1.
    rows = {1: slice(0, n), -1: slice(n + 1, 2 * n)}
    for z, rows_z in rows.items():
        for y, rows_y in rows.items():

            def term(a: int, b: int, c: int, z: int = z, y: int = y) -> Tensor:
                part = octant[a, :, b, :, c]
                part = part if z > 0 else part[1:].flip(0)
                return part if y > 0 else part[:, 1:].flip(1)

            target = out[rows_z, rows_y, :n]
            target[..., 0] = term(0, 0, 0) - y * term(0, 1, 1) - z * term(1, 0, 1) - z * y * term(1, 1, 0)
            target[..., 1] = z * y * term(1, 1, 1) - term(0, 0, 1) - y * term(0, 1, 0) - z * term(1, 0, 0)
    return torch.view_as_complex(out)
