import numpy as np
import pytest

from cryoscape.report.isosurface import isosurface


def ball(shape, centre, radius):
    z, y, x = np.indices(shape)
    return radius - np.sqrt((x - centre[0]) ** 2 + (y - centre[1]) ** 2 + (z - centre[2]) ** 2)


def test_a_ball_is_closed_round_and_faces_outwards():
    centre, radius = np.array([12.3, 9.6, 11.1]), 6.0
    vertices, triangles = isosurface(ball((24, 20, 26), centre, radius), 0.0)
    corner = vertices[triangles] - centre
    volume = np.sum(corner[:, 0] * np.cross(corner[:, 1], corner[:, 2])) / 6
    assert volume == pytest.approx(4 / 3 * np.pi * radius**3, rel=0.05)  # negative if it faced inwards
    assert np.abs(np.linalg.norm(vertices - centre, axis=1) - radius).max() < 0.15
    edges = np.sort(np.concatenate([triangles[:, pair] for pair in ([0, 1], [1, 2], [2, 0])]), axis=1)
    unique, count = np.unique(edges, axis=0, return_counts=True)
    assert set(count) == {2}
    assert len(vertices) - len(unique) + len(triangles) == 2  # Euler: one closed surface without a handle


def test_a_map_below_the_level_has_no_surface():
    vertices, triangles = isosurface(np.zeros((5, 5, 5)), 1.0)
    assert vertices.shape == (0, 3)
    assert triangles.shape == (0, 3)
