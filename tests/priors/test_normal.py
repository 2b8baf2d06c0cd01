import math

import numpy as np
import torch
from scipy.stats import multivariate_normal

from cryoscape.models.posteriors import DiagonalGaussian
from cryoscape.priors.normal import NormalPrior


def test_log_density_of_scipy():
    z = np.random.default_rng(0).normal(size=(7, 5))
    want = multivariate_normal(np.zeros(5)).logpdf(z)
    np.testing.assert_allclose(NormalPrior(5).log_prob(torch.from_numpy(z)), want, rtol=1e-6)


def test_closed_form_kl_by_hand():
    q = DiagonalGaussian(
        torch.tensor([[1.0, -2.0], [0.0, 0.0]]), torch.tensor([[0.0, math.log(4.0)], [0.0, 0.0]])
    )
    want = [0.5 * (1 + 4 + 1 + 4 - 2 - math.log(4.0)), 0.0]
    np.testing.assert_allclose(NormalPrior(2).kl_divergence(q), want, atol=1e-6)


def test_dead_dimensions_cost_nothing():
    q = DiagonalGaussian(torch.zeros(3, 8), torch.zeros(3, 8))
    assert torch.equal(NormalPrior(8).kl_divergence(q), torch.zeros(3))


def test_no_parameters():
    assert list(NormalPrior(4).parameters()) == []
