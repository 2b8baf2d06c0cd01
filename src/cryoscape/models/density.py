"""Structures as the density maps that images of them would give."""

from __future__ import annotations

import torch
from torch import Tensor

from cryoscape.models.decoders.base import StructureDecoder
from cryoscape.models.likelihoods import Likelihood
from cryoscape.physics.resolution import volume_shells
from cryoscape.physics.slices import invert_volume
from cryoscape.physics.structure_factors import structure_factors


def structure_maps(decoder: StructureDecoder, likelihood: Likelihood, z: Tensor, scale: float) -> Tensor:
    """Maps of the structures of latents, in the scale and the band of the images.

    The structure factors of the scatterers times the likelihood's radial gain (mean over optics groups),
    which is what the images are compared with.

    Parameters
    ----------
    decoder : StructureDecoder
    likelihood : Likelihood
    z : Tensor, shape (n, d)
    scale : float
        Continuous transform of a map / unitary coefficient of an image.

    Returns
    -------
    Tensor, shape (n, box, box, box)
        Density per cubic Angstrom.
    """
    return coordinate_maps(decoder, likelihood, decoder.coordinates(z), scale, decoder.occupancy(z))


def coordinate_maps(
    decoder: StructureDecoder,
    likelihood: Likelihood,
    coords: Tensor,
    scale: float,
    occupancy: Tensor | None = None,
) -> Tensor:
    """Maps (n, box, box, box) of structures (n, N, 3) in the world frame, as `structure_maps` has them.

    With the occupancy (n, chains) of their chains, where these may be absent.
    """
    box, pixel = likelihood.box, likelihood.pixel_size
    scene = decoder.scene(coords, occupancy)
    weights = scene.point_weights.expand(len(coords), -1)
    shells = volume_shells(box, device=coords.device)
    gain = likelihood.gain.mean(0)
    last = likelihood.n_shells - 1
    factor = torch.where(shells <= last, gain[shells.clamp(max=last)], torch.zeros_like(gain[:1])) * scale
    return torch.stack(
        [
            invert_volume(structure_factors(points, each, 0.0, box, pixel) * factor, pixel)
            for points, each in zip(scene.scatterers(scene.coords), weights)
        ]
    )
