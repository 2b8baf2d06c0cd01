"""Where the molecule is: a soft mask made from the map itself."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from cryoscape.physics.map_filters import lowpass
from cryoscape.physics.resolution import soft_sphere

LOWPASS = 15.0
"""Resolution, Angstrom, at which the mask is made."""

OF_PEAK = 0.15
"""Threshold as a part of the map's peak (its 99.9th percentile)."""

OF_NOISE = 5.0
"""Threshold at least, in standard deviations of the noise at that resolution."""

SMALL = 0.05
"""Pieces smaller than this part of the largest are left out."""

GROW, EDGE = 4.0, 8.0
"""Angstrom by which the mask is grown, and the width of its soft edge."""


def automatic_mask(half1: Tensor, half2: Tensor, voxel_size: float, *, lowpass_at: float = LOWPASS) -> Tensor:
    """A soft mask about the molecule.

    The mean of the half maps is filtered to 15 A and cut at a threshold: the larger of 0.15 times its peak
    and five standard deviations of the noise, which half the difference of the half maps shows. Specks are
    left out, the rest is grown by 4 A and ends in a raised cosine 8 A wide (three voxels at least).

    Parameters
    ----------
    half1, half2 : Tensor, shape (D, D, D)
        Protein positive, not filtered.
    voxel_size : float
        Angstrom.
    lowpass_at : float
        Angstrom; a map of lower resolution needs a larger number.

    Returns
    -------
    Tensor, shape (D, D, D), float32
        0 to 1, inside the sphere that fits the box; that sphere itself where nothing rises above the noise.
    """
    from scipy.ndimage import distance_transform_edt, label

    box = half1.shape[0]
    sphere = inscribed_sphere(box)
    inside = sphere > 0.5
    both = lowpass(0.5 * (half1 + half2), voxel_size, lowpass_at)
    noise = lowpass(0.5 * (half1 - half2), voxel_size, lowpass_at)[inside]
    # The mean density of an image set is not measured, so the solvent need not lie at 0.
    values = both[inside].float()
    level = values.median()
    peak = _percentile(values, 99.9) - level
    threshold = level + torch.maximum(OF_PEAK * peak, OF_NOISE * noise.std())
    pieces, count = label(((both > threshold) & inside).cpu().numpy())
    if count == 0:
        return sphere
    sizes = np.bincount(pieces.reshape(-1))
    sizes[0] = 0
    kept = np.isin(pieces, np.flatnonzero(sizes >= SMALL * sizes.max()))
    distance = torch.from_numpy(distance_transform_edt(~kept).astype(np.float32)).to(half1.device)
    edge = max(EDGE / voxel_size, 3.0)
    soft = 0.5 + 0.5 * torch.cos(torch.pi * ((distance - GROW / voxel_size) / edge).clamp(0.0, 1.0))
    return soft * sphere


def inscribed_sphere(box: int) -> Tensor:
    """Soft sphere that fits a box and leaves a margin, (box, box, box): 1 up to 0.43 box, 0 from 0.48 box."""
    return soft_sphere(box, 0.43 * box, 0.05 * box)


def _percentile(values: Tensor, percent: float) -> Tensor:
    # torch.quantile refuses more than 16 million numbers.
    return values.kthvalue(max(1, round(len(values) * percent / 100))).values
