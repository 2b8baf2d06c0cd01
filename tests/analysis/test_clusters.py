import sys

import numpy as np
import pytest

from cryoscape.analysis.clusters import cluster_particles, fit_mixture, umap_layout
from cryoscape.errors import InputError


def blobs(counts=(300, 150, 50), seed=0):
    rng = np.random.default_rng(seed)
    centres = np.array([[-6, 0, 0], [0, 5, 0], [7, 0, 3]])
    points = np.concatenate(
        [centre + 0.5 * rng.standard_normal((n, 3)) for centre, n in zip(centres, counts)]
    )
    return points, np.repeat(np.arange(3), counts)


def test_finds_separate_groups_in_the_order_of_the_first_coordinate():
    points, true = blobs()
    shuffle = np.random.default_rng(1).permutation(len(points))
    found = cluster_particles(points[shuffle], 3)
    np.testing.assert_array_equal(found.label, true[shuffle])
    np.testing.assert_array_equal(found.count, [300, 150, 50])
    np.testing.assert_allclose(found.radius, np.sqrt(3) * 0.5, rtol=0.2)


def test_a_representative_is_the_particle_nearest_to_its_centre():
    points, _ = blobs()
    found = cluster_particles(points, 3)
    for k, particle in enumerate(found.particle):
        members = np.flatnonzero(found.label == k)
        distance = np.linalg.norm(points[members] - points[members].mean(axis=0), axis=1)
        assert particle == members[distance.argmin()]


def test_no_more_groups_than_distinct_particles():
    points = np.repeat([[0.0, 0.0], [1.0, 0.0]], 20, axis=0)
    found = cluster_particles(points, 6)
    np.testing.assert_array_equal(found.count, [20, 20])
    assert len(cluster_particles(np.zeros((10, 2)), 6).count) == 1


def test_refuses_no_groups():
    with pytest.raises(InputError, match="0 clusters"):
        cluster_particles(np.zeros((10, 2)), 0)


def test_bic_chooses_the_number_of_clouds():
    points, true = blobs()
    found = fit_mixture(points, largest=6)
    assert len(found.weight) == 3
    assert found.bic.argmin() == 2
    np.testing.assert_array_equal(found.label, true)
    np.testing.assert_allclose(found.weight, [0.6, 0.3, 0.1], atol=0.01)
    np.testing.assert_allclose(found.mean, [[-6, 0, 0], [0, 5, 0], [7, 0, 3]], atol=0.4)


def test_one_cloud_needs_one_component():
    points = np.random.default_rng(4).standard_normal((800, 3)) * [2, 1, 0]
    found = fit_mixture(points)
    assert len(found.weight) == 1
    assert found.mean.shape == (1, 3)


def test_identical_points_are_one_component():
    found = fit_mixture(np.full((30, 4), 2.0))
    np.testing.assert_array_equal(found.weight, [1.0])
    np.testing.assert_array_equal(found.mean, [[2.0] * 4])


def test_missing_umap_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(InputError, match=r"cryoscape\[umap\]"):
        umap_layout(np.zeros((20, 2)))
