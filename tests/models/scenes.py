"""Small image models and images of known truth, shared by the tests of this folder."""

import torch

from cryoscape.data.images import ImageBatch
from cryoscape.physics import fourier, gaussians
from cryoscape.physics.ctf import ctf
from cryoscape.physics.rotations import random_rotations

BOX, PIXEL, CUTOFF = 24, 3.0, 7.0


def chain(n=30, seed=0):
    """A compact random chain, centred."""
    g = torch.Generator().manual_seed(seed)
    steps = torch.randn(n, 3, generator=g)
    beads = torch.cumsum(3.8 * steps / steps.norm(dim=1, keepdim=True), 0)
    return beads - beads.mean(0)


def batch_of(coords, weights, *, gain=1.0, noise=1.0, n=64, seed=0, structures=None):
    """Images of a structure (or of one structure each) with white noise of known variance."""
    g = torch.Generator().manual_seed(seed)
    rotations = random_rotations(n, g).float()
    grid = fourier.frequency_grid(BOX, PIXEL)
    defocus = 8000 + 12000 * torch.rand(n, generator=g)
    transfer = ctf(grid, defocus, defocus, torch.zeros(n), 300, 2.7, 0.1)
    points = coords[None] if structures is None else structures
    clean = gain * transfer * gaussians.project_fourier(points, weights, rotations, BOX, PIXEL)
    pixels = torch.randn(n, BOX, BOX, generator=g) * noise**0.5
    images = clean + fourier.forward(pixels)
    return ImageBatch(torch.arange(n), images, transfer, rotations, torch.zeros(n, dtype=torch.long))
