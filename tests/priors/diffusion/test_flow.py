"""Codes and densities by the flow, with the denoiser of a mixture: nothing is trained."""

import numpy as np
import torch
from scipy.stats import kstest

from tests.priors.diffusion.mixtures import draw, log_density, mixture_prior


def test_decoding_undoes_encoding():
    prior = mixture_prior()
    z = torch.as_tensor(draw(500), dtype=torch.float32)
    assert float((prior.decode(prior.encode(z)) - z).abs().max()) < 2e-4
    torch.testing.assert_close(prior.encode(prior.decode(z)), z, rtol=0, atol=2e-4)
    exact = mixture_prior(torch.float64, tolerance=1e-9)
    torch.testing.assert_close(exact.decode(exact.encode(z.double())), z.double(), rtol=0, atol=1e-7)


def test_density_is_that_of_the_mixture():
    """Also far out, where it is low; what is left is the end of the noise at sigma = 80."""
    prior = mixture_prior()
    z = np.concatenate([draw(300), np.random.default_rng(1).uniform(-4, 4, (100, 2))])
    found = prior.log_prob(z).double().numpy()
    np.testing.assert_allclose(found, log_density(z, 0.002), atol=1e-2)
    assert np.abs(found - log_density(z, 0.002))[:300].mean() < 1e-3


def test_density_in_units_of_z():
    prior = mixture_prior()
    prior.shift.copy_(torch.tensor([3.0, -1.0]))
    prior.scale.fill_(2.5)
    z = draw(50)
    moved = prior.log_prob(2.5 * z + np.array([3.0, -1.0])).double().numpy()
    np.testing.assert_allclose(moved, log_density(z, 0.002) - 2 * np.log(2.5), atol=1e-2)


def test_codes_are_standard_normal():
    base = mixture_prior().encode(torch.as_tensor(draw(4000, 5), dtype=torch.float32)).double().numpy()
    np.testing.assert_allclose(np.cov(base.T), np.eye(2), atol=0.08)
    for direction in ([1, 0], [0, 1], [0.6, 0.8]):
        assert kstest(base @ np.array(direction), "norm").pvalue > 1e-3


def test_score_is_that_of_the_mixture():
    prior = mixture_prior()
    z = draw(30, 4)
    step = 1e-5 * np.eye(2)
    want = np.stack([(log_density(z + e) - log_density(z - e)) / 2e-5 for e in step], -1)
    np.testing.assert_allclose(prior.score(torch.as_tensor(z, dtype=torch.float32)), want, atol=0.03)
    blurred = np.stack([(log_density(z + e, 0.1) - log_density(z - e, 0.1)) / 2e-5 for e in step], -1)
    found = prior.blurred_score(torch.as_tensor(z, dtype=torch.float32), 0.1)
    np.testing.assert_allclose(found, blurred, atol=1e-3)


def test_interpolation_ends_where_it_should():
    prior = mixture_prior()
    a, b = torch.as_tensor(draw(2, 3), dtype=torch.float32)
    for kind in ("linear", "slerp"):
        path = prior.interpolate(a, b, 9, kind)
        torch.testing.assert_close(path[[0, -1]], torch.stack([a, b]), rtol=0, atol=5e-4)
