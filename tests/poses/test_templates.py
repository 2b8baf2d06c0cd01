"""Slices of maps against the formula of the projection."""

import pytest
import torch

from cryoscape.poses.templates import Band, TemplateMaps, radius_of
from tests.poses.scene import BOX, PIXEL, POINTS, SCALE, TWOFOLD, density, likelihood, poses, project


def test_slices_are_projections():
    band = Band.of(likelihood().weights, PIXEL)
    maps = TemplateMaps(torch.stack([density(POINTS), density(TWOFOLD)]), PIXEL, SCALE)
    rotations, _ = poses(6)
    labels = torch.tensor([0, 1, 0, 1, 1, 0])
    ours = maps.slices(labels, rotations, band.frequency)
    truth = torch.stack(
        [project([POINTS, TWOFOLD][n], r[None])[0] for n, r in zip(labels.tolist(), rotations)]
    ).flatten(1)[:, band.index]
    error = (torch.complex(ours[:, 0], ours[:, 1]) - truth).norm(dim=1) / truth.norm(dim=1)
    assert float(error.max()) < 0.02


def test_band_is_ordered_and_complete():
    weights = likelihood().weights
    band = Band.of(weights, PIXEL)
    assert len(band) == int((weights > 0).sum())
    assert bool((band.radius.diff() >= 0).all())
    low = band.below(1 / 20)
    assert 0 < low < len(band)
    assert float(band.radius[low - 1]) <= 1 / 20 < float(band.radius[low])


def test_radius_is_that_of_the_particle_not_of_the_noise():
    true = POINTS.norm(dim=1).square().mean().sqrt() * (5 / 3) ** 0.5
    noise = torch.randn(BOX, BOX, BOX, generator=torch.Generator().manual_seed(0))
    clean = density(POINTS)
    assert radius_of(clean, PIXEL) == pytest.approx(float(true), rel=0.15)
    assert radius_of(clean + 0.03 * clean.max() * noise, PIXEL) == pytest.approx(float(true), rel=0.2)
