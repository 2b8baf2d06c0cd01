import math

import numpy as np
import torch
from scipy.stats import norm

from cryoscape.analysis.prior_fitting.evidence import evidence_bias, particle_density, reweighted_points
from cryoscape.priors.diffusion.prior import DiffusionPrior
from cryoscape.priors.normal import NormalPrior
from cryoscape.priors.posterior_samples import PosteriorSamples


def shifted(by):
    prior = NormalPrior(2)
    prior.shift += by
    return prior


def few_samples():
    z = torch.randn(7, 5, 2, generator=torch.Generator().manual_seed(0))
    return PosteriorSamples(z, torch.from_numpy(norm.logpdf(z.numpy()).sum(-1)))


def test_density_and_evidence_by_hand():
    samples, z = few_samples(), few_samples().z.numpy()
    log_p, log_p0 = norm.logpdf(z - 0.7).sum(-1), norm.logpdf(z).sum(-1)
    want = np.log(np.mean(np.exp(log_p - log_p0), axis=0))
    got = particle_density(shifted(0.7), samples, "deconvolved")
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
    got = particle_density(shifted(0.7), samples, "aggregate")
    np.testing.assert_allclose(got, log_p.mean(0), rtol=1e-5)
    assert np.abs(particle_density(NormalPrior(2), samples, "deconvolved")).max() < 1e-6


def test_evidence_is_that_of_the_integral():
    """q = N(m, s^2) under p0 = N(0, 1), p = N(d, 1): E_q[p / p0] = exp(d m + d^2 (s^2 - 1) / 2)."""
    m, s, d = np.array([[0.5, 0.0], [-1.0, 2.0]]), 0.4, 0.7
    samples = PosteriorSamples.of_gaussians(
        torch.tensor(m).float(), torch.full((2, 2), s), NormalPrior(2), samples=20_000
    )
    want = (d * m + d**2 * (s**2 - 1) / 2).sum(axis=1)
    spread = math.sqrt((math.exp(2 * d**2 * s**2) - 1) / 20_000)
    got = particle_density(shifted(d), samples, "deconvolved")
    assert np.abs(got - want).max() < 4 * spread


def test_bias_is_that_of_repeated_estimates():
    """Of q = N(0, s^2): many estimates from 50 samples each against the integral."""
    s, d, n = 0.4, 1.0, 20_000
    samples = PosteriorSamples.of_gaussians(
        torch.zeros(n, 1), torch.full((n, 1), s), NormalPrior(1), samples=50
    )
    prior = NormalPrior(1)
    prior.shift += d
    exact = d**2 * (s**2 - 1) / 2
    low = exact - particle_density(prior, samples, "deconvolved").mean()
    error = math.sqrt((math.exp(d**2 * s**2) - 1) / 50 / n)
    assert abs(evidence_bias(prior, samples) - low) < 4 * error + 0.1 * low
    assert abs(evidence_bias(NormalPrior(1), samples)) < 1e-9


def test_reweighted_points_are_of_the_posterior_under_the_other_prior():
    """N(0, 1/2) under N(0, 1) is N(0, 1) as a likelihood; under N(d, 1) it becomes N(d / 2, 1/2)."""
    n, d = 4000, 1.0
    sd = torch.full((n, 2), math.sqrt(0.5))
    samples = PosteriorSamples.of_gaussians(torch.zeros(n, 2), sd, NormalPrior(2), samples=200)
    points = reweighted_points(shifted(d), samples, seed=1)
    np.testing.assert_allclose(points.mean(axis=0), d / 2, atol=0.04)
    np.testing.assert_allclose(points.var(axis=0), 0.5, atol=0.05)
    np.testing.assert_array_equal(points, reweighted_points(shifted(d), samples, seed=1))


def test_a_costly_density_is_taken_of_one_sample_a_particle():
    generator = torch.Generator().manual_seed(0)
    mean = torch.randn(12, 2, generator=generator)
    samples = PosteriorSamples.of_gaussians(mean, torch.full_like(mean, 0.2), samples=3)
    prior = DiffusionPrior(2, layers=1, width=8).eval()
    found = particle_density(prior, samples, "aggregate")
    # A new one is N(0, I).
    np.testing.assert_allclose(found, NormalPrior(2).log_prob(samples.z[0]), atol=1e-3)
