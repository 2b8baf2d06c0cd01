import numpy as np
import pytest
import torch
from scipy.optimize import brentq

from cryoscape.priors.flow import FlowPrior
from cryoscape.priors.spline import inverse_spline, spline


def knots(n=60, bins=6, seed=0):
    g = torch.Generator().manual_seed(seed)
    x = 3 * torch.randn(n, dtype=torch.float64, generator=g)
    x[:2] = torch.tensor([6.0, -7.5])
    sizes = torch.randn(n, 2, bins, dtype=torch.float64, generator=g)
    slopes = 2 * torch.randn(n, bins - 1, dtype=torch.float64, generator=g)
    return x, sizes, slopes


def test_derivatives_in_closed_form_are_right():
    inputs = [t.requires_grad_() for t in knots()]
    assert torch.autograd.gradcheck(lambda *t: spline(*t, 5.0), inputs, eps=1e-7, atol=1e-5)


def test_log_slope_is_that_of_the_map_and_the_map_rises():
    x, sizes, slopes = knots(400)
    step = 1e-6
    up, down = (spline(x + e, sizes, slopes, 5.0)[0] for e in (step, -step))
    log_slope = spline(x, sizes, slopes, 5.0)[1]
    np.testing.assert_allclose(log_slope.exp(), (up - down) / (2 * step), rtol=1e-4, atol=1e-6)
    line = torch.linspace(-6, 6, 500, dtype=torch.float64)
    one = [t[:1].expand(500, *t.shape[1:]) for t in (sizes, slopes)]
    assert bool((spline(line, *one, 5.0)[0].diff() > 0).all())


def test_it_goes_through_its_knots_with_their_slopes_and_is_the_identity_outside():
    _, sizes, slopes = (t[:1] for t in knots())
    least = 1e-3
    share = least + (1 - 6 * least) * sizes[0].softmax(-1)
    places = -5 + 10 * torch.cat([torch.zeros(2, 1), share.cumsum(-1)], 1)
    many = [t.expand(5, *t.shape[1:]) for t in (sizes, slopes)]
    y, log_slope = spline(places[0, 1:-1], *many, 5.0)
    torch.testing.assert_close(y, places[1, 1:-1], rtol=1e-9, atol=1e-9)
    raw = slopes[0] + float(np.log(np.expm1(1 - least)))
    torch.testing.assert_close(log_slope.exp(), torch.nn.functional.softplus(raw) + least)
    far = torch.tensor([-9.0, 5.0, 77.0], dtype=torch.float64)
    y, log_slope = spline(far, *(t.expand(3, *t.shape[1:]) for t in (sizes, slopes)), 5.0)
    torch.testing.assert_close(y, far)
    assert log_slope.abs().max() == 0.0


def test_inverse_is_the_root():
    x, sizes, slopes = knots(40)
    y = spline(x, sizes, slopes, 5.0)[0]
    torch.testing.assert_close(inverse_spline(y, sizes, slopes, 5.0), x, rtol=1e-8, atol=1e-8)
    i = 5

    def gap(value):
        at = torch.tensor([value], dtype=torch.float64)
        return float(spline(at, sizes[i : i + 1], slopes[i : i + 1], 5.0)[0] - y[i])

    assert brentq(gap, -8.0, 8.0, xtol=1e-12) == pytest.approx(float(x[i]), abs=1e-8)


@pytest.mark.parametrize("d", [1, 3])
def test_each_dimension_knows_only_those_before_it(d):
    torch.manual_seed(0)
    prior = FlowPrior(d, transforms=2, hidden=(16,), bins=4).double()
    with torch.no_grad():
        for p in prior.parameters():
            p.add_(0.3 * torch.randn_like(p))
    u = torch.randn(d, dtype=torch.float64)
    for i, layer in enumerate(prior.layers):
        jacobian = torch.autograd.functional.jacobian(lambda x, layer=layer: layer(x)[0], u)
        wrong = jacobian.triu(1) if i % 2 == 0 else jacobian.tril(-1)
        assert wrong.abs().max() < 1e-12
        assert (jacobian.diagonal() > 0).all()
    torch.testing.assert_close(prior.decode(prior.encode(u)), u, rtol=1e-9, atol=1e-9)


def test_a_new_flow_is_the_identity():
    z = torch.randn(20, 4)
    prior = FlowPrior(4)
    torch.testing.assert_close(prior.encode(z), z, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(prior.score(z), -z, rtol=1e-4, atol=1e-4)


def test_fit_reaches_the_entropy_of_a_bent_law():
    """(x1, x2 / 2 + sin 2 x1) has the density of x, a standard normal, times 2."""
    rng = np.random.default_rng(0)

    def bent(x):
        return np.stack([x[:, 0], 0.5 * x[:, 1] + np.sin(2 * x[:, 0])], 1)

    prior = FlowPrior(2, transforms=2, hidden=(32, 32))
    prior.fit(bent(rng.standard_normal((6000, 2))), steps=500, lr=5e-3)
    test = rng.standard_normal((2000, 2))
    y = bent(test)
    want = -0.5 * (test**2).sum(1) - np.log(2 * np.pi) + np.log(2.0)
    gap = want - prior.log_prob(y).detach().numpy()
    assert -0.02 < gap.mean() < 0.06


def test_interpolation_ends_where_it_should_and_is_smooth():
    torch.manual_seed(1)
    prior = FlowPrior(3, transforms=2, hidden=(16,)).double()
    with torch.no_grad():
        for p in prior.parameters():
            p.add_(0.2 * torch.randn_like(p))
    a, b = torch.randn(2, 3, dtype=torch.float64)
    for kind in ("linear", "slerp"):
        path = prior.interpolate(a, b, 41, kind)
        torch.testing.assert_close(path[[0, -1]], torch.stack([a, b]), rtol=1e-7, atol=1e-7)
        assert path.diff(dim=0).norm(dim=1).max() < 6 * (b - a).norm() / 40
