"""Paths of least free energy against saddles and flow lines found another way."""

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from scipy.optimize import root

from cryoscape.analysis.paths.ends import lowest_near
from cryoscape.analysis.paths.first_guess import through_the_population
from cryoscape.analysis.paths.string_method import minimum_path, spread_evenly
from tests.analysis.paths.surfaces import line, mueller_brown, surface


def flat(x):
    return x


def stretched(x):
    """A decoder that bends the plane and stretches it unevenly; its metric has no constant determinant."""
    return torch.stack([x[:, 0], 2 * x[:, 1] + 0.5 * x[:, 0] ** 2, 0.8 * torch.sin(2 * x[:, 0])], 1)


def exact(energy, places):
    """F, its gradient and the metric at points x (2,), by automatic differentiation of the formula."""

    def value(x):
        x = torch.as_tensor(x, dtype=torch.float64)
        jacobian = torch.func.jacfwd(lambda p: places(p[None])[0])(x)
        return energy(x[None])[0] + 0.5 * torch.logdet(jacobian.T @ jacobian)

    def slope(x):
        return torch.func.grad(value)(torch.as_tensor(x, dtype=torch.float64)).numpy()

    def metric(x):
        jacobian = torch.func.jacfwd(lambda p: places(p[None])[0])(torch.as_tensor(x, dtype=torch.float64))
        return (jacobian.T @ jacobian).numpy()

    return value, slope, metric


@pytest.mark.parametrize("places", [flat, stretched], ids=["flat", "stretched"])
def test_mueller_brown(places):
    value, slope, metric = exact(mueller_brown, places)
    first, last = (root(slope, p, tol=1e-10).x for p in ((-0.55, 1.44), (0.62, 0.03)))
    saddle = root(slope, (-0.82, 0.62), tol=1e-10).x
    assert np.linalg.norm(slope(saddle)) < 1e-6
    assert np.linalg.det(np.stack([slope(saddle + h) - slope(saddle - h) for h in 1e-4 * np.eye(2)])) < 0
    barrier = float(value(saddle) - value(first))
    assert barrier > 3

    found = surface(mueller_brown, places, 0.4 * torch.randn(500, 2).double())
    u = found.metric.whitened(line(first, last, 24))
    path = minimum_path(found, u)
    assert path.settled
    fine = spread_evenly(found.metric, path.u, 161)
    height = found(fine)
    assert float(height.max() - height[0]) == pytest.approx(barrier, abs=0.05)
    z = found.metric.codes(fine).numpy()
    assert np.linalg.norm(z - saddle, axis=1).min() < 0.03
    # From beside the saddle the flow of G^-1 grad F runs down along the path to both its ends.
    values, vectors = np.linalg.eig(np.linalg.inv(metric(saddle)) @ hessian(slope, saddle))
    along = np.real(vectors[:, np.real(values).argmin()])
    for side in (1, -1):
        flow = solve_ivp(
            lambda _, x: -np.linalg.solve(metric(x), slope(x)), (0, 0.8), saddle + 0.02 * side * along
        )
        apart = np.linalg.norm(flow.y.T[:, None] - z, axis=2).min(axis=1)
        assert apart.max() < 0.05


def hessian(slope, x):
    return np.stack([(slope(x + h) - slope(x - h)) / 2e-5 for h in 1e-5 * np.eye(2)])


def test_points_are_at_equal_lengths():
    found = surface(mueller_brown, stretched)
    path = minimum_path(found, found.metric.whitened(line((-0.55, 1.44), (0.62, 0.03), 20)))
    steps = np.diff(found.metric.travelled(path.u))
    np.testing.assert_allclose(steps, steps.mean(), rtol=0.02)
    places = stretched(found.metric.codes(path.u)).numpy()
    np.testing.assert_allclose(steps, np.linalg.norm(np.diff(places, axis=0), axis=1), rtol=1e-6)


def ring(x):
    """-ln of a law on a ring of radius 2, with a gap in the lower half at the left."""
    radius, angle = x.norm(dim=1), torch.atan2(x[:, 1], x[:, 0])
    return 0.5 * ((radius - 2) / 0.2) ** 2 + 6 * torch.exp(-0.5 * ((angle + 1.8) / 0.5) ** 2)


def test_the_first_string_goes_round():
    angle = torch.rand(600, generator=torch.Generator().manual_seed(0)).double() * 2 * np.pi
    draws = 2 * torch.stack([angle.cos(), angle.sin()], 1)
    found = surface(ring, flat, draws)
    ends = torch.tensor([[2.0, 0.0], [-2.0, 0.0]], dtype=torch.float64)
    white = found.metric.whitened
    start = through_the_population(found, white(ends), white(draws), 30)
    path = minimum_path(found, start)
    z = found.metric.codes(path.u)
    assert float(z[10:20, 1].min()) > 1.5  # above, and not through the middle
    assert float(found(path.u).max() - found(path.u).min()) < 0.3
    length = float(found.metric.travelled(path.u)[-1])
    assert length == pytest.approx(2 * np.pi, rel=0.01)


def test_ends_slide_to_their_minimum():
    found = surface(mueller_brown, flat)
    moved = lowest_near(found, found.metric.whitened(torch.tensor([[-0.3, 1.3]]).double())[0])
    _, slope, _ = exact(mueller_brown, flat)
    expected = root(slope, (-0.55, 1.44), tol=1e-10).x
    np.testing.assert_allclose(found.metric.codes(moved[None])[0], expected, atol=1e-3)


def test_directions_without_motion_do_not_hold_it_up():
    """Three codes of which the decoder sees two: the path is that of the two."""

    def energy(z):
        return mueller_brown(z[:, :2]) + 0.5 * (z[:, 2] / 0.7) ** 2

    codes = 0.4 * torch.randn(500, 3).double()
    found = surface(energy, lambda z: z[:, :2], codes, floor=0.02)
    start = torch.cat([line((-0.55, 1.44), (0.62, 0.03), 24), 0.3 * torch.ones(24, 1).double()], 1)
    path = minimum_path(found, found.metric.whitened(start))
    fine = spread_evenly(found.metric, path.u, 161)
    _, slope, _ = exact(mueller_brown, flat)
    first, saddle = (root(slope, p, tol=1e-10).x for p in ((-0.55, 1.44), (-0.82, 0.62)))
    points = torch.from_numpy(np.stack([first, saddle]))
    barrier = float(mueller_brown(points).diff())
    z = found.metric.codes(fine)
    assert float(z[40:-40, 2].abs().max()) < 0.05
    height = mueller_brown(z[:, :2])
    assert float(height.max() - mueller_brown(points)[0]) == pytest.approx(barrier, abs=0.05)
