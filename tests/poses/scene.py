"""A lopsided object of a few Gaussians, projected by its formula and not by slices of a map."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from cryoscape.data.images import ImageBatch
from cryoscape.models.likelihoods import GaussianLikelihood
from cryoscape.physics import fourier, gaussians
from cryoscape.physics.ctf import ctf
from cryoscape.physics.rotations import random_rotations, small_rotation
from cryoscape.poses.evidence import Evidence
from cryoscape.poses.search import PoseSearch, SearchSettings
from cryoscape.poses.templates import Band, TemplateMaps

BOX, PIXEL, SIGMA = 32, 3.0, 3.0
SCALE = BOX * PIXEL**2
POINTS = torch.tensor(
    [
        [18.0, 2, 0],
        [-14, 9, 3],
        [-3, -20, 6],
        [4, 6, 22],
        [9, 12, -9],
        [-8, -5, -15],
        [2, 16, 12],
        [-17, -9, 8],
    ]
)
TWOFOLD = torch.cat([POINTS, POINTS * torch.tensor([-1.0, -1.0, 1.0])])


def project(points: Tensor, rotations: Tensor) -> Tensor:
    """Unitary coefficients (B, box, box // 2 + 1) of the object in some poses."""
    weights = torch.ones(len(points))
    n = len(rotations)
    plain = gaussians.project_fourier(points.expand(n, -1, -1), weights, rotations.float(), BOX, PIXEL)
    k2 = fourier.frequency_grid(BOX, PIXEL).square().sum(-1)
    return plain * torch.exp(-2 * math.pi**2 * SIGMA**2 * k2) / SCALE


def density(points: Tensor) -> Tensor:
    """The object as a map (box, box, box)."""
    return gaussians.voxelise(points, torch.ones(len(points)), SIGMA, BOX, PIXEL)


def likelihood(noise: float = 1.0) -> GaussianLikelihood:
    """Without gain, with white noise."""
    made = GaussianLikelihood(BOX, PIXEL, 2.2 * PIXEL)
    made.noise.fill_(noise)
    return made


def batch(
    points: Tensor, rotations: Tensor, shifts: Tensor, snr: float, seed: int = 0
) -> tuple[ImageBatch, float]:
    """Images with noise, and its variance; snr 0 is noise alone, infinity none."""
    g = torch.Generator().manual_seed(seed)
    n = len(rotations)
    defocus = torch.linspace(8000, 16000, n, dtype=torch.float64)
    grid = fourier.frequency_grid(BOX, PIXEL)
    transfer = ctf(grid, defocus, defocus, torch.zeros(n), 300.0, 2.7, 0.1)
    clean = transfer * project(points, rotations) * fourier.shift_phase(shifts.float(), grid)
    power = float(fourier.inverse(clean, BOX).var())
    noise = power / snr if 0 < snr < math.inf else power
    spread = 0.0 if snr == math.inf else noise**0.5
    white = fourier.forward(torch.randn(n, BOX, BOX, generator=g)) * spread
    images = white if snr == 0 else clean + white
    rows = torch.arange(n)
    return ImageBatch(rows, images, transfer, rotations.float(), torch.zeros(n, dtype=torch.long)), noise


def poses(n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Random rotations, and shifts of up to two pixels."""
    g = torch.Generator().manual_seed(seed)
    return random_rotations(n, g), (4 * PIXEL * torch.rand(n, 2, generator=g) - 2 * PIXEL).double()


def turned(rotations: Tensor, degrees: float, seed: int = 1) -> Tensor:
    """The rotations, turned by an angle about axes at random."""
    g = torch.Generator().manual_seed(seed)
    axis = torch.randn(len(rotations), 3, generator=g, dtype=torch.float64)
    return small_rotation(axis / axis.norm(dim=-1, keepdim=True) * math.radians(degrees)) @ rotations


def searcher(settings: SearchSettings, *points: Tensor) -> PoseSearch:
    """A search against the maps of some objects."""
    maps = TemplateMaps(torch.stack([density(p) for p in points]), PIXEL, SCALE)
    return PoseSearch(maps, Band.of(likelihood().weights, PIXEL), settings)


def evidence(images: ImageBatch, noise: float) -> Evidence:
    """Evidence of images under white noise."""
    like = likelihood(noise)
    return Evidence.of(images, like, Band.of(like.weights, PIXEL))
