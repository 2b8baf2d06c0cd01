"""Relaxed bits against quadrature, bisection and finite differences."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.integrate import simpson

from cryoscape.errors import InputError
from cryoscape.models.relaxations import (
    RELAXATIONS,
    Exponential,
    Gaussian,
    GumBolt,
    Logistic,
    Power,
    ReinMax,
    Smoothing,
    StraightThrough,
    build_relaxation,
)

SMOOTHINGS = {
    "exponential": Exponential(),
    "wide exponential": Exponential(3.0),
    "logistic": Logistic(),
    "wide logistic": Logistic(4.0),
    "power": Power(),
    "gaussian": Gaussian(),
}
WITH_DENSITY = {**SMOOTHINGS, "gumbolt": GumBolt(), "cool gumbolt": GumBolt(2.0)}
BITS = {"straight-through": StraightThrough(), "reinmax": ReinMax()}
ALL = {**WITH_DENSITY, **BITS}
PROBABILITIES = torch.tensor([0.003, 0.2, 0.5, 0.71, 0.9999], dtype=torch.float64)


def uniform(n, dtype=torch.float64):
    """Midpoints of n equal parts of (0, 1)."""
    return (torch.arange(n, dtype=dtype) + 0.5) / n


def mixture_cdf(r, zeta, q):
    return (1 - q) * r.cdf0(zeta) + q * r.cdf1(zeta)


def mean_of_zero(r):
    """E[zeta | 0] of a smoothing by quadrature of 1 - R0, or of both tails of the line."""
    t = uniform(400_000)
    if isinstance(r, Gaussian):
        return 0.0
    if isinstance(r, Power):
        # R0 is a power: its integral by hand.
        return 1 / (1 + r.sharpness)
    return float((1 - r.cdf0(t)).mean())


@pytest.fixture(params=ALL)
def relaxation(request):
    return ALL[request.param]


@pytest.fixture(params=SMOOTHINGS)
def smoothing(request):
    return SMOOTHINGS[request.param]


@pytest.mark.parametrize("name", WITH_DENSITY)
@pytest.mark.parametrize("q", PROBABILITIES.tolist())
def test_densities_integrate_to_one(name, q):
    """On the line, or on [0, 1/2] in log zeta: the other half is the mirror image with 1 - q."""
    r = WITH_DENSITY[name]
    if isinstance(r, Gaussian):
        zeta = torch.linspace(-3, 4, 20_001, dtype=torch.float64)
        total = r.log_density(zeta, torch.full_like(zeta, q)).exp().sum() * (zeta[1] - zeta[0])
    else:
        t = torch.linspace(0, 700, 140_001, dtype=torch.float64)
        zeta = 0.5 * torch.exp(-t)
        both = sum(r.log_density(zeta, torch.full_like(zeta, p)).exp() for p in (q, 1 - q))
        total = simpson(both * zeta, x=t)
    # Of power functions exp(-700 / 30) of the mass lies further down.
    assert abs(float(total) - 1) < 1e-9


def test_the_two_densities_are_mirror_images(smoothing):
    zeta = torch.linspace(0.05, 0.95, 19, dtype=torch.float64)
    torch.testing.assert_close(smoothing.log_r1(zeta), smoothing.log_r0(1 - zeta))
    torch.testing.assert_close(smoothing.log_odds(zeta), -smoothing.log_odds(1 - zeta))
    assert (smoothing.log_odds(zeta).diff() > 0).all()


def test_distribution_functions_are_integrals_of_the_densities(smoothing):
    zeta = torch.linspace(0.05, 0.95, 200_001, dtype=torch.float64)
    for log_r, cdf in ((smoothing.log_r0, smoothing.cdf0), (smoothing.log_r1, smoothing.cdf1)):
        area = torch.trapezoid(log_r(zeta).exp(), zeta)
        assert abs(float(area - (cdf(zeta[-1]) - cdf(zeta[0])))) < 1e-8
    if smoothing.bounded:
        ends = torch.tensor([0.0, 1.0], dtype=torch.float64)
        torch.testing.assert_close(smoothing.cdf0(ends), ends)
        torch.testing.assert_close(smoothing.cdf1(ends), ends)


def test_quantiles_invert_distribution_functions(smoothing):
    # Where a power is so close to 0 that 1 - zeta is 1, there is nothing to invert.
    share = torch.linspace(0.35, 0.999, 50, dtype=torch.float64)
    torch.testing.assert_close(smoothing.cdf0(smoothing.quantile0(share)), share, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "r", [Exponential(8.0), Exponential(), Exponential(14.0), Logistic(), Logistic(25.0)]
)
def test_closed_inverse_of_the_mixture(r):
    """R(zeta) is the random number it came from, to fourteen digits."""
    rho = uniform(2001)
    worst = max(
        float((mixture_cdf(r, r.sample(q.expand(len(rho)), rho), q) - rho).abs().max()) for q in PROBABILITIES
    )
    assert worst < 1e-14


def test_draws_follow_the_mixture(smoothing):
    """Of equally spaced random numbers the share below any zeta is the distribution function there."""
    rho = uniform(200_000)
    for q in PROBABILITIES:
        zeta = smoothing.sample(q.expand(len(rho)), rho)
        at = torch.linspace(0.02, 0.98, 25, dtype=torch.float64)
        below = torch.searchsorted(zeta.sort().values, at) / len(rho)
        assert float((below - mixture_cdf(smoothing, at, q)).abs().max()) < 2e-5


def bisected(r, rho, q):
    """Zeta with R(zeta) = rho."""
    low, high = torch.full_like(rho, -3.0), torch.full_like(rho, 4.0)
    if r.bounded:
        low, high = torch.zeros_like(rho), torch.ones_like(rho)
    for _ in range(60):
        middle = (low + high) / 2
        below = mixture_cdf(r, middle, q) < rho
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return (low + high) / 2


@pytest.mark.parametrize("q", [0.2, 0.5, 0.71])
def test_the_implicit_gradient_is_the_slope_of_the_inverse(smoothing, q):
    """Against central differences of a bisected inverse, at the value of R that the draw has."""
    p = torch.full((500,), q, dtype=torch.float64, requires_grad=True)
    zeta = smoothing.sample(p, uniform(500))
    grad = torch.autograd.grad(zeta.sum(), p)[0]
    rho, step = mixture_cdf(smoothing, zeta.detach(), q), 1e-6
    want = (bisected(smoothing, rho, q + step) - bisected(smoothing, rho, q - step)) / (2 * step)
    # Bisection resolves 2e-16, so the quotient 2e-10; the slopes reach 20.
    torch.testing.assert_close(grad, want, rtol=1e-6, atol=1e-6)
    assert float(grad.max()) > 0.5


def test_the_gradient_of_the_exponential_through_its_own_inverse():
    """The same against differences of the draw itself, whose random number is that of the inverse."""
    r, rho, step = Exponential(), uniform(999), 1e-6
    for q in (0.1, 0.5, 0.9):
        p = torch.full((999,), q, dtype=torch.float64, requires_grad=True)
        grad = torch.autograd.grad(r.sample(p, rho).sum(), p)[0]
        want = (r.sample(p.detach() + step, rho) - r.sample(p.detach() - step, rho)) / (2 * step)
        assert float((grad - want.detach()).abs().max()) < 1e-6


@pytest.mark.parametrize("name", ["gumbolt", "cool gumbolt"])
def test_the_gradient_of_gumbolt(name):
    r, rho, step = ALL[name], uniform(999), 1e-6
    p = torch.full((999,), 0.3, dtype=torch.float64, requires_grad=True)
    grad = torch.autograd.grad(r.sample(p, rho).sum(), p)[0]
    want = (r.sample(p.detach() + step, rho) - r.sample(p.detach() - step, rho)) / (2 * step)
    torch.testing.assert_close(grad, want, rtol=1e-6, atol=1e-6)


def test_draws_of_gumbolt_have_its_density():
    """Shares of cells against the integral of the density."""
    r, q, rho = GumBolt(2.0), 0.3, uniform(200_000)
    zeta = r.sample(torch.full_like(rho, q), rho)
    edges = torch.linspace(0.1, 0.9, 9, dtype=torch.float64)
    for a, b in itertools.pairwise(edges):
        x = torch.linspace(float(a), float(b), 2001, dtype=torch.float64)
        area = torch.trapezoid(r.log_density(x, torch.full_like(x, q)).exp(), x)
        assert abs(float(((zeta > a) & (zeta <= b)).double().mean() - area)) < 2e-5


@pytest.mark.parametrize("q", PROBABILITIES.tolist())
def test_means_match_the_probability(relaxation, q):
    """(1 - q) E0 + q (1 - E0) of a smoothing; half of gumbolt's draws above 1/2 in a share q; q of bits."""
    rho = uniform(200_000)
    zeta = relaxation.sample(torch.full_like(rho, q), rho)
    if isinstance(relaxation, Smoothing):
        zero = mean_of_zero(relaxation)
        assert abs(float(zeta.mean()) - ((1 - q) * zero + q * (1 - zero))) < 2e-5
    else:
        assert abs(float((zeta > 0.5).double().mean()) - q) < 1e-5
    if relaxation in BITS.values():
        assert set(zeta.unique().tolist()) <= {0.0, 1.0}


def test_the_mean_moves_with_the_probability_as_it_should(smoothing):
    """d E[zeta] / dq = E1 - E0, from the implicit gradients alone."""
    rho = uniform(400_000)
    p = torch.full_like(rho, 0.4, requires_grad=True)
    grad = torch.autograd.grad(smoothing.sample(p, rho).mean(), p)[0].sum()
    assert abs(float(grad) - (1 - 2 * mean_of_zero(smoothing))) < 2e-3


def test_a_sharp_smoothing_is_the_bit():
    rho = uniform(1000)
    q = torch.full_like(rho, 0.3)
    bits = StraightThrough().sample(q, rho)
    for r in (Exponential(3e2), Logistic(3e2), Power(3e3), Gaussian(1e5), GumBolt(3e2)):
        zeta = r.sample(q, rho)
        assert float((zeta - bits).abs().mean()) < 0.01
        assert torch.equal((zeta > 0.5).double(), bits)


def test_a_known_bit_has_its_own_density(smoothing):
    """Probabilities of exactly 0 and 1 give r(zeta | bit)."""
    rho = uniform(50_000)
    for bit, cdf in ((0.0, smoothing.cdf0), (1.0, smoothing.cdf1)):
        zeta = smoothing.sample(torch.full_like(rho, bit), rho)
        assert torch.isfinite(zeta).all()
        at = torch.linspace(0.05, 0.95, 10, dtype=torch.float64)
        below = torch.searchsorted(zeta.sort().values, at) / len(rho)
        assert float((below - cdf(at)).abs().max()) < 1e-4


def test_single_precision_stands_extremes(relaxation):
    """Logits of +-12 and the first and last random numbers there are."""
    q = torch.sigmoid(torch.tensor([-12.0, -5.0, 0.0, 5.0, 12.0]))
    rho = torch.tensor([2.0**-25, 1e-6, 0.3, 0.5, 0.9, 1 - 2.0**-24])[:, None].expand(-1, 5)
    p = q.clone().requires_grad_()
    zeta = relaxation.sample(p, rho)
    assert zeta.dtype == torch.float32
    assert zeta.shape == rho.shape
    assert torch.isfinite(zeta).all()
    if relaxation.bounded:
        assert float(zeta.detach().min()) >= 0
        assert float(zeta.detach().max()) <= 1
    zeta.sum().backward()
    assert p.grad.shape == (5,)
    assert torch.isfinite(p.grad).all()
    if relaxation not in BITS.values():
        assert torch.isfinite(relaxation.log_density(zeta.detach(), q)).all()


def test_single_precision_agrees_with_double():
    rho = uniform(4001)
    for q in PROBABILITIES:
        for r in (Exponential(), Logistic()):
            double = r.sample(q.expand(4001), rho)
            single = r.sample(q.float().expand(4001), rho.float()).double()
            # In units of the random number: zeta itself moves fast where the density is low.
            there = (mixture_cdf(r, single, q) - mixture_cdf(r, double, q)).abs()
            assert float(there.max()) < 2e-6


def test_straight_through_has_the_slope_of_its_probability():
    p = torch.tensor([0.2, 0.9], requires_grad=True)
    bits = StraightThrough().sample(p, torch.tensor([[0.1, 0.5], [0.9, 0.05]]))
    assert bits.tolist() == [[0.0, 1.0], [1.0, 0.0]]
    (bits * torch.tensor([[1.0, 2.0], [3.0, 4.0]])).sum().backward()
    assert p.grad.tolist() == [4.0, 6.0]
    with pytest.raises(NotImplementedError):
        StraightThrough().log_density(bits, p)


def test_reinmax_has_half_the_inverse_of_the_probability_drawn():
    p = torch.tensor([0.2, 0.9], requires_grad=True)
    bits = ReinMax().sample(p, torch.tensor([[0.1, 0.5], [0.9, 0.05]]))
    assert bits.tolist() == [[0.0, 1.0], [1.0, 0.0]]
    (bits * torch.tensor([[1.0, 2.0], [3.0, 4.0]])).sum().backward()
    want = [0.5 / 0.8 + 3 * 0.5 / 0.2, 2 * 0.5 / 0.9 + 4 * 0.5 / 0.1]
    torch.testing.assert_close(p.grad, torch.tensor(want))
    with pytest.raises(NotImplementedError):
        ReinMax().log_density(bits, p)


@pytest.mark.parametrize("name", RELAXATIONS)
def test_built_by_name(name):
    assert build_relaxation(name) == RELAXATIONS[name]()
    if name in BITS:
        with pytest.raises(InputError, match="no sharpness"):
            build_relaxation(name, 3.0)
    else:
        assert build_relaxation(name, 3.0).sharpness == 3.0
        for wrong in (0.0, -1.0, math.nan):
            with pytest.raises(InputError, match="positive"):
                build_relaxation(name, wrong)


def test_the_exponential_against_the_formula_of_the_paper():
    """The inverse as DVAE++ prints it, in numpy."""
    beta, q, rho = 10.0, 0.37, np.linspace(0.001, 0.999, 101)
    end = np.exp(-beta)
    b = q * end + rho * (1 - end) - (1 - q)
    want = -np.log((-b + np.sqrt(b**2 + 4 * q * (1 - q) * end)) / (2 * (1 - q))) / beta
    got = Exponential(beta).sample(torch.full((101,), q, dtype=torch.float64), torch.from_numpy(rho))
    np.testing.assert_allclose(got, want, atol=1e-11)
