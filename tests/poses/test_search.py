"""Search: from poses off by 10 degrees and 3 pixels, and from nothing."""

import math

import torch

from cryoscape.physics.rotations import geodesic_angle
from cryoscape.poses.locate import distinct, locate
from cryoscape.poses.search import Candidates, SearchSettings
from tests.poses.scene import PIXEL, POINTS, TWOFOLD, batch, evidence, poses, searcher, turned


def median(values):
    return float(values.median())


def check(found, rotations, shifts):
    """Errors are what noise alone makes of them, by the posterior's own width."""
    angle = geodesic_angle(found.rotations, rotations)
    distance = (found.shifts - shifts).norm(dim=1)
    variance = found.covariance.diagonal(dim1=1, dim2=2)
    assert median(angle) < 1.4 * median(variance[:, :3].sum(1).sqrt())
    assert median(distance) < 1.4 * median(variance[:, 3:].sum(1).sqrt())
    return median(angle.rad2deg()), median(distance) / PIXEL


def test_local_search_mends_poses():
    rotations, _ = poses(24)
    around = torch.linspace(0, 6, 24, dtype=torch.float64)
    shifts = 3 * PIXEL * torch.stack([around.cos(), around.sin()], dim=-1)
    images, noise = batch(POINTS, rotations, shifts, 0.3)
    search = searcher(SearchSettings(math.radians(12), 4 * PIXEL), POINTS)
    found = locate(search, evidence(images, noise), turned(rotations, 10), torch.zeros(24, dtype=torch.long))
    angle, pixels = check(found, rotations, shifts)
    assert angle < 2.2
    assert pixels < 0.3
    assert bool((found.log_prob > found.log_prob_given).all())


def test_global_search_needs_no_pose():
    rotations, shifts = poses(8, seed=3)
    images, noise = batch(POINTS, rotations, shifts, 0.3)
    search = searcher(SearchSettings(None, 3 * PIXEL, keep=16), TWOFOLD, POINTS)
    given, _ = poses(8, seed=9)
    found = locate(search, evidence(images, noise), given, torch.ones(8, dtype=torch.long))
    check(found, rotations, shifts)


def test_a_frequency_limit_is_kept():
    settings = SearchSettings(math.radians(12), 4 * PIXEL, limit=1 / 15)
    search = searcher(settings, POINTS)
    assert search.frequencies[-1] == 1 / 15
    assert search.limit == search.band.below(1 / 15) < len(search.band)


def test_symmetry_is_seen_as_ambiguity():
    rotations, shifts = poses(6)
    images, noise = batch(TWOFOLD, rotations, shifts, 0.3)
    settings = SearchSettings(None, 3 * PIXEL, keep=16)
    zeros = torch.zeros(6, dtype=torch.long)
    found = locate(searcher(settings, TWOFOLD), evidence(images, noise), rotations, zeros)
    assert 0.3 < float(found.ambiguity.mean()) < 0.7
    images, noise = batch(POINTS, rotations, shifts, 0.3)
    found = locate(searcher(settings, POINTS), evidence(images, noise), rotations, zeros)
    assert float(found.ambiguity.median()) < 0.05


def test_distinct_poses_are_apart():
    base, _ = poses(1)
    near = turned(base.repeat(3, 1, 1), 1.0)
    far = turned(base, 40.0)
    candidates = Candidates(
        torch.cat([base, near, far])[None], torch.zeros(1, 5, 2), torch.tensor([[9.0, 8, 7, 6, 5]]), 0.1
    )
    kept, there = distinct(candidates, 3)
    assert there.tolist() == [[True, True, False]]
    assert torch.equal(kept.rotations[0, 1], far[0])
