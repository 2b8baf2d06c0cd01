"""What every decoder promises: z in, a scene out, which can be projected in any pose."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from cryoscape.models.centroids import ResidueCentroids
from cryoscape.physics import gaussians


class Scene(Protocol):
    """What a decoder makes of a batch of z: B objects in the world frame."""

    def project(self, rotations: Tensor, box: int, pixel_size: float) -> Tensor:
        """Fourier projections (B, box, box // 2 + 1) in the poses (B, 3, 3), without radial envelope."""
        ...


@dataclass(frozen=True)
class AtomicScene:
    """A batch of conformations as weighted points.

    Parameters
    ----------
    coords : Tensor, shape (B, N, 3)
        Beads in the world frame (origin at the box centre), Angstrom.
    weights : Tensor, shape (N,)
        Electrons of each residue, divided by their sum.
    centroids : ResidueCentroids, optional
        Where the residues scatter from; the beads themselves by default.
    """

    coords: Tensor
    weights: Tensor
    centroids: ResidueCentroids | None = None

    def project(self, rotations: Tensor, box: int, pixel_size: float) -> Tensor:
        """Structure factors (B, box, box // 2 + 1), without envelope: the likelihood's gain carries it."""
        points = self.coords if self.centroids is None else self.centroids(self.coords)
        return gaussians.project_fourier(points, self.weights, rotations, box, pixel_size)


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
    weights : Tensor, shape (N,)
        Adds up to 1.
    centroids : ResidueCentroids or None
        Set by the assembler where residues scatter from their centre of electrons.
    """

    reference: Tensor
    weights: Tensor

    def __init__(self, z_dim: int, reference: Tensor, weights: Tensor) -> None:
        super().__init__()
        self.z_dim = z_dim
        self.centroids: ResidueCentroids | None = None
        self.register_buffer("reference", reference.float())
        self.register_buffer("weights", (weights / weights.sum()).float())

    @abstractmethod
    def coordinates(self, z: Tensor) -> Tensor:
        """Positions of every residue, (B, z_dim) -> (B, N, 3), Angstrom, world frame."""

    def forward(self, z: Tensor) -> AtomicScene:
        """Decode a batch of latents to conformations."""
        return self.scene(self.coordinates(z))

    def scene(self, coords: Tensor) -> AtomicScene:
        """Conformations (B, N, 3) as a scene."""
        return AtomicScene(coords, self.weights, self.centroids)
