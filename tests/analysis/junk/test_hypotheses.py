"""Closed forms against quadrature and against densities of real numbers by scipy."""

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.stats import norm

from cryoscape.analysis.junk.hypotheses import posterior_strength, random_signal_evidence, scaled_evidence
from cryoscape.physics import fourier

CASES = [(12.0, 20.0, 1.0, 0.09), (-3.0, 8.0, 1.2, 0.25), (40.0, 30.0, 0.9, 0.01), (0.0, 50.0, 1.0, 1.0)]


def weight(a, linear, power, mean, variance):
    return np.exp(a * linear - a**2 * power / 2) * norm.pdf(a, mean, variance**0.5)


@pytest.mark.parametrize(("linear", "power", "mean", "variance"), CASES)
def test_strength_by_quadrature(linear, power, mean, variance):
    case = (linear, power, mean, variance)
    ends = mean - 12 * variance**0.5, mean + 12 * variance**0.5
    marks = {"points": [posterior_strength(*case)[0]], "epsabs": 1e-12, "limit": 200}
    total = quad(weight, *ends, args=case, **marks)[0]
    value = scaled_evidence(torch.tensor(linear).double(), torch.tensor(power).double(), mean, variance)
    assert float(value) == pytest.approx(np.log(total), abs=1e-6)
    middle = quad(lambda a: a * weight(a, *case), *ends, **marks)[0] / total
    spread = quad(lambda a: (a - middle) ** 2 * weight(a, *case), *ends, **marks)[0] / total
    assert posterior_strength(*case) == pytest.approx((middle, spread), rel=1e-6)


def test_a_strength_that_is_known():
    value = scaled_evidence(torch.tensor(7.0), torch.tensor(4.0), 1.5, 0.0)
    assert float(value) == pytest.approx(1.5 * 7 - 1.5**2 * 4 / 2)
    assert posterior_strength(7.0, 4.0, 1.5, 0.0) == (1.5, 0.0)


@pytest.mark.parametrize("factor", [0.25, 2.0])
def test_random_signal_by_the_densities_of_its_real_numbers(factor):
    """Every real degree of freedom once: half of column 0, the real and imaginary parts of all others."""
    box, g = 8, torch.Generator().manual_seed(3)
    images = fourier.forward(torch.randn(2, box, box, generator=g, dtype=torch.float64))
    weights = fourier.band_weights(box, 1.0, 2.3).double()
    # Mean and variance of a conjugate pair are the same, as those of a real image are.
    radius = fourier.frequency_grid(box, 1.0, dtype=torch.float64).norm(dim=-1)
    mean, variance = 0.7 * torch.exp(-radius), 2 * torch.exp(-4 * radius)
    found = random_signal_evidence(images, mean, variance, weights, torch.tensor([factor]))
    used = weights > 0
    used[box // 2 :, 0] = False
    x, mu, rho = images[:, used].numpy(), factor**0.5 * mean[used].numpy(), factor * variance[used].numpy()
    wide, narrow = np.sqrt((1 + rho) / 2), np.sqrt(0.5)
    expected = norm.logpdf(x.real, mu, wide) + norm.logpdf(x.imag, 0, wide)
    expected -= norm.logpdf(x.real, 0, narrow) + norm.logpdf(x.imag, 0, narrow)
    np.testing.assert_allclose(found[:, 0], expected.sum(axis=1), rtol=1e-6)


def test_the_formula_without_a_mean():
    x = torch.tensor([[1.0 + 2.0j, 0.5j]])
    rho, w = torch.tensor([[3.0, 0.5]]), torch.tensor([2.0, 1.0])
    expected = 2 * (5 / 2 * 3 / 4 - np.log(4) / 2) + (0.25 / 2 * 0.5 / 1.5 - np.log(1.5) / 2)
    found = random_signal_evidence(x, torch.zeros(()), rho, w, torch.tensor([1.0]))
    assert float(found) == pytest.approx(expected, rel=1e-6)
