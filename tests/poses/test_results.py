"""Tables of poses before and after."""

import math
from types import SimpleNamespace

import numpy as np
import torch

from cryoscape.poses.locate import Located, PoseHistory
from cryoscape.poses.results import PoseTable, angle_between
from tests.poses.scene import poses, turned


def made(gain):
    given, shifts = poses(3)
    located = Located(
        turned(given, 5),
        torch.full((3, 2), 3.0).double(),
        torch.tensor(gain) + 7.0,
        torch.full((3,), 7.0),
        torch.diag(torch.tensor([1e-4, 1e-4, 1e-4, 4.0, 4.0])).double().expand(3, 5, 5),
        torch.tensor([0.0, 0.9, 0.0]),
    )
    particles = SimpleNamespace(
        rotations=given.numpy(),
        shifts=shifts.numpy(),
        uid=np.arange(3, dtype=np.uint64),
        row=np.arange(3),
    )
    return particles, located, PoseTable.compare(particles, located)


def test_a_pose_that_is_not_better_stays():
    particles, _, table = made([2.0, 0.0, -4.0])
    assert table.moved.tolist() == [True, False, False]
    np.testing.assert_array_equal(table.rotations[1:], particles.rotations[1:])
    np.testing.assert_array_equal(table.shifts[1:], particles.shifts[1:])
    np.testing.assert_allclose(table.shifts[0], particles.shifts[0] + 3)
    np.testing.assert_allclose(table.angle, [5, 0, 0], atol=1e-6)
    np.testing.assert_allclose(table.distance, [math.sqrt(18), 0, 0])
    np.testing.assert_allclose(table.rotation_sd, np.rad2deg(0.01))
    np.testing.assert_allclose(table.shift_sd, 2.0)


def test_files_and_words(tmp_path):
    _, _, table = made([2.0, 0.0, -4.0])
    table.write(tmp_path / "poses.npz")
    with np.load(tmp_path / "poses.npz", allow_pickle=False) as stored:
        np.testing.assert_array_equal(stored["rotations"], table.rotations)
        np.testing.assert_array_equal(stored["gain"], table.gain)
    text = "\n".join(table.lines(3.0))
    assert "1 have a better pose, 2 keep theirs" in text
    assert "1 particles are ambiguous" in text


def test_shifts_of_later_passes_add_up():
    _, located, _ = made([2.0, 0.0, -4.0])
    before, _ = poses(3, seed=5)
    past = PoseHistory(before, torch.ones(3, 2).double(), torch.tensor([1.0, 1.0, 100.0]))
    total = located.since(past)
    np.testing.assert_allclose(total.shifts, [[4, 4], [1, 1], [1, 1]])
    np.testing.assert_allclose(total.rotations[1:], before[1:])
    np.testing.assert_allclose(total.log_prob, [9, 7, 7])
    np.testing.assert_allclose(total.log_prob_given, [1, 1, 100])


def test_small_angles_are_exact():
    base, _ = poses(2)
    np.testing.assert_allclose(angle_between(base.numpy(), turned(base, 1e-5).numpy()), 1e-5, rtol=1e-4)
