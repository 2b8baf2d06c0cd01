"""Gradients of expectations over bits and importance-weighted bounds, against sums over all patterns."""

import itertools
import math

import numpy as np
import pytest
import torch

from cryoscape.models.estimators import (
    bit_patterns,
    effective_samples,
    exact_expectation,
    importance_bound,
    leave_one_out,
)
from cryoscape.models.posteriors import Bernoulli, DiagonalGaussian
from cryoscape.models.relaxations import (
    Exponential,
    Gaussian,
    GumBolt,
    Logistic,
    Power,
    ReinMax,
    StraightThrough,
)
from cryoscape.models.relaxed_prior import gaussian_precision, relaxed_log_prior
from tests.models.test_relaxed_prior import machine

N = 5
G = torch.Generator().manual_seed(3)
IMAGES, SEEN = (torch.randn(12, N, generator=G).double(), 2 * torch.randn(12, generator=G).double())
CUBE, SQUARE = (torch.randn(N, N, N, generator=G).double(), torch.randn(N, N, generator=G).double())
LOGITS = torch.randn(1, N, generator=G).double()
COPIES = 40_000


def image(b):
    """An image of parts that are there or not: -|x - sum_i b_i y_i|^2 / 2."""
    return -0.5 * (SEEN - b @ IMAGES.T).square().sum(-1)


def cubic(b):
    return torch.einsum("...i,...j,...k,ijk->...", b, b, b, CUBE) + (b @ SQUARE * b).sum(-1)


def multilinear(b):
    """No bit is multiplied with itself."""
    return (b @ torch.triu(SQUARE, 1) * b).sum(-1) + b @ SQUARE[0]


FUNCTIONS = {"image": image, "cubic": cubic, "multilinear": multilinear}


def exact_gradient(f):
    logits = LOGITS.clone().requires_grad_()
    return torch.autograd.grad(exact_expectation(f, logits).sum(), logits)[0][0]


def bias(gradients, exact):
    """Deviation of the mean gradient, and its error, as parts of the exact one."""
    error = gradients.std(0).norm() / len(gradients) ** 0.5
    return float((gradients.mean(0) - exact).norm() / exact.norm()), float(error / exact.norm())


def relaxed_gradients(f, relaxation, seed=1):
    logits = LOGITS.expand(COPIES, -1).clone().requires_grad_()
    zeta = Bernoulli(logits, relaxation).rsample(1, torch.Generator().manual_seed(seed))[0]
    return torch.autograd.grad(f(zeta).sum(), logits)[0]


def test_patterns_are_all_different():
    bits = bit_patterns(4, torch.zeros(1))
    assert bits.shape == (16, 4)
    assert len({tuple(row) for row in bits.tolist()}) == 16
    assert bits[:4, 0].tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_exact_expectation_of_numpy(name):
    """Value, and the gradient as q (1 - q) times the difference that a bit makes on average."""
    f = FUNCTIONS[name]
    q = 1 / (1 + np.exp(-LOGITS[0].numpy()))
    states = bit_patterns(N, LOGITS)
    weight = np.where(states.numpy() > 0, q, 1 - q).prod(-1)
    assert float(exact_expectation(f, LOGITS)) == pytest.approx(weight @ f(states).numpy(), abs=1e-12)
    for i, got in enumerate(exact_gradient(f)):
        on, off = states.clone(), states.clone()
        on[:, i], off[:, i] = 1.0, 0.0
        want = q[i] * (1 - q[i]) * (weight @ (f(on) - f(off)).numpy())
        assert float(got) == pytest.approx(want, abs=1e-12)


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("k", [2, 5])
def test_leave_one_out_is_unbiased(name, k):
    f = FUNCTIONS[name]
    logits = LOGITS.expand(COPIES // k, -1).clone().requires_grad_()
    value = leave_one_out(f, logits, k, torch.Generator().manual_seed(2))
    gradients = torch.autograd.grad(value.sum(), logits)[0]
    exact, error = exact_gradient(f), gradients.std(0) / len(gradients) ** 0.5
    assert float(((gradients.mean(0) - exact) / error).abs().max()) < 4
    assert float(error.norm() / exact.norm()) < 0.05
    mean, value = exact_expectation(f, LOGITS), value.detach()
    assert abs(float((value.mean() - mean) / (value.std() / len(value) ** 0.5))) < 4


def test_leave_one_out_reaches_what_the_function_holds():
    """The gradient in parameters of f is that of the mean."""
    scale = torch.ones((), dtype=torch.float64, requires_grad=True)
    logits = LOGITS.expand(7, -1)
    leave_one_out(lambda b: scale * image(b), logits, 3, torch.Generator().manual_seed(0)).sum().backward()
    bits = Bernoulli(logits).sample(3, torch.Generator().manual_seed(0))
    assert float(scale.grad) == pytest.approx(float(image(bits).mean(0).sum()))
    with pytest.raises(ValueError, match="at least two"):
        leave_one_out(image, logits, 1)


def test_more_samples_make_leave_one_out_quieter():
    spread = []
    for k in (2, 4, 8):
        logits = LOGITS.expand(4000, -1).clone().requires_grad_()
        value = leave_one_out(image, logits, k, torch.Generator().manual_seed(5))
        spread.append(float(torch.autograd.grad(value.sum(), logits)[0].std(0).norm()))
    assert spread[0] > 1.5 * spread[1] > 1.5**2 * spread[2]


def test_relaxations_in_the_order_of_their_bias():
    """Of an image of parts: the sharper the smaller, and straight-through the worst."""
    exact = exact_gradient(image)
    cases = (Power(30.0), Power(20.0), Exponential(14.0), Exponential(10.0), StraightThrough())
    found = [bias(relaxed_gradients(image, r), exact) for r in cases]
    assert all(error < 0.025 for _, error in found)
    for (less, e1), (more, e2) in itertools.pairwise(found):
        assert more - less > math.hypot(e1, e2)
    assert found[-1][0] > 10 * found[-1][1]
    assert found[0][0] < 0.12
    soft, gum = (bias(relaxed_gradients(image, r), exact)[0] for r in (Logistic(), GumBolt()))
    assert 0.1 < soft < 0.3
    assert gum < 0.1


def test_the_gaussian_has_no_bias_for_quadratic_functions():
    """Its means are the bits and its variance is that of both: E f(zeta) = E f(b) + a constant."""
    value, error = bias(relaxed_gradients(image, Gaussian()), exact_gradient(image))
    assert value < 3 * error
    assert error < 0.015


def test_straight_through_is_unbiased_where_no_bit_meets_itself():
    """The derivative of a multilinear function in a bit is the difference that the bit makes."""
    value, error = bias(relaxed_gradients(multilinear, StraightThrough()), exact_gradient(multilinear))
    assert value < 3 * error
    biased, error = bias(relaxed_gradients(cubic, StraightThrough()), exact_gradient(cubic))
    assert biased > 10 * error


@pytest.mark.parametrize("name", ["image", "multilinear"])
def test_reinmax_is_unbiased_for_quadratic_functions(name):
    """The trapezoid rule is exact there; of a cubic function it leaves less than straight-through does."""
    f = FUNCTIONS[name]
    value, error = bias(relaxed_gradients(f, ReinMax()), exact_gradient(f))
    assert value < 3 * error
    assert error < 0.02
    first, second = (
        bias(relaxed_gradients(cubic, r), exact_gradient(cubic)) for r in (StraightThrough(), ReinMax())
    )
    assert second[0] + 3 * second[1] < first[0]


def test_too_many_bits_have_no_exact_expectation():
    with pytest.raises(ValueError, match="11 bits"):
        exact_expectation(image, torch.zeros(1, 11))


# -- importance-weighted bounds ----------------------------------------------------------------


def tightening(draw, exact, repeats=4000):
    """Bounds for K = 1, 5, 25, 125 of many posteriors alike lie in order below the evidence, and reach it."""
    found = []
    for seed, k in enumerate((1, 5, 25, 125)):
        weights = draw(k, repeats if k < 100 else repeats // 4, torch.Generator().manual_seed(seed))
        bound = importance_bound(*weights)
        found.append((float(bound.mean()), float(bound.std()) / len(bound) ** 0.5))
    for (a, e1), (b, e2) in itertools.pairwise(found):
        assert b - a > -3 * math.hypot(e1, e2)
    assert found[1][0] - found[0][0] > 3 * math.hypot(found[0][1], found[1][1])
    assert all(value < exact + 3 * error for value, error in found)
    assert found[0][0] < exact - 0.05
    assert exact - found[-1][0] < 0.1 * (exact - found[0][0])
    return found


def test_bounds_of_bits_tighten_to_the_sum_over_patterns():
    bias, matrix, log_z = machine(N)
    q_logits = 0.5 * LOGITS

    def log_p(b):
        return ((b * (bias + 0.5 * b @ matrix)).sum(-1)) - log_z

    states = bit_patterns(N, bias)
    exact = float(torch.logsumexp(0.3 * image(states) + log_p(states), 0))

    def draw(k, repeats, generator):
        q = Bernoulli(q_logits.expand(repeats, -1))
        b = q.sample(k, generator)
        return 0.3 * image(b), log_p(b), q.log_prob(b)

    found = tightening(draw, exact)
    elbo = exact_expectation(lambda b: 0.3 * image(b) + log_p(b) - Bernoulli(q_logits).log_prob(b), q_logits)
    assert abs(found[0][0] - float(elbo)) < 4 * found[0][1]


@pytest.mark.parametrize(
    "r", [Exponential(), Logistic(), Power(20.0), Gaussian(25.0)], ids=lambda r: type(r).__name__
)
def test_bounds_of_relaxed_bits_tighten_to_the_integral(r):
    """Two bits and p(x | zeta) smooth: the evidence by quadrature over the square, or the plane."""
    bias, matrix, log_z = machine(2)
    target = torch.tensor([0.8, 0.35], dtype=torch.float64)
    q_logits = torch.tensor([[1.0, -0.2]], dtype=torch.float64)

    def log_likelihood(zeta):
        return -4.0 * (zeta - target).square().sum(-1) - 2.0 * zeta.prod(-1)

    if isinstance(r, Gaussian):
        axis = torch.linspace(-1.5, 2.5, 801, dtype=torch.float64)
        cell = torch.full_like(axis, float(axis[1] - axis[0]))
    else:
        # Equal parts of the mixture of both densities, which power functions need: q = 1/2.
        rho = (torch.arange(500, dtype=torch.float64) + 0.5) / 500
        axis = r.sample(torch.full_like(rho, 0.5), rho)
        cell = torch.exp(-r.log_density(axis, torch.full_like(rho, 0.5))) / 500
    grid = torch.cartesian_prod(axis, axis)
    log_cell = torch.cartesian_prod(cell, cell).log().sum(-1)

    def log_p(zeta):
        return relaxed_log_prior(zeta, bias, matrix, log_z, r, "enumeration")

    exact = float(torch.logsumexp(log_likelihood(grid) + log_p(grid) + log_cell, 0))

    def draw(k, repeats, generator):
        q = Bernoulli(q_logits.expand(repeats, -1), r)
        zeta = q.rsample(k, generator)
        return log_likelihood(zeta), log_p(zeta), q.relaxed_log_prob(zeta)

    assert gaussian_precision(matrix, 25.0) == 25.0
    tightening(draw, exact)


def test_bounds_of_real_latents_tighten_to_the_evidence():
    """z ~ N(0, 1), x | z ~ N(z, 0.5^2): p(x) = N(0, 1.25)."""
    x = 1.1

    def draw(k, repeats, generator):
        mean = torch.full((repeats, 1), 0.5, dtype=torch.float64)
        q = DiagonalGaussian(mean, torch.full_like(mean, -1.0))
        z = q.rsample(k, generator)
        prior = DiagonalGaussian(torch.zeros_like(mean), torch.zeros_like(mean))
        likelihood = -2 * (x - z[..., 0]).square() - 0.5 * math.log(2 * math.pi * 0.25)
        return likelihood, prior.log_prob(z), q.log_prob(z)

    tightening(draw, -0.5 * x**2 / 1.25 - 0.5 * math.log(2 * math.pi * 1.25))


def test_effective_samples():
    assert effective_samples(torch.zeros(8, 2)).tolist() == pytest.approx([8.0, 8.0])
    one = torch.full((8, 1), -50.0)
    one[3] = 1000.0
    assert float(effective_samples(one)) == pytest.approx(1.0)
    assert float(effective_samples(torch.tensor([[0.0], [math.log(3.0)]]))) == pytest.approx(16 / 10)
