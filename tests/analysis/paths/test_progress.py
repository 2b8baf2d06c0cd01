"""Progress along a polyline, and barriers of profiles drawn by hand."""

import numpy as np
import pytest

from cryoscape.analysis.landscape.profile import Axis, Profile
from cryoscape.analysis.paths.barriers import find_barriers
from cryoscape.analysis.paths.progress import PathProgress


def test_progress_and_distance_from_an_arc():
    angle = np.linspace(0, np.pi / 2, 201)
    arc = 5 * np.stack([np.cos(angle), np.sin(angle), 0 * angle], 1)
    chords = np.linalg.norm(np.diff(arc, axis=0), axis=1)
    along = PathProgress(arc, np.concatenate([[0], np.cumsum(chords)]))
    assert along.length == pytest.approx(2.5 * np.pi, rel=1e-4)
    rng = np.random.default_rng(0)
    phi, radius, height = rng.uniform(0.1, 1.4, 50), rng.uniform(4, 6, 50), rng.uniform(-1, 1, 50)
    points = np.stack([radius * np.cos(phi), radius * np.sin(phi), height], 1)
    s, distance = along(points)
    np.testing.assert_allclose(s, 5 * phi, atol=0.03)
    np.testing.assert_allclose(distance, np.hypot(radius - 5, height), atol=1e-3)


def test_beyond_the_ends_it_goes_on_straight():
    line = np.linspace(0, 4, 9)[:, None] * np.array([[0.6, 0.8]])
    along = PathProgress(line, np.linspace(0, 4, 9))
    points = np.array([-1.5, 0.0, 2.2, 4.0, 5.5, 9.0])[:, None] * np.array([[0.6, 0.8]])
    s, distance = along(points + 0.3 * np.array([[-0.8, 0.6]]))
    np.testing.assert_allclose(s, [-1.5, 0, 2.2, 4, 5.5, 6], atol=1e-6)
    np.testing.assert_allclose(distance[:-1], 0.3, atol=1e-6)


def profile_of(energy, length, draws=()):
    population = np.exp(-np.asarray(energy, float))
    population /= population.sum()
    drawn = np.array([np.exp(-np.asarray(one, float)) for one in draws]).reshape(-1, len(energy))
    drawn /= np.maximum(drawn.sum(axis=1, keepdims=True), 1e-300)
    edges = np.linspace(-1, length + 1, len(energy) + 1)
    axis = Axis("progress along the path", "A", None, edges)
    nothing = np.full(len(energy), np.nan)
    return Profile((axis,), population, drawn, nothing, nothing, nothing)


def test_the_barrier_between_two_wells():
    energy = np.array([2.0, 0.0, 1.0, 3.0, 2.5, 1.0, 0.5, 4.0])
    rng = np.random.default_rng(0)
    moved = energy + np.zeros((4000, 1))
    moved[:, 3] += 0.2 * rng.standard_normal(4000)
    found = find_barriers(profile_of(energy, 6, moved), 6.0, 100_000)
    assert (found.left, found.top, found.right) == (1, 3, 6)
    assert found.forth.value == pytest.approx(3.0)
    assert found.back.value == pytest.approx(2.5)
    # The interval of the difference of two bins, one of which is sure.
    assert found.forth.low == pytest.approx(3 - 1.96 * 0.2, abs=0.03)
    assert found.back.high == pytest.approx(2.5 + 1.96 * 0.2, abs=0.03)
    p = np.exp(-energy)
    before, after = p[:3].sum() + p[3] / 2, p[4:].sum() + p[3] / 2
    assert found.difference.value == pytest.approx(-np.log(after / before))
    assert found.difference.low <= found.difference.value <= found.difference.high
    assert not found.at_least


def test_a_barrier_that_no_image_crosses_is_a_lower_limit():
    energy = np.array([1.0, 0.0, 4.0, 30.0, 30.0, 3.0, 0.0, 1.0])
    found = find_barriers(profile_of(energy, 6, [energy] * 20), 6.0, 1000)
    assert found.at_least
    total = np.exp(-energy).sum()
    assert found.forth.value == pytest.approx(np.log(1000 / 0.5 / total), abs=1e-6)


def test_no_barrier():
    found = find_barriers(profile_of(np.arange(8.0), 6, [np.arange(8.0)] * 20), 6.0, 10_000)
    assert min(found.forth.value, found.back.value) == 0.0
