from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from cryoscape.structures.superposition import fit_rigid, rmsd, superpose


@pytest.fixture
def points():
    return np.random.default_rng(0).normal(size=(30, 3)) * 10


def test_a_known_motion_is_found(points):
    rotation = Rotation.random(4, rng=2).as_matrix()
    target = np.einsum("bij,nj->bni", rotation, points) + np.arange(12).reshape(4, 1, 3)
    motion = fit_rigid(points, target)
    np.testing.assert_allclose(motion.rotation, rotation, atol=1e-9)
    np.testing.assert_allclose(superpose(points, target), target, atol=1e-8)
    np.testing.assert_allclose(rmsd(points, target, align=True), 0, atol=1e-8)
    assert (rmsd(points, target) > 1).all()


def test_fit_equals_scipy_with_weights(points):
    rng = np.random.default_rng(1)
    target, weights = points + rng.normal(size=points.shape), rng.uniform(0.1, 3, 30)
    mean_p, mean_t = (np.average(x, axis=0, weights=weights) for x in (points, target))
    expected, residual = Rotation.align_vectors(target - mean_t, points - mean_p, weights=weights)
    motion = fit_rigid(points, target, weights)
    np.testing.assert_allclose(motion.rotation, expected.as_matrix(), atol=1e-8)
    got = rmsd(points, target, align=True, weights=weights)
    assert got == pytest.approx(residual / np.sqrt(weights.sum()))


def test_a_mirror_image_is_not_a_rotation(points):
    mirrored = points * [1, 1, -1]
    assert np.linalg.det(fit_rigid(points, mirrored).rotation) == pytest.approx(1)
    assert rmsd(points, mirrored, align=True) > 1


def test_tensors_give_tensors_of_their_own_type(points):
    x = torch.as_tensor(points, dtype=torch.float32).expand(2, -1, -1)
    y = x + 1
    assert rmsd(x, y).dtype == torch.float32
    torch.testing.assert_close(rmsd(x, y), torch.full((2,), 3**0.5))
    torch.testing.assert_close(superpose(x, y), y)
    with pytest.raises(ValueError, match="correspond"):
        rmsd(x, y[:, :5], align=True)
