"""Pose corrections: Adam row by row, and poses that come right against a known map."""

import copy
import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from cryoscape.physics import fourier
from cryoscape.physics.rotations import geodesic_angle
from cryoscape.training.pose_table import PoseCorrections
from tests.poses.scene import BOX, PIXEL, POINTS, batch, likelihood, poses, project, turned


@dataclass
class FewParticles:
    rotations: np.ndarray
    shifts: np.ndarray

    def __len__(self):
        return len(self.shifts)


def test_rows_are_stepped_as_by_adam():
    table = PoseCorrections(4)
    weights = torch.zeros(4, 5, requires_grad=True)
    adam = torch.optim.Adam([weights], lr=0.1, betas=(0.9, 0.99))
    g = torch.Generator().manual_seed(0)
    for _ in range(5):
        target = torch.randn(4, 5, generator=g)
        rows = torch.randperm(4, generator=g)
        correction = table.at(rows)
        ((correction.scaled - target[rows]) ** 3).sum().backward()
        table.update(correction, 0.1)
        adam.zero_grad()
        ((weights - target) ** 3).sum().backward()
        adam.step()
    torch.testing.assert_close(table.values, weights.detach(), rtol=1e-4, atol=1e-5)


def test_only_the_rows_of_a_batch_move():
    table = PoseCorrections(5)
    correction = table.at(torch.tensor([3, 1]))
    correction.scaled.sum().backward()
    table.update(correction, 0.1)
    assert table.visits.tolist() == [0, 1, 0, 1, 0]
    assert bool((table.values[[0, 2, 4]] == 0).all())
    assert bool((table.values[[1, 3]] < 0).all())


def test_a_state_read_back_goes_on_the_same():
    def steps(table, count):
        for i in range(count):
            correction = table.at(torch.tensor([i % 3, 2]))
            (correction.scaled * (i + 1.0)).square().sum().backward()
            correction.scaled.grad.add_(1.0)
            table.update(correction, 0.05)

    through, stopped = PoseCorrections(3), PoseCorrections(3)
    steps(through, 4)
    steps(stopped, 4)
    resumed = PoseCorrections(3)
    resumed.load_state_dict(copy.deepcopy(stopped.state_dict()))
    steps(through, 3)
    steps(resumed, 3)
    assert torch.equal(through.values, resumed.values)


def test_a_particle_twice_in_a_batch_is_moved_once():
    table = PoseCorrections(2)
    correction = table.at(torch.tensor([1, 1]))
    correction.scaled.sum().backward()
    table.update(correction, 0.1)
    assert table.visits.tolist() == [0, 1]
    torch.testing.assert_close(table.values[1], torch.full((5,), -0.1))


def test_poses_come_right_against_a_known_map():
    n = 16
    rotations, _ = poses(n)
    images, noise = batch(POINTS, rotations, torch.zeros(n, 2), 2.0)
    given = turned(rotations, 4).float()
    off = torch.full((n, 2), 2.0)
    frequencies = fourier.frequency_grid(BOX, PIXEL)
    # The table says that particles lie 2 A off, so the images are recentred wrongly.
    centred = images.images * fourier.shift_phase(-off, frequencies)
    like, table = likelihood(noise), PoseCorrections(n, rotation_sd=4.0, shift_sd=2.0)
    for epoch in range(60):
        correction = table.at(torch.arange(n))
        projections = project(POINTS, correction.rotate(given)) * correction.phase(frequencies)
        value = like.log_prob(centred, projections, images.ctf, images.group)
        (correction.penalty() - value).mean().backward()
        table.update(correction, 0.2 * (1 - epoch / 60))
    particles = FewParticles(given.double().numpy(), off.double().numpy())
    found = table.moved(particles)
    angle = geodesic_angle(torch.from_numpy(found.rotations), rotations).rad2deg()
    assert float(angle.median()) < 1.2
    assert float(torch.from_numpy(found.shifts).norm(dim=1).median()) < 0.6
    torch.testing.assert_close(table.angles().median(), torch.tensor(4.0), rtol=0.15, atol=0)
    assert float(table.distances().median()) == pytest.approx(2 * math.sqrt(2), rel=0.2)
    with pytest.raises(ValueError, match="16 corrections"):
        table.moved(FewParticles(given[:3].numpy(), off[:3].numpy()))
