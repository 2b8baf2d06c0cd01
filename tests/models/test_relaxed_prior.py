"""The law of relaxed bits against sums over all bit patterns, written out in numpy."""

import itertools

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal

from cryoscape.models.relaxations import Exponential, Gaussian, GumBolt, Logistic, Power, StraightThrough
from cryoscape.models.relaxed_prior import (
    enumerated_log_partition,
    gaussian_log_prior,
    gaussian_precision,
    mean_field_log_partition,
    relaxed_log_prior,
    uncoupled_blocks,
)

SMOOTHINGS = {"exponential": Exponential(), "logistic": Logistic(), "power": Power(25.0)}


def machine(n, seed=0, scale=0.8):
    """Bias, couplings and exact log Z of a fully coupled machine, in double precision."""
    g = torch.Generator().manual_seed(seed)
    bias = torch.randn(n, generator=g, dtype=torch.float64)
    upper = torch.triu(scale * torch.randn(n, n, generator=g, dtype=torch.float64), 1)
    matrix = upper + upper.T
    return bias, matrix, float(np.logaddexp.reduce(negative_energies(bias, matrix)))


def patterns(n):
    return np.array(list(itertools.product([0.0, 1.0], repeat=n)))


def negative_energies(bias, matrix):
    """a.b + sum over pairs of W b b, pattern by pattern."""
    a, w, n = bias.numpy(), matrix.numpy(), len(bias)
    return np.array(
        [a @ s + sum(w[i, j] * s[i] * s[j] for i in range(n) for j in range(i)) for s in patterns(n)]
    )


def points(n, rows=50, seed=1):
    return torch.rand(rows, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("name", SMOOTHINGS)
def test_enumeration_is_the_sum_over_bits(name):
    """log sum_b p(b) prod_i r(zeta_i | b_i), one pattern after the other."""
    r, (bias, matrix, log_z), zeta = SMOOTHINGS[name], machine(5), points(5)
    log_p = negative_energies(bias, matrix) - log_z
    r0, r1 = r.log_r0(zeta).numpy(), r.log_r1(zeta).numpy()
    terms = [p + np.where(s > 0, r1, r0).sum(-1) for p, s in zip(log_p, patterns(5))]
    got = relaxed_log_prior(zeta, bias, matrix, log_z, r, "enumeration")
    np.testing.assert_allclose(got, np.logaddexp.reduce(terms), rtol=0, atol=1e-13)


@pytest.mark.parametrize("name", SMOOTHINGS)
def test_the_mean_field_is_a_tight_lower_bound(name):
    """For draws of the smoothing, which say nearly everything about their bits."""
    r, (bias, matrix, log_z) = SMOOTHINGS[name], machine(6)
    g = torch.Generator().manual_seed(2)
    bits = torch.randint(0, 2, (400, 6), generator=g).double()
    zeta = r.sample(bits, torch.rand(400, 6, generator=g, dtype=torch.float64))
    exact = relaxed_log_prior(zeta, bias, matrix, log_z, r, "enumeration")
    gap = exact - relaxed_log_prior(zeta, bias, matrix, log_z, r)
    assert float(gap.min()) > -1e-12
    assert float(gap.mean()) < 0.02
    assert float(gap.mean()) > 0


def test_every_sweep_of_the_mean_field_raises_the_bound():
    bias, matrix, _ = machine(7, scale=1.5)
    fields = bias + points(7) - 0.5
    bounds = [mean_field_log_partition(fields, matrix, sweeps=s) for s in (0, 1, 2, 5, 20)]
    for before, after in itertools.pairwise(bounds):
        assert float((after - before).min()) > -1e-12
    assert float((enumerated_log_partition(fields, matrix) - bounds[-1]).min()) > 0


def test_the_gradient_of_the_mean_field_is_its_slope_where_it_has_settled():
    (bias, matrix, _), step = machine(4), 1e-5
    fields = (2 * bias + points(4, 3)).requires_grad_()
    weights = matrix.clone().requires_grad_()
    mean_field_log_partition(fields, weights, sweeps=200).sum().backward()

    def bound(f, w):
        return float(mean_field_log_partition(f, w, sweeps=200).sum())

    for row, column in ((0, 1), (2, 3)):
        e = torch.zeros_like(fields)
        e[row, column] = step
        f = fields.detach()
        slope = (bound(f + e, matrix) - bound(f - e, matrix)) / (2 * step)
        assert abs(float(fields.grad[row, column]) - slope) < 1e-8
    e = torch.zeros_like(matrix)
    e[0, 2] = e[2, 0] = step
    slope = (bound(fields.detach(), matrix + e) - bound(fields.detach(), matrix - e)) / (2 * step)
    assert abs(float(weights.grad[0, 2] + weights.grad[2, 0]) - slope) < 1e-8


@pytest.mark.parametrize("name", SMOOTHINGS)
def test_the_marginal_has_the_mass_of_its_parts(name):
    """Two bits, Gauss-Legendre in pieces that shrink towards the ends, exponent by exponent."""
    r, (bias, matrix, log_z) = SMOOTHINGS[name], machine(2)
    x, w = np.polynomial.legendre.leggauss(12)
    edges = 0.5 * np.exp(-np.linspace(36.0, 0.0, 37))
    low = np.concatenate([(a + b) / 2 + (b - a) / 2 * x for a, b in itertools.pairwise(edges)])
    weight = np.concatenate([(b - a) / 2 * w for a, b in itertools.pairwise(edges)])
    nodes, weight = torch.from_numpy(low), torch.from_numpy(weight)
    total = 0.0
    # Four quarters of the square; near 1 by the symmetry of the machine under turning a bit over.
    for flip in patterns(2):
        s = torch.from_numpy(flip)
        sign = 1 - 2 * s
        turned = matrix * sign[:, None] * sign
        field = sign * (bias + matrix @ s)
        constant = float(bias @ s + 0.5 * s @ matrix @ s)
        log_p = relaxed_log_prior(
            torch.cartesian_prod(nodes, nodes), field, turned, log_z - constant, r, "enumeration"
        )
        total += float((log_p.exp() * torch.cartesian_prod(weight, weight).prod(-1)).sum())
    # Power functions have much of their mass still closer to the ends.
    first, last = r.cdf0(torch.tensor([edges[0], 1 - edges[0]]))
    assert abs(total - float(last - first) ** 2) < 1e-9


@pytest.mark.parametrize("n", [3, 6])
def test_the_gaussian_integral_is_the_sum_over_bits(n):
    """log sum_b p(b) N(zeta; b, (W + s I)^-1) with scipy's normal density."""
    bias, matrix, log_z = machine(n)
    precision = gaussian_precision(matrix, 10.0)
    zeta = 1.4 * points(n) - 0.2
    covariance = np.linalg.inv(matrix.numpy() + precision * np.eye(n))
    log_p = negative_energies(bias, matrix) - log_z
    terms = [p + multivariate_normal.logpdf(zeta.numpy(), s, covariance) for p, s in zip(log_p, patterns(n))]
    got = gaussian_log_prior(zeta, bias, matrix, log_z, precision)
    np.testing.assert_allclose(got, np.logaddexp.reduce(terms), rtol=0, atol=2e-13)
    torch.testing.assert_close(got, relaxed_log_prior(zeta, bias, matrix, log_z, Gaussian(10.0)))


def test_the_precision_of_the_gaussian_makes_it_one():
    _, matrix, _ = machine(6, scale=4.0)
    least = float(torch.linalg.eigvalsh(matrix)[0])
    assert gaussian_precision(matrix, 2.0) == pytest.approx(5 - least)
    assert gaussian_precision(matrix, 100.0) == 100.0
    with pytest.raises(ValueError, match="least eigenvalue"):
        gaussian_log_prior(torch.zeros(6).double(), torch.zeros(6).double(), matrix, 0.0, -least - 0.1)


@pytest.mark.parametrize("r", [GumBolt(), StraightThrough()])
def test_without_a_density_energies_take_its_place(r):
    bias, matrix, log_z = machine(4)
    bits = torch.from_numpy(patterns(4))
    got = relaxed_log_prior(bits, bias, matrix, log_z, r)
    np.testing.assert_allclose(got, negative_energies(bias, matrix) - log_z, atol=1e-13)
    assert abs(float(got.logsumexp(0))) < 1e-12


def test_too_many_bits_are_not_enumerated():
    with pytest.raises(ValueError, match="13 bits"):
        enumerated_log_partition(torch.zeros(2, 13), torch.zeros(13, 13))


def test_blocks_hold_no_couplings():
    _, matrix, _ = machine(6)
    assert [len(b) for b in uncoupled_blocks(matrix)] == [1] * 6
    assert [b.tolist() for b in uncoupled_blocks(torch.zeros(5, 5))] == [[0, 1, 2, 3, 4]]
    ring = torch.zeros(7, 7)
    for i in range(7):
        ring[i, (i + 1) % 7] = ring[(i + 1) % 7, i] = 1.0
    blocks = uncoupled_blocks(ring)
    assert sorted(torch.cat(blocks).tolist()) == list(range(7))
    assert len(blocks) == 3
    assert all(float(ring[b][:, b].abs().max()) == 0 for b in blocks)


def test_a_bipartite_machine_has_two_blocks_in_any_order():
    order = torch.randperm(12, generator=torch.Generator().manual_seed(4))
    matrix = torch.zeros(12, 12)
    matrix[:5, 5:] = 1.0
    matrix = (matrix + matrix.T)[order][:, order]
    assert sorted(len(b) for b in uncoupled_blocks(matrix)) == [5, 7]


def test_single_precision_stands_the_ends():
    bias, matrix, log_z = machine(5)
    eps = torch.finfo(torch.float32).eps
    zeta = torch.tensor([[eps, 1 - eps, 0.5, eps, 1 - eps]])
    for r in (*SMOOTHINGS.values(), Gaussian(), GumBolt(), StraightThrough()):
        value = relaxed_log_prior(zeta, bias.float(), matrix.float(), log_z, r)
        want = relaxed_log_prior(zeta.double(), bias, matrix, log_z, r)
        assert value.dtype == torch.float32
        torch.testing.assert_close(value.double(), want, rtol=1e-4, atol=1e-4)
