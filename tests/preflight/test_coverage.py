"""Evenness of views."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from cryoscape.preflight.coverage import orientation_efficiency, sphere_points


def test_uniform_views_are_efficient():
    assert orientation_efficiency(Rotation.random(5000, random_state=0).as_matrix()) > 0.97


def test_a_single_view_is_not():
    spin = Rotation.from_rotvec(np.linspace(0, 6, 500)[:, None] * [0.0, 0.0, 1.0]).as_matrix()
    assert orientation_efficiency(spin) < 0.1


def test_side_views_beat_top_views_alone():
    rng = np.random.default_rng(0)
    angles = rng.uniform(0, 360, (2000, 2))
    side = Rotation.from_euler("ZYZ", np.c_[angles[:, 0], np.full(2000, 90.0), angles[:, 1]], degrees=True)
    tilted = Rotation.from_euler("ZYZ", np.c_[angles[:, 0], np.full(2000, 20.0), angles[:, 1]], degrees=True)
    side, tilted = (orientation_efficiency(r.as_matrix().transpose(0, 2, 1)) for r in (side, tilted))
    assert tilted < 0.4 < side < 1.0


def test_sphere_points_are_even():
    points = sphere_points(500)
    assert np.allclose(np.linalg.norm(points, axis=1), 1.0)
    assert np.abs(points.mean(axis=0)).max() < 0.01
    assert np.allclose(np.cov(points.T), np.eye(3) / 3, atol=0.01)
    assert np.diag(points @ points.T).min() == pytest.approx(1.0)
