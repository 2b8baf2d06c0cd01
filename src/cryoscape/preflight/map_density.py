"""A consensus map given by the user, brought onto the grid of the back-projection."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from cryoscape.errors import InputError
from cryoscape.physics.slices import crop_volume, invert_volume, transform_volume

if TYPE_CHECKING:
    from cryoscape.data.mrc import Map


def frame_of_map(volume: Map) -> tuple[float, float, float]:
    """Offset of the map's frame: world = coordinates - offset, in Angstrom.

    The particles' box centre is the map's centre voxel, ``n // 2`` along each axis.
    """
    middle = np.asarray(volume.data.shape[::-1]) // 2 * volume.voxel_size
    x, y, z = np.asarray(volume.origin, dtype=np.float64) + middle
    return float(x), float(y), float(z)


def density_on_grid(volume: Map, box: int, voxel_size: float) -> Tensor:
    """The map about its centre voxel, in a box of the back-projection's size and sampling.

    Parameters
    ----------
    volume : Map
        Any even or odd shape.
    box : int
        Even side wanted.
    voxel_size : float
        Wanted, Angstrom.

    Returns
    -------
    Tensor, shape (box, box, box)

    Raises
    ------
    InputError
        If the map is sampled more coarsely than the grid.
    """
    side = box * voxel_size
    size = 2 * round(side / volume.voxel_size / 2)
    if size < box:
        raise InputError(
            f"the map's voxels of {volume.voxel_size:.2f} A are too coarse for this box",
            remedy="Give a map at the pixel size of the particles or up to 4 A.",
        )
    centred = np.zeros((size,) * 3, dtype=np.float32)
    take, put = [], []
    for length in volume.data.shape:
        low = min(length // 2, size // 2)
        high = min(length - length // 2, size - size // 2)
        take.append(slice(length // 2 - low, length // 2 + high))
        put.append(slice(size // 2 - low, size // 2 + high))
    centred[tuple(put)] = volume.data[tuple(take)]
    coefficients = crop_volume(transform_volume(torch.from_numpy(centred), volume.voxel_size), box)
    return invert_volume(coefficients, voxel_size)
