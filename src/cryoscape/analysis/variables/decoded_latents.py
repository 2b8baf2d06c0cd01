"""What latents decode to, differentiable, with all that collective variables of a run need."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from cryoscape.models.decoders.base import StructureDecoder, VolumeDecoder
from cryoscape.models.scattering import BeadScatterers, Scatterers
from cryoscape.physics.resolution import volume_shells
from cryoscape.physics.slices import crop_volume, transform_volume
from cryoscape.physics.structure_factors import structure_factors

if TYPE_CHECKING:
    from cryoscape.training.run import Run

# Bytes of what is decoded at once; the network behind it and its gradient take a few times as much.
_CHUNK_BYTES = 16_000_000
_MOST = 512

FINEST_FIT = 8.0
"""Resolution, A, up to which maps are compared unless another is asked for: detail has many optima."""


@dataclass(frozen=True)
class Decoded:
    """A batch of decoded structures or maps.

    Attributes
    ----------
    objects : Tensor, shape (B, N, 3) or (B, D, D, D)
        Coordinates in the frame of the model file, A; or maps.
    present : Tensor, shape (B, N), or None
        Share of every residue that is there; None where all always are.
    """

    objects: Tensor
    present: Tensor | None = None


DecodeLatents = Callable[[Tensor], Decoded]


class RunDecoder:
    """Decodes latents (B, d) of a run, with gradient in the latents.

    Parameters
    ----------
    run : Run

    Attributes
    ----------
    chunk : int
        How many latents should be decoded at a time.
    """

    def __init__(self, run: Run) -> None:
        decoder = run.image_model.decoder
        assert isinstance(decoder, StructureDecoder | VolumeDecoder)
        self._decoder = decoder
        self._offset = torch.tensor(run.geometry.offset)
        size = 4 * run.geometry.box**3
        if isinstance(decoder, StructureDecoder):
            size = 12 * len(run.structure)
            self._chain = torch.as_tensor(run.structure.chain_index)
        self.chunk = max(1, min(_MOST, _CHUNK_BYTES // size))

    def __call__(self, z: Tensor) -> Decoded:
        """Structures in the frame of the model file, or maps."""
        if isinstance(self._decoder, VolumeDecoder):
            return Decoded(self._decoder.volumes(z))
        present = self._decoder.occupancy(z)
        return Decoded(
            self._decoder.coordinates(z) + self._offset,
            None if present is None else present[:, self._chain],
        )


@dataclass(frozen=True, eq=False)
class StructureDensity:
    """Coefficients of decoded structures: their scatterers times the radial gain of the run's likelihood.

    Attributes
    ----------
    box : int
    voxel_size : float
        A.
    last_shell : int
    offset : tuple of float
        World = frame of the model file - offset, A.
    scatterers : Scatterers or BeadScatterers
    gain : Tensor, shape (last_shell + 1,)
        Of every shell.
    """

    box: int
    voxel_size: float
    last_shell: int
    offset: tuple[float, float, float]
    scatterers: Scatterers | BeadScatterers
    gain: Tensor

    def __call__(self, objects: Tensor, present: Tensor | None = None) -> Tensor:
        """Coefficients (B, box, box, box // 2 + 1) of structures (B, N, 3)."""
        points = self.scatterers(objects - torch.tensor(self.offset).to(objects))
        weights = self.scatterers.weights.expand(len(points), -1)
        if present is not None:
            weights = weights * self.scatterers.per_point(present.T).T
        shells = volume_shells(self.box)
        factor = self.gain[shells.clamp_max(self.last_shell)] * (shells <= self.last_shell)
        return torch.stack(
            [
                structure_factors(place, weight, 0.0, self.box, self.voxel_size) * factor
                for place, weight in zip(points, weights)
            ]
        )


@dataclass(frozen=True, eq=False)
class MapDensity:
    """Coefficients of decoded maps, up to a shell.

    Attributes
    ----------
    box : int
    voxel_size : float
        A, after the crop to `box` coefficients.
    last_shell : int
    offset : tuple of float
        Centre of the maps in the frame of the model file, A.
    map_voxel_size : float
        Of the decoded maps, A.
    """

    box: int
    voxel_size: float
    last_shell: int
    offset: tuple[float, float, float]
    map_voxel_size: float

    def __call__(self, objects: Tensor, present: Tensor | None = None) -> Tensor:
        """Coefficients (B, box, box, box // 2 + 1) of maps (B, D, D, D)."""
        return torch.stack(
            [crop_volume(transform_volume(one, self.map_voxel_size), self.box) for one in objects]
        )


def density_of_run(run: Run, resolution: float | None = None) -> StructureDensity | MapDensity:
    """Density of what a run decodes, up to a resolution.

    Parameters
    ----------
    run : Run
    resolution : float, optional
        A; never finer than the run's own cutoff. `FINEST_FIT` by default.
    """
    geometry = run.geometry
    side = geometry.box * geometry.pixel_size
    finest = max(geometry.cutoff, 2 * geometry.pixel_size)
    wanted = max(finest, FINEST_FIT) if resolution is None else max(finest, resolution)
    last = max(1, min(int(side / wanted + 1e-6), geometry.box // 2 - 1))
    box = 2 * (last + 1)
    placed = (box, side / box, last, geometry.offset)
    decoder, likelihood = run.image_model.decoder, run.image_model.likelihood
    if isinstance(decoder, StructureDecoder):
        gain = likelihood.gain.mean(0).detach()
        padded = torch.cat([gain, gain.new_zeros(max(0, last + 1 - len(gain)))])[: last + 1]
        return StructureDensity(*placed, decoder.scatterers, padded)
    return MapDensity(*placed, geometry.pixel_size)
