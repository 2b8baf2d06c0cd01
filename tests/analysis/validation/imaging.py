"""Two conformations of a bent chain, random views, and a likelihood of given noise: images of known truth."""

from dataclasses import dataclass

import torch

from cryoscape.data.images import ImageBatch
from cryoscape.models.decoders.base import AtomicScene
from cryoscape.models.likelihoods import GaussianLikelihood
from cryoscape.models.scattering import BeadScatterers
from cryoscape.physics import fourier
from cryoscape.physics.ctf import ctf
from cryoscape.physics.rotations import random_rotations
from tests.training.builders import states

BOX, PIXEL, CUTOFF = 24, 3.0, 8.0


@dataclass
class Particles:
    """Poses and transfer functions of n particles, without images."""

    rotations: torch.Tensor
    transfer: torch.Tensor

    def __call__(self, rows):
        blank = torch.zeros(len(rows), BOX, BOX // 2 + 1, dtype=torch.complex64)
        group = torch.zeros(len(rows), dtype=torch.int64)
        return ImageBatch(rows, blank, self.transfer[rows], self.rotations[rows], group)


def particles(n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    defocus = 8000 + 12000 * torch.rand(n, generator=generator, dtype=torch.float64)
    grid = fourier.frequency_grid(BOX, PIXEL)
    transfer = ctf(grid, defocus, defocus, torch.zeros(n), 300.0, 2.7, 0.1)
    return Particles(random_rotations(n, generator).float(), transfer)


def scenes(*angles):
    """The chain with its last part turned by each angle, degrees."""
    scatterers = BeadScatterers(torch.ones(30))
    return [AtomicScene(torch.from_numpy(states(30, a)[1])[None].float(), scatterers) for a in angles]


def likelihood_of(scene, nats, seed=5):
    """Noise that falls off, with a signal of `nats` an image of a scene on average."""
    like = GaussianLikelihood(BOX, PIXEL, CUTOFF)
    shell = torch.arange(like.n_shells)
    like.gain[:] = torch.exp(-0.02 * shell.float() ** 2)
    like.noise[:] = 1.0 + 2.0 / (1.0 + shell)
    batch = particles(200, seed)(torch.arange(200))
    y = scene.project(batch.rotations, BOX, PIXEL)
    signal = like.log_prob(like.transfer(batch.ctf, batch.group) * y, y, batch.ctf, batch.group)
    like.noise *= float(signal.mean()) / nats
    return like
