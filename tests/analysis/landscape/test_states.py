"""Bins, basins and state populations on profiles that are known."""

import numpy as np
import pytest
from scipy.stats import norm

from cryoscape.analysis.landscape.profile import Axis, interval, make_axis, make_profile
from cryoscape.analysis.landscape.states import LandscapeStates, basin_states, find_basins, state_populations
from cryoscape.analysis.variables.collective_variables import Dihedral, Distance

ONE = np.array([0])
DISTANCE = Distance("d", ONE, ONE)


def profile_of(axes, energy, error=0.01, draws=100):
    """A profile of given free energies, one structure a bin, resampled with an error in kT."""
    p = np.exp(-energy.ravel())
    p /= p.sum()
    drawn = p * np.exp(error * np.random.default_rng(0).standard_normal((draws, p.size)))
    grid = np.stack([g.ravel() for g in np.meshgrid(*[a.centres for a in axes], indexing="ij")])
    profile = make_profile(axes, grid, p, drawn, 10_000)
    shape = energy.shape
    # The bins themselves, without the marks of the structures, so that the wells are as given.
    return type(profile)(
        tuple(axes),
        p.reshape(shape),
        drawn.reshape(-1, *shape),
        profile.free_energy,
        profile.low,
        profile.high,
    ), grid


def line(n=40, period=None):
    low, high = (-180, 180) if period else (0, 20)
    return Axis("x", "A", period, np.linspace(low, high, n + 1))


def test_marks_and_populations():
    """Gaussians as wide as half a bin, summed over bins; on a circle they go round."""
    axis = Axis("x", "A", None, np.linspace(0, 10, 11))
    value, weight = np.array([2.2, 7.9, 30.0]), np.array([0.5, 0.3, 0.2])
    found = make_profile([axis], value[None], weight, np.stack([weight] * 4), 1000)
    want = sum(w * np.diff(norm(v, 0.5).cdf(axis.edges)) for v, w in zip(value, weight))
    np.testing.assert_allclose(found.population, want, atol=1e-12)
    seen = want * 1000 >= 1
    np.testing.assert_allclose(found.free_energy[seen], -np.log(want[seen] / want.max()))
    assert np.isnan(found.free_energy[~seen]).all()
    # Half an image is the least that is told from nothing.
    assert found.high.max() == pytest.approx(np.log(2 * 1000 * want.max()))
    circle = Axis("x", "degrees", 360.0, np.linspace(-180, 180, 13))
    np.testing.assert_allclose(circle.marks(np.array([179.0, 3.0])).sum(axis=0), 1, atol=1e-12)
    assert circle.marks(np.array([179.0]))[0, 0] > 0.4


def test_two_axes_are_a_product():
    axes = [Axis("x", "A", None, np.linspace(0, 4, 5)), Axis("y", "A", None, np.linspace(0, 6, 4))]
    values = np.array([[1.0, 3.0], [2.0, 5.0]])
    found = make_profile(axes, values, np.array([0.7, 0.3]), np.zeros((0, 2)), 100)
    parts = [axis.marks(value) for axis, value in zip(axes, values)]
    want = 0.7 * np.outer(parts[0][:, 0], parts[1][:, 0]) + 0.3 * np.outer(parts[0][:, 1], parts[1][:, 1])
    np.testing.assert_allclose(found.population, want)
    assert np.isnan(found.low).all()


def test_axis_leaves_out_what_nobody_populates():
    value = np.linspace(0, 100, 1001)
    weight = norm(40, 2).pdf(value)
    axis = make_axis(DISTANCE, value, weight, 20)
    assert axis.edges[0] == pytest.approx(40 - 3.09 * 2, abs=0.6)
    assert axis.edges[-1] == pytest.approx(40 + 3.09 * 2, abs=0.6)
    round_axis = make_axis(Dihedral("d", ONE, ONE, ONE, ONE), value, weight, 12)
    assert round_axis.edges[[0, -1]].tolist() == [-180, 180]
    assert axis.bin_of(np.array([-5.0, 1e3])).tolist() == [0, 19]


def test_basins_of_a_double_well():
    axis = line()
    energy = 3 * (((axis.centres - 10) / 6) ** 2 - 1) ** 2
    profile, grid = profile_of([axis], energy)
    label = find_basins(profile)
    assert label[0] == 0
    assert label[-1] == 1
    assert abs(axis.centres[np.flatnonzero(np.diff(label))[0]] - 10) < 0.6
    states = basin_states(profile, grid)
    assert states.names == ("state 1", "state 2")
    assert states.ranges[0].startswith("0..")
    np.testing.assert_array_equal(states.member.argmax(axis=1), label)


def test_a_barrier_in_the_noise_and_a_dip_are_no_barrier():
    axis = line()
    energy = 3 * (((axis.centres - 10) / 6) ** 2 - 1) ** 2
    assert find_basins(profile_of([axis], energy, error=3.0)[0]).max() == 0
    assert find_basins(profile_of([axis], 0.1 * energy)[0]).max() == 0


def test_a_well_across_the_seam_of_a_circle_is_one():
    axis = line(36, 360.0)
    energy = 2 - 2 * np.cos(np.radians(2 * axis.centres))
    profile, grid = profile_of([axis], energy)
    label = find_basins(profile)
    assert label.max() == 1
    assert label[0] == label[-1]
    assert basin_states(profile, grid).ranges[0] in ("90..-90 A", "90..-80 A", "80..-90 A", "80..-80 A")


def test_basins_in_two_dimensions():
    axes = [line(20), line(24)]
    x, y = np.meshgrid(axes[0].centres, axes[1].centres, indexing="ij")
    wells = [(5, 5, 0.0), (15, 6, 0.5), (9, 16, 1.0)]
    energy = -np.log(sum(np.exp(-d - ((x - a) ** 2 + (y - b) ** 2) / 4) for a, b, d in wells) + 1e-9)
    label = find_basins(profile_of(axes, energy)[0])
    at = [label[axes[0].bin_of(np.array([a]))[0], axes[1].bin_of(np.array([b]))[0]] for a, b, _ in wells]
    assert len(set(at)) == 3
    assert label.max() == 2


def test_populations_free_energies_and_what_tells_them_apart():
    rng = np.random.default_rng(0)
    weight, drawn = np.array([0.2, 0.3, 0.4, 0.1]), rng.dirichlet(50 * np.array([2, 3, 4, 1]), 200)
    member = np.array([[1, 0], [1, 0], [0, 1], [0, 0]], dtype=bool)
    points = np.array([[0.0], [1.0], [3.0], [9.0]])
    nats = 0.5 * np.square(points - points.T)
    parts = np.diag(weight)
    found, between = state_populations(
        LandscapeStates(("a", "b"), ("x", "y"), member), weight, drawn, parts, nats, 3.0
    )
    a, b = found
    assert (a.population, b.population) == pytest.approx((0.5, 0.4))
    assert (a.low, a.high) == pytest.approx(tuple(np.quantile(drawn[:, :2].sum(1), [0.025, 0.975])))
    assert b.free_energy == pytest.approx(np.log(0.5 / 0.4))
    want = np.quantile(np.log(drawn[:, :2].sum(1) / drawn[:, 2]), [0.025, 0.975])
    assert (b.free_energy_low, b.free_energy_high) == pytest.approx(tuple(want))
    assert (a.free_energy, a.free_energy_low, a.free_energy_high) == (0, 0, 0)
    # Means at 0.6 and 3.
    assert between[0, 1] == pytest.approx(0.5 * 2.4**2)
    assert a.nats == pytest.approx(2.88)
    assert a.resolved is False
    alone, none = state_populations(
        LandscapeStates(("a",), ("x",), member[:, :1]), weight, drawn, parts, nats, 3.0
    )
    assert none is None
    assert alone[0].resolved is None


def test_interval():
    draws = np.arange(1001.0)[:, None] * [1.0, 2.0]
    np.testing.assert_allclose(interval(draws), [[25, 50], [975, 1950]])
