"""What every decoder promises: z in, a scene out, which can be projected in any pose."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from cryoscape.models.occupancy import Chains
from cryoscape.models.scattering import BeadScatterers, Scatterers
from cryoscape.physics import gaussians
from cryoscape.physics.fourier_voxels import SliceSampler, to_rows
from cryoscape.physics.resolution import soft_sphere
from cryoscape.physics.slices import interpolation_envelope, transform_volume


class Scene(Protocol):
    """What a decoder makes of a batch of z: B objects in the world frame."""

    def project(self, rotations: Tensor, box: int, pixel_size: float) -> Tensor:
        """Fourier projections (B, box, box // 2 + 1) in the poses (B, 3, 3), without CTF and gain.

        A scene of one object is projected in all poses.
        """
        ...


@dataclass(frozen=True)
class AtomicScene:
    """A batch of conformations.

    Parameters
    ----------
    coords : Tensor, shape (B, N, 3) or (1, N, 3)
        Beads in the world frame (origin at the box centre), Angstrom.
    scatterers : Scatterers or BeadScatterers
        Where they scatter from, and how strongly.
    weights : Tensor, shape (B, P) or (1, P), optional
        How strongly each point of each conformation scatters, where something may be absent. In the units of
        `scatterers.weights`, whose sum over the whole reference is 1.
    """

    coords: Tensor
    scatterers: Scatterers | BeadScatterers
    weights: Tensor | None = None

    @property
    def point_weights(self) -> Tensor:
        """How strongly the points scatter, shape (P,), or (B, P) or (1, P) where something may be absent."""
        return self.scatterers.weights if self.weights is None else self.weights

    def project(self, rotations: Tensor, box: int, pixel_size: float) -> Tensor:
        """Structure factors (B, box, box // 2 + 1), without envelope: the likelihood's gain carries it."""
        # Mixed precision is for the products of the projection, not for positions.
        with torch.autocast(self.coords.device.type, enabled=False):
            points = self.scatterers(self.coords)
        return gaussians.project_fourier(points, self.point_weights, rotations, box, pixel_size)


@dataclass(frozen=True)
class MapScene:
    """A batch of density maps, or one.

    Parameters
    ----------
    sampler : SliceSampler
    rows : Tensor, shape (B, R, 2) or (1, R, 2)
        Fourier voxels in the units of the images, corrected for the interpolation.
    """

    sampler: SliceSampler
    rows: Tensor

    def project(self, rotations: Tensor, box: int, pixel_size: float) -> Tensor:
        """Central slices (B, box, box // 2 + 1)."""
        if len(self.rows) == 1:
            values = self.sampler.sample(self.rows[0].unsqueeze(-1), rotations)
        else:
            parts = (self.sampler.sample(r.unsqueeze(-1), a[None]) for r, a in zip(self.rows, rotations))
            values = torch.cat(list(parts))
        return self.sampler.image(values[..., 0])


class Decoder(nn.Module, ABC):
    """Maps latents (B, z_dim) to a scene.

    An *object* is what a decoder moves or changes, as a tensor: the positions of a structure (N, 3), or the
    Fourier voxels of a map (R, 2).

    Attributes
    ----------
    reference : Tensor
        The object that training starts from.
    """

    z_dim: int
    reference: Tensor

    @abstractmethod
    def forward(self, z: Tensor) -> Scene:
        """Decode a batch of latents."""

    @abstractmethod
    def objects(self, z: Tensor) -> Tensor:
        """Decode a batch of latents to objects, (B, z_dim) -> (B, *reference.shape)."""

    @abstractmethod
    def scene(self, objects: Tensor) -> Scene:
        """Objects (B, ...) as a scene."""

    def mean_scene(self, z: Tensor) -> Scene:
        """One scene: the mean of what latents (n, z_dim) decode to."""
        return self.scene(self.mean_object(z)[None])

    def mean_object(self, z: Tensor) -> Tensor:
        """Mean of the objects of latents (n, z_dim)."""
        return torch.stack([self.objects(part).sum(0) for part in z.split(64)]).sum(0) / len(z)

    def penalty(self) -> Tensor:
        """Regularisation of the decoder's own parameters, nats for the whole data set; 0 by default."""
        return torch.zeros(())

    @property
    def coverage(self) -> float:
        """Share of the coefficients that projections hold now; the others, drawn at random, are zero.

        A likelihood relative to an empty prediction is a sum over coefficients that is zero where the
        projection is: divided by this share it is, in expectation, that of all coefficients.
        """
        return 1.0

    def constrain(self) -> None:
        """Bring the parameters back to where they may be; called every so many steps. By default nothing."""

    def fast_parameters(self) -> list[nn.Parameter]:
        """Parameters with a learning rate of the decoder's own: `decoder.lr` in place of `training.lr`."""
        return []


class VolumeDecoder(Decoder):
    """A decoder whose scenes are density maps in the units of the images.

    Parameters
    ----------
    z_dim : int
    sampler : SliceSampler
        Of the band-limited box.
    pixel_size : float
        Of that box, Angstrom.
    scale : float
        Continuous transform of a map / unitary coefficient of an image: image box times pixel area.
    reference : Tensor, shape (box, box, box)
        Consensus map, density per cubic Angstrom in the scale of the images.
    """

    def __init__(
        self, z_dim: int, sampler: SliceSampler, pixel_size: float, scale: float, reference: Tensor
    ) -> None:
        super().__init__()
        self.z_dim, self.sampler, self.box = z_dim, sampler, sampler.box
        self.pixel_size, self.scale = pixel_size, scale
        self.register_buffer("reference", self.rows_of(reference[None])[0])

    @abstractmethod
    def volumes(self, z: Tensor) -> Tensor:
        """Density maps of latents, (n, z_dim) -> (n, box, box, box), per cubic Angstrom in image units."""

    def rows_of(self, maps: Tensor) -> Tensor:
        """Maps (n, box, box, box) as objects (n, R, 2): unitary image units, corrected for interpolation.

        The correction grows without bound towards the corners, where nothing can be seen in all views: the
        map is cut to the inscribed sphere first.
        """
        edge = 0.1 * self.box
        inside = soft_sphere(self.box, self.box / 2 - edge, edge, device=maps.device)
        corrected = maps * (inside / interpolation_envelope(self.box, device=maps.device))
        return to_rows(transform_volume(corrected, self.pixel_size)) / self.scale

    def objects(self, z: Tensor) -> Tensor:
        """Fourier voxels of the maps of latents, (n, z_dim) -> (n, R, 2)."""
        return self.rows_of(self.volumes(z))

    def scene(self, objects: Tensor) -> Scene:
        """Maps given as Fourier voxels (B, R, 2)."""
        return MapScene(self.sampler, objects)

    def mean_object(self, z: Tensor) -> Tensor:
        """Voxels of the mean map of up to 64 of the latents: a map costs more than a structure."""
        part = z[:: max(1, len(z) // 64)]
        return torch.stack([self.objects(one[None])[0] for one in part]).mean(0)

    def _apply(self, fn: Any, recurse: bool = True) -> VolumeDecoder:
        super()._apply(fn, recurse)
        self.sampler.to(self.reference.device)
        return self


class StructureDecoder(Decoder):
    """A decoder whose scenes are atomic: the reference structure, moved.

    Attributes
    ----------
    reference : Tensor, shape (N, 3)
        World frame, Angstrom.
    scatterers : Scatterers or BeadScatterers
        Where the residues scatter from.
    chains : Chains or None
        Which chains may be absent; None where all are always there.
    """

    reference: Tensor

    def __init__(
        self,
        z_dim: int,
        reference: Tensor,
        scatterers: Scatterers | BeadScatterers,
        chains: Chains | None = None,
    ) -> None:
        super().__init__()
        self.z_dim = z_dim
        self.register_buffer("reference", reference.float())
        self.scatterers = scatterers
        self.chains = chains

    @abstractmethod
    def coordinates(self, z: Tensor) -> Tensor:
        """Positions of every residue, (B, z_dim) -> (B, N, 3), Angstrom, world frame."""

    def objects(self, z: Tensor) -> Tensor:
        """The same: the objects of this decoder are structures."""
        return self.coordinates(z)

    def occupancy(self, z: Tensor) -> Tensor | None:
        """Share of every chain that is there, (B, z_dim) -> (B, chains); None where all always are.

        Chains are in the order of their numbers, those that are never absent among them, with 1.
        """
        return None

    def mean_scene(self, z: Tensor) -> AtomicScene:
        """Mean structure of latents (n, z_dim), its chains present as often as they are on average."""
        present = self.occupancy(z)
        mean = None if present is None else present.mean(0, keepdim=True)
        return self.scene(self.mean_object(z)[None], mean)

    def forward(self, z: Tensor) -> AtomicScene:
        """Decode a batch of latents to conformations."""
        return self.scene(self.coordinates(z), self.occupancy(z))

    def scene(self, objects: Tensor, occupancy: Tensor | None = None) -> AtomicScene:
        """Conformations (B, N, 3) as a scene, with the occupancy (B, chains) of their chains, if any."""
        if occupancy is None:
            return AtomicScene(objects, self.scatterers)
        assert self.chains is not None
        return AtomicScene(objects, self.scatterers, self.chains.point_weights(occupancy))
