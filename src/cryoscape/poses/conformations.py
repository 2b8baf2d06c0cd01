"""The conformations that particles are compared with: a run's decoder without the motions of the whole.

A structure that is moved as a whole by its latent, and seen in a wrong pose, explains an image as well as the
right one in the right pose. A decoder that learnt from wrong poses does just that. So structures are
superposed first, on what moves least among them: weights are the inverse variances of the residues, found
together with the mean (Theobald and Wuttke, Proc. Natl. Acad. Sci. 103 (2006), 18521-18527). A map cannot
be superposed in this way and is taken as it is decoded.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cryoscape.models.decoders.base import Scene, StructureDecoder
from cryoscape.models.density import coordinate_maps
from cryoscape.poses.templates import TemplateMaps
from cryoscape.structures.superposition import superpose
from cryoscape.training.run import Run

SAMPLE = 512
"""Latents behind the mean structure; a sixteenth of them behind the mean map."""

_ROUNDS = 10
_FLOOR = 0.05
"""Variances below this part of their mean count as it: no residue alone decides."""


class Conformations:
    """What a run's decoder makes of latents, without motions of the whole.

    Parameters
    ----------
    run : Run
    z : Tensor, shape (N, d)
        Latents of the particles.
    first : Conformations, optional
        Those of the poses given, whose mean lies where the model or the consensus was placed: later ones are
        laid on it, or the whole would drift.
    """

    def __init__(self, run: Run, z: Tensor, first: Conformations | None = None) -> None:
        self._run, self._decoder = run, run.image_model.decoder
        self._sample = z[torch.linspace(0, len(z) - 1, min(len(z), SAMPLE)).long()]
        self._frame = self._mean = self._weights = torch.empty(0)
        if isinstance(self._decoder, StructureDecoder):
            coords = self._decoder.coordinates(self._sample)
            self._frame = coords.mean(0) if first is None else first._frame
            self._mean, self._weights = common_frame(coords, self._frame)

    def scene(self, z: Tensor) -> Scene:
        """Objects of latents (B, d), to be projected."""
        if isinstance(self._decoder, StructureDecoder):
            return self._decoder.scene(self._still(self._decoder.coordinates(z)), self._decoder.occupancy(z))
        return self._decoder(z)

    def maps(self, z: Tensor) -> Tensor:
        """Maps (n, box, box, box) of latents (n, d), in the scale of the images."""
        if isinstance(self._decoder, StructureDecoder):
            return self._structure_maps(self._still(self._decoder.coordinates(z)), self._decoder.occupancy(z))
        return torch.from_numpy(self._run.decode_maps(z.numpy()))

    def consensus(self) -> Tensor:
        """One map (box, box, box) for all: of the mean structure, or the mean of the maps."""
        if isinstance(self._decoder, StructureDecoder):
            present = self._decoder.occupancy(self._sample)
            mean = None if present is None else present.mean(0, keepdim=True)
            return self._structure_maps(self._mean[None], mean)[0]
        return self.maps(self._sample[::16]).mean(0)

    def _still(self, coords: Tensor) -> Tensor:
        return superpose(coords, self._mean, self._weights)

    def _structure_maps(self, coords: Tensor, occupancy: Tensor | None) -> Tensor:
        assert isinstance(self._decoder, StructureDecoder)
        likelihood = self._run.image_model.likelihood
        return coordinate_maps(self._decoder, likelihood, coords, self._run.geometry.scale, occupancy)


def common_frame(coords: Tensor, frame: Tensor) -> tuple[Tensor, Tensor]:
    """Mean structure and weights of the residues that make an ensemble stand still.

    Parameters
    ----------
    coords : Tensor, shape (n, N, 3)
        Angstrom.
    frame : Tensor, shape (N, 3)
        Structure on which the mean is laid.

    Returns
    -------
    mean : Tensor, shape (N, 3)
        Of the superposed structures.
    weights : Tensor, shape (N,)
        Inverse variances, of mean 1.
    """
    mean = frame
    weights = torch.ones(coords.shape[1])
    for _ in range(_ROUNDS):
        still = superpose(coords, mean, weights)
        # The mean of turned copies is shrunk; that of superposed ones is not, but drifts.
        mean = superpose(still.mean(0), frame, weights)
        variance = (superpose(coords, mean, weights) - mean).square().sum(-1).mean(0)
        weights = 1 / variance.clamp_min(_FLOOR * float(variance.mean()) + 1e-6)
        weights = weights / weights.mean()
    return mean, weights


def group(points: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Groups of latents (N, d), and the particle nearest to the middle of each.

    Nearest, since a mean of latents may lie where there is nothing.

    Parameters
    ----------
    points : Tensor, shape (N, d)
    most : int
        Groups at most; every one has 50 particles on average.

    Returns
    -------
    labels : Tensor, shape (N,), int64
    nearest : Tensor, shape (groups,), int64
    """
    from sklearn.cluster import KMeans

    number = max(1, min(most, len(points) // 50))
    fitted = KMeans(number, n_init=1, random_state=0).fit(points.numpy())
    centres = torch.from_numpy(fitted.cluster_centers_).to(points.dtype)
    return torch.from_numpy(fitted.labels_).long(), torch.cdist(centres, points).argmin(1)


def templates_of(maps: Tensor, run: Run) -> TemplateMaps:
    """Maps (n, box, box, box) of a run, ready to be searched against."""
    return TemplateMaps(maps, run.geometry.pixel_size, run.geometry.scale)
