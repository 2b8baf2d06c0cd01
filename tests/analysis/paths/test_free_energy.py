"""The decoder's metric, and a free energy that does not depend on how codes are parametrised."""

import numpy as np
import torch

from cryoscape.analysis.paths.metric import DecoderMetric
from tests.analysis.paths.surfaces import surface


def bent(x):
    """Two coordinates to five, not isometric."""
    return torch.stack(
        [3 * x[:, 0], x[:, 1] + 0.3 * x[:, 0] ** 2, torch.sin(x[:, 0]), 0.5 * x[:, 0] * x[:, 1], x[:, 1]], 1
    )


def bent_jacobian(x):
    one, zero = np.ones(len(x)), np.zeros(len(x))
    first = np.stack([3 * one, 0.6 * x[:, 0], np.cos(x[:, 0]), 0.5 * x[:, 1], zero], 1)
    second = np.stack([zero, one, zero, 0.5 * x[:, 0], one], 1)
    return np.stack([first, second], 2)


def draws(n=400, d=2, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed)).double()


def test_the_metric_is_that_of_the_jacobian():
    codes = draws() @ torch.tensor([[0.4, 0.1], [0.0, 0.2]], dtype=torch.float64)
    metric = DecoderMetric(bent, codes, floor=0.3)
    z = codes[:50]
    u = metric.whitened(z)
    torch.testing.assert_close(metric.codes(u), z)
    np.testing.assert_allclose(torch.cov(metric.whitened(codes).T), np.eye(2), atol=1e-6)
    spread = np.cov(codes.numpy().T)
    root = np.linalg.cholesky(spread)
    jacobian = bent_jacobian(z.numpy())
    expected = jacobian.transpose(0, 2, 1) @ jacobian + 0.3**2 * np.linalg.inv(spread)
    expected = root.T @ expected @ root
    np.testing.assert_allclose(metric(u), expected, rtol=2e-3, atol=1e-4)


def test_lengths_are_those_of_the_decoded_curve():
    metric = DecoderMetric(bent, draws(), floor=0.0)
    t = np.linspace(-1, 1, 20_001)
    z = np.stack([t, t**2], 1)
    tangent = np.stack([np.ones_like(t), 2 * t], 1)
    speed = np.linalg.norm(np.einsum("nij,nj->ni", bent_jacobian(z), tangent), axis=1)
    expected = np.concatenate([[0], np.cumsum(0.5 * (speed[1:] + speed[:-1]) * np.diff(t))])
    coarse = slice(None, None, 100)
    found = metric.travelled(metric.whitened(torch.from_numpy(z[coarse])))
    np.testing.assert_allclose(found, expected[coarse], rtol=1e-4, atol=1e-9)


def test_directions_without_motion_count_the_floor():
    codes = draws(d=3) * torch.tensor([1.0, 5.0, 0.2], dtype=torch.float64)
    metric = DecoderMetric(lambda z: 2 * z[:, :1], codes, floor=0.05)
    values = torch.linalg.eigvalsh(metric(torch.zeros(1, 3, dtype=torch.float64)))[0]
    spread = 2 * codes[:, 0].std()
    np.testing.assert_allclose(values[:2], 0.05**2, rtol=1e-3)
    assert float(values[2]) > 0.9 * float(spread) ** 2
    step = torch.zeros(2, 3, dtype=torch.float64)
    step[1, 2] = 1.0
    np.testing.assert_allclose(float(metric.travelled(step)[-1]), 0.05, rtol=1e-2)


def energy(x):
    """-ln p of x, two wells."""
    first = 0.5 * ((x - torch.tensor([1.0, 0.0])) ** 2).sum(1) / 0.3
    second = 0.5 * ((x + torch.tensor([1.0, 0.2])) ** 2).sum(1) / 0.2
    return -torch.logaddexp(-first, -second)


def code_of(x):
    """Another parametrisation: y = x0 + sinh-like stretch, and a shear that bends."""
    return torch.stack([torch.sinh(1.2 * x[:, 0]), x[:, 1] + 0.4 * x[:, 0] ** 2], 1)


def back(y):
    first = torch.asinh(y[:, 0]) / 1.2
    return torch.stack([first, y[:, 1] - 0.4 * first**2], 1)


def energy_of_code(y):
    """-ln of the same law's density over y: the Jacobian of `code_of` is 1.2 cosh(1.2 x0)."""
    x = back(y)
    return energy(x) + torch.log(1.2 * torch.cosh(1.2 * x[:, 0]))


def test_the_free_energy_does_not_depend_on_the_parametrisation():
    x = 0.7 * draws(200, seed=1)
    one = surface(energy, bent, draws(seed=2))
    other = surface(energy_of_code, lambda y: bent(back(y)), code_of(draws(seed=2)))
    first = one(one.metric.whitened(x))
    second = other(other.metric.whitened(code_of(x)))
    apart = (first - second) - (first - second).mean()
    assert float(apart.abs().max()) < 0.02
    # Without the Jacobian the two laws differ by far more.
    bare = energy(x) - energy_of_code(code_of(x))
    assert float((bare - bare.mean()).abs().max()) > 0.5


def test_the_slope_is_that_of_finite_differences():
    found = surface(energy, bent, draws(seed=2), floor=0.05)
    u = 0.8 * draws(30, seed=3)
    slope, metric = found.slope(u)
    for j in range(2):
        step = torch.zeros(2, dtype=torch.float64)
        step[j] = 1e-5
        expected = (found(u + step) - found(u - step)) / 2e-5
        np.testing.assert_allclose(slope[:, j], expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(metric, found.metric(u))
