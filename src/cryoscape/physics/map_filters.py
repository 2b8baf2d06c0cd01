"""Maps at a lower resolution: a soft low-pass, and coarser voxels of the same field of view."""

from __future__ import annotations

import torch
from torch import Tensor

from cryoscape.physics.slices import crop_volume, invert_volume, transform_volume

# The cut-off falls over this many shells of the transform: a sharp edge would ring in the map.
_EDGE = 4.0


def lowpass(volumes: Tensor, voxel_size: float, resolution: float) -> Tensor:
    """Remove what is finer than a resolution, with a raised-cosine edge four shells wide about it.

    Parameters
    ----------
    volumes : Tensor, shape (..., D, D, D)
        Maps, D even.
    voxel_size : float
        Angstrom.
    resolution : float
        Angstrom; where the filter has fallen to one half. Finer than twice the voxel it does nothing.

    Returns
    -------
    Tensor, shape (..., D, D, D)

    Raises
    ------
    ValueError
        If the box is odd or the resolution is not positive.
    """
    if not resolution > 0:
        raise ValueError(f"a resolution is positive, not {resolution}")
    if resolution <= 2 * voxel_size:
        return volumes
    box = volumes.shape[-1]
    axis = torch.fft.fftfreq(box, 1 / box, device=volumes.device)
    half = axis[: box // 2 + 1].abs()
    radius = (axis[:, None, None].square() + axis[:, None].square() + half.square()).sqrt()
    cut = box * voxel_size / resolution
    passed = 0.5 + 0.5 * torch.cos(torch.pi * ((radius - cut) / _EDGE + 0.5).clamp(0.0, 1.0))
    return invert_volume(transform_volume(volumes, voxel_size) * passed, voxel_size)


def coarsen(volumes: Tensor, voxel_size: float, box: int) -> Tensor:
    """Show the same field of view on fewer voxels, keeping the low frequencies and the density.

    Parameters
    ----------
    volumes : Tensor, shape (..., D, D, D)
        Maps, D even.
    voxel_size : float
        Angstrom.
    box : int
        Even number of voxels wanted, at most D. The new voxels are ``voxel_size * D / box`` long and the
        centre stays at voxel ``box // 2``.

    Returns
    -------
    Tensor, shape (..., box, box, box)

    Raises
    ------
    ValueError
        If a box is odd or the new one is larger.
    """
    coefficients = crop_volume(transform_volume(volumes, voxel_size), box)
    return invert_volume(coefficients, voxel_size * volumes.shape[-1] / box)
