from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cryoscape.analysis.prior_fitting.embeddings import EmbeddingSource
from cryoscape.analysis.prior_fitting.fit import build_prior, fit_to_embedding, prior_kinds
from cryoscape.errors import InputError
from cryoscape.priors.config import BernoulliConfig, MixtureConfig, NormalConfig
from cryoscape.priors.normal import NormalPrior

RNG = np.random.default_rng(0)
Z = RNG.normal(size=(400, 2)) * [2.0, 0.5] + [3.0, -1.0]
POINTS = EmbeddingSource(Path("z.npy"), Z)
ERRORS = replace(POINTS, z_sd=np.full(Z.shape, 0.3), reference=NormalPrior(2), cautions=("be careful",))


def test_kinds_are_those_of_the_settings():
    assert {"normal", "mixture", "flow", "boltzmann"} <= set(prior_kinds("real"))
    assert {"bm", "rbm", "dbm", "bernoulli"} == set(prior_kinds("binary"))
    assert set(prior_kinds()) == set(prior_kinds("real")) | set(prior_kinds("binary"))
    assert prior_kinds()["mixture"] is MixtureConfig


def test_a_seed_gives_the_same_start_and_leaves_no_trace():
    torch.manual_seed(5)
    want = torch.rand(1)
    torch.manual_seed(5)
    priors = [build_prior(MixtureConfig(components=3), 2, seed) for seed in (1, 1)]
    assert torch.equal(torch.rand(1), want)
    for a, b in zip(priors[0].parameters(), priors[1].parameters(), strict=True):
        assert torch.equal(a, b)


def test_one_gaussian_is_the_mean_and_covariance():
    prior, report = fit_to_embedding(MixtureConfig(components=1), POINTS, steps=0)
    states = prior.states()
    np.testing.assert_allclose(states.mean[0], Z.mean(axis=0), atol=0.15)
    np.testing.assert_allclose(states.covariance[0], np.cov(Z.T), atol=0.5)
    assert report.particles + report.held_out == 400
    assert report.warnings == ()


def test_cautions_are_warnings_of_a_deconvolution_alone():
    settings = MixtureConfig(components=1)
    assert "be careful" in fit_to_embedding(settings, ERRORS, "deconvolved", steps=0)[1].warnings
    assert "be careful" not in fit_to_embedding(settings, ERRORS, steps=0)[1].warnings


def test_probabilities_become_bits():
    source = EmbeddingSource(Path("p.npy"), np.tile([0.2, 0.9], (4000, 1)))
    prior, _ = fit_to_embedding(BernoulliConfig(), source, steps=0)
    np.testing.assert_allclose(prior.sample(8000).mean(0), [0.2, 0.9], atol=0.03)


def test_unsuited_kinds_are_refused():
    with pytest.raises(InputError, match="law of bits"):
        fit_to_embedding(BernoulliConfig(), POINTS)
    with pytest.raises(InputError, match="law of real numbers"):
        fit_to_embedding(NormalConfig(), EmbeddingSource(Path("b.npy"), np.eye(20), support="binary"))
