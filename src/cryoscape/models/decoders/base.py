"""What every decoder promises: z in, a scene out, which can be projected in any pose."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from cryoscape.models.scattering import BeadScatterers, Scatterers
from cryoscape.physics import gaussians


class Scene(Protocol):
    """What a decoder makes of a batch of z: B objects in the world frame."""

    def project(self, rotations: Tensor, box: int, pixel_size: float) -> Tensor:
        """Fourier projections (B, box, box // 2 + 1) in the poses (B, 3, 3), without radial envelope."""
        ...


@dataclass(frozen=True)
class AtomicScene:
    """A batch of conformations.

    Parameters
    ----------
    coords : Tensor, shape (B, N, 3)
        Beads in the world frame (origin at the box centre), Angstrom.
    scatterers : Scatterers or BeadScatterers
        Where they scatter from, and how strongly.
    """

    coords: Tensor
    scatterers: Scatterers | BeadScatterers

    def project(self, rotations: Tensor, box: int, pixel_size: float) -> Tensor:
        """Structure factors (B, box, box // 2 + 1), without envelope: the likelihood's gain carries it."""
        # Mixed precision is for the products of the projection, not for positions.
        with torch.autocast(self.coords.device.type, enabled=False):
            points = self.scatterers(self.coords)
        return gaussians.project_fourier(points, self.scatterers.weights, rotations, box, pixel_size)


class Decoder(nn.Module, ABC):
    """Maps latents (B, z_dim) to a scene."""

    z_dim: int

    @abstractmethod
    def forward(self, z: Tensor) -> Scene:
        """Decode a batch of latents."""

    def penalty(self) -> Tensor:
        """Regularisation of the decoder's own parameters, nats for the whole data set; 0 by default."""
        return torch.zeros(())


class StructureDecoder(Decoder):
    """A decoder whose scenes are atomic: the reference structure, moved.

    Attributes
    ----------
    reference : Tensor, shape (N, 3)
        World frame, Angstrom.
    scatterers : Scatterers or BeadScatterers
        Where the residues scatter from.
    """

    reference: Tensor

    def __init__(self, z_dim: int, reference: Tensor, scatterers: Scatterers | BeadScatterers) -> None:
        super().__init__()
        self.z_dim = z_dim
        self.register_buffer("reference", reference.float())
        self.scatterers = scatterers

    @abstractmethod
    def coordinates(self, z: Tensor) -> Tensor:
        """Positions of every residue, (B, z_dim) -> (B, N, 3), Angstrom, world frame."""

    def forward(self, z: Tensor) -> AtomicScene:
        """Decode a batch of latents to conformations."""
        return self.scene(self.coordinates(z))

    def scene(self, coords: Tensor) -> AtomicScene:
        """Conformations (B, N, 3) as a scene."""
        return AtomicScene(coords, self.scatterers)
