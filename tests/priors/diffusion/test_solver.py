import math

import pytest
import torch

from cryoscape.priors.diffusion.solver import integrate


def spring(_, state):
    return torch.stack([state[:, 1], -state[:, 0]], 1)


@pytest.mark.parametrize("tolerance", [1e-3, 1e-6, 1e-9])
def test_a_spring_swings(tolerance):
    start = torch.randn(5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    c, s = math.cos(7.0), math.sin(7.0)
    want = start @ torch.tensor([[c, -s], [s, c]], dtype=torch.float64)
    error = float((integrate(spring, start, 0.0, 7.0, tolerance) - want).abs().max())
    assert error < 30 * tolerance
    back = integrate(spring, integrate(spring, start, 1.0, 8.0, 1e-9), 8.0, 1.0, 1e-9)
    torch.testing.assert_close(back, start, rtol=1e-7, atol=1e-7)


def test_it_is_of_order_five_and_takes_few_steps():
    """dx / dt = x cos t has the solution exp(sin t); the cost grows as the fifth root of accuracy."""
    costs = []
    for tolerance in (1e-5, 1e-10):
        calls = []

        def field(t, x, calls=calls):
            calls.append(t)
            return x * math.cos(t)

        end = integrate(field, torch.ones(1, 1, dtype=torch.float64), 0.0, 10.0, tolerance)
        assert abs(float(end) / math.exp(math.sin(10.0)) - 1) < 100 * tolerance
        costs.append(len(calls))
    assert costs[1] < 13 * costs[0]
    assert costs[0] < 250


def test_gradients_pass_through():
    start = torch.tensor([[0.3, -0.2]], dtype=torch.float64, requires_grad=True)

    def field(t, x):
        return -x.pow(3) * (1 + t)

    assert torch.autograd.gradcheck(lambda x: integrate(field, x, 0.0, 2.0, 1e-9), (start,), atol=1e-6)
    # x(2) = x0 / sqrt(1 + 8 x0^2).
    end = integrate(field, start, 0.0, 2.0, 1e-10)
    torch.testing.assert_close(end, start / (1 + 8 * start.square()).sqrt(), rtol=1e-8, atol=1e-9)


def test_it_ends_where_the_field_is_not_finite():
    start = torch.ones(2, 2)
    assert bool(integrate(lambda t, x: x * float("nan"), start, 0.0, 1.0, 1e-5).isnan().all())
