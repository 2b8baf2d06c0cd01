import numpy as np
import pytest

from cryoscape.analysis.traversal import traverse


def test_runs_between_the_percentiles_in_equal_steps():
    z = np.random.default_rng(0).standard_normal((2000, 2))
    walk = traverse(z, z[:, 0], frames=11)
    np.testing.assert_allclose(walk.position[[0, -1]], np.percentile(z[:, 0], [5, 95]))
    np.testing.assert_allclose(np.diff(walk.position), np.diff(walk.position)[0])
    np.testing.assert_allclose(walk.z[:, 0], walk.position, atol=0.12)
    np.testing.assert_allclose(walk.z[:, 1], 0, atol=0.25)


def test_follows_particles_that_lie_on_an_arc():
    """A straight line between the ends would pass through the middle of the circle."""
    angle = np.random.default_rng(1).uniform(0, np.pi, 5000)
    z = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    walk = traverse(z, angle, frames=15)
    assert np.linalg.norm(walk.z, axis=1).min() > 0.95


def test_bridges_a_gap_between_two_states():
    rng = np.random.default_rng(2)
    score = np.concatenate([rng.normal(-5, 0.1, 500), rng.normal(5, 0.1, 500)])
    z = np.stack([score, 2 * score], axis=1)
    walk = traverse(z, score, frames=15)
    np.testing.assert_allclose(walk.z[:, 0], walk.position, atol=0.4)
    assert np.all(np.diff(walk.z[:, 0]) > 0)


def test_snapping_gives_real_particles():
    z = np.random.default_rng(3).standard_normal((300, 3)).astype(np.float32)
    free, snapped = traverse(z, z[:, 0]), traverse(z, z[:, 0], snap=True)
    np.testing.assert_array_equal(snapped.z, z[snapped.particle])
    np.testing.assert_array_equal(snapped.position, z[snapped.particle, 0])
    nearest = np.linalg.norm(z[None] - free.z[:, None], axis=-1).argmin(axis=1)
    np.testing.assert_array_equal(snapped.particle, nearest)
    assert snapped.snapped
    assert not free.snapped


@pytest.mark.parametrize("n", [2, 50])
def test_identical_particles_give_one_structure(n):
    walk = traverse(np.full((n, 4), 1.5), np.zeros(n), z_sd=np.full((n, 4), 0.2), frames=6)
    np.testing.assert_allclose(walk.z, 1.5)
    np.testing.assert_allclose(walk.z_sd, 0.2, rtol=1e-6)
