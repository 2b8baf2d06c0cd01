"""Images of known truth in memory, and scenes of a few points."""

from dataclasses import dataclass, fields

import torch

from cryoscape.data.images import ImageBatch
from cryoscape.models.likelihoods import GaussianLikelihood
from cryoscape.physics import gaussians
from tests.models.scenes import BOX, CUTOFF, PIXEL, batch_of, chain


@dataclass
class Images:
    """All images as one batch."""

    all: ImageBatch

    def __len__(self):
        return len(self.all.rows)

    def batch(self, rows):
        return ImageBatch(*(getattr(self.all, f.name)[rows] for f in fields(ImageBatch)))


@dataclass
class Points:
    """A scene of one object."""

    coords: torch.Tensor

    def project(self, rotations, box, pixel_size):
        weights = torch.full((len(self.coords),), 1 / len(self.coords))
        return gaussians.project_fourier(self.coords[None], weights, rotations, box, pixel_size)


def scene_and_images(n=64, gain=3.0, noise=1.0, seed=0):
    """A chain, and images of it with white noise."""
    coords = chain()
    weights = torch.full((len(coords),), 1 / len(coords))
    return Points(coords), Images(batch_of(coords, weights, gain=gain, noise=noise, n=n, seed=seed))


def likelihood_of(gain=3.0, noise=1.0):
    """The likelihood of those images."""
    found = GaussianLikelihood(BOX, PIXEL, CUTOFF)
    found.gain.fill_(gain)
    found.noise.fill_(noise)
    return found
