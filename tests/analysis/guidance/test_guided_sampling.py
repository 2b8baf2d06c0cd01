"""Samples under conditions, and how probable these are, against closed forms, quadrature and enumeration."""

import math
from itertools import product

import numpy as np
import pytest
import torch
from scipy.stats import kstest, norm

from cryoscape.analysis.guidance.guided_sampling import sample_under_conditions
from cryoscape.analysis.guidance.latent_moves import BitFlip, CrankNicolson, Langevin, Stage, draw_walkers
from cryoscape.analysis.variables.conditions import (
    Conditions,
    FunctionCondition,
    IntervalCondition,
    MeasurementCondition,
)
from cryoscape.analysis.variables.decoded_latents import Decoded
from cryoscape.errors import InputError
from cryoscape.priors.flow import FlowPrior
from cryoscape.priors.guidance import GuidedSampler
from cryoscape.priors.machines.kinds import complete_machine
from cryoscape.priors.mixture import MixturePrior
from cryoscape.priors.normal import NormalPrior
from tests.analysis.variables.test_conditions import Coordinate


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def above(level, k=0):
    return Conditions([IntervalCondition(f"x{k} > {level}", Coordinate(k), level, math.inf)], Decoded)


def measured(target, sd, k=0):
    return Conditions([MeasurementCondition("x", Coordinate(k), target, sd)], Decoded)


def mixture():
    """Two Gaussians in three dimensions."""
    prior = MixturePrior(3, 2)
    rng = np.random.default_rng(0)
    roots = 0.5 * rng.normal(size=(2, 3, 3)) + 0.6 * np.eye(3)
    share, mean = np.array([0.7, 0.3]), np.array([[-1.0, 0, 0.5], [3.0, 1, -1]])
    covariance = roots @ roots.transpose(0, 2, 1)
    with torch.no_grad():
        prior.logits.copy_(torch.as_tensor(np.log(share)))
        prior.gaussians.set(mean, covariance)
    return prior.requires_grad_(False), share, mean, covariance


def moved_flow():
    prior = FlowPrior(2, transforms=2, hidden=(8, 8), bins=4)
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=seeded(5)))
    prior.shift.copy_(torch.tensor([0.4, -0.3]))
    prior.scale.fill_(1.2)
    return prior.requires_grad_(False)


def test_mixture_under_a_measurement_has_the_weights_of_the_product():
    prior, share, mean, covariance = mixture()
    target, sd = 1.5, 0.4
    variance = covariance[:, 0, 0] + sd**2
    weight = share * norm.pdf(target, mean[:, 0], np.sqrt(variance)) * sd * math.sqrt(2 * math.pi)
    gain = covariance[:, :, 0] / variance[:, None]
    centres = mean + gain * (target - mean[:, :1])
    expected = weight @ centres / weight.sum()
    runs = [sample_under_conditions(prior, measured(target, sd), 4000, seeded(seed)) for seed in range(4)]
    # Three standard errors, as measured over 16 seeds.
    log_z = np.array([one.log_probability for one in runs])
    assert log_z.mean() == pytest.approx(math.log(weight.sum()), abs=0.1)
    assert all(0 < one.std_err < 0.2 for one in runs)
    z = torch.cat([one.z for one in runs])
    np.testing.assert_allclose(z.mean(0), expected, atol=0.13)
    rare = prior.responsibilities(z)[:, 1].mean()
    second = weight[1] / weight.sum()
    # The mean responsibility is not the weight of the component: compare with its mean under the product.
    rng = np.random.default_rng(2)
    which = rng.choice(2, 40_000, p=weight / weight.sum())
    left = covariance - covariance[:, :, :1] * gain[:, None]
    roots = np.linalg.cholesky(left + 1e-12 * np.eye(3))
    true = centres[which] + np.einsum("nij,nj->ni", roots[which], rng.normal(size=(40_000, 3)))
    truth = prior.responsibilities(torch.as_tensor(true).float())[:, 1].mean()
    assert 0.2 < second < 0.8
    assert float(rare) == pytest.approx(float(truth), abs=0.03)


@pytest.mark.parametrize("level", [0.5, 3.5])
def test_half_space_of_a_normal_law(level):
    found = sample_under_conditions(NormalPrior(8), above(level), 2000, seeded(2))
    assert found.log_probability == pytest.approx(norm.logsf(level), abs=0.25 if level > 2 else 0.06)
    x = found.z[:, 0].double().numpy()
    assert x.min() > level
    assert x.mean() == pytest.approx(norm.pdf(level) / norm.sf(level), abs=0.03)
    np.testing.assert_allclose(found.z[:, 1:].std(0), 1, atol=0.12)
    assert 20 < found.ess <= 2000


def test_probabilities_have_no_bias_and_their_errors_are_true():
    estimates = [
        sample_under_conditions(NormalPrior(2), above(2.5), 8, seeded(seed), walkers=32) for seed in range(36)
    ]
    ratio = np.array([one.probability for one in estimates]) / norm.sf(2.5)
    error = ratio.std(ddof=1) / 6
    assert abs(ratio.mean() - 1) < 3 * error
    assert error < 0.08
    assert np.mean([one.std_err for one in estimates]) == pytest.approx(ratio.std(), rel=0.35)


def test_flow_under_a_wall_against_quadrature():
    prior = moved_flow()
    axis = torch.linspace(-9, 9, 401)
    grid = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2)
    density = prior.log_prob(grid).exp().double() * float(axis[1] - axis[0]) ** 2
    assert float(density.sum()) == pytest.approx(1, abs=2e-3)
    inside = grid[:, 1] > 2.0
    share = float(density[inside].sum())
    mean = (density[inside, None] * grid[inside]).sum(0) / share
    found = sample_under_conditions(prior, above(2.0, k=1), 2000, seeded(3))
    assert found.probability == pytest.approx(share, rel=0.12)
    np.testing.assert_allclose(found.z.mean(0), mean, atol=0.1)


def machine(bits=5):
    prior = complete_machine(bits)
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter.copy_(0.8 * torch.randn(parameter.shape, generator=seeded(7)))
    return prior.requires_grad_(False)


def test_bits_under_a_condition_against_enumeration():
    prior = machine()
    patterns = torch.tensor(list(product([0.0, 1.0], repeat=5)))
    log_p = prior.log_prob(patterns).double()
    score = -1.5 * (patterns.sum(1) - 4).abs().double()
    weight = (log_p + score).exp()
    conditions = Conditions([FunctionCondition("f", lambda b: -1.5 * (b.sum(1) - 4).abs())], Decoded)
    found = sample_under_conditions(prior, conditions, 4000, seeded(4))
    assert found.probability == pytest.approx(float(weight.sum()), rel=0.08)
    code = (found.z @ torch.tensor([16.0, 8, 4, 2, 1])).long()
    shares = torch.bincount(code, minlength=32).double() / 4000
    assert 0.5 * float((shares - weight / weight.sum()).abs().sum()) < 0.07


@pytest.mark.parametrize("move", [CrankNicolson, Langevin])
def test_moves_keep_the_law(move):
    prior = moved_flow() if move is CrankNicolson else NormalPrior(2)
    conditions = above(-50.0)
    made = move(prior, conditions)
    walkers = draw_walkers(prior, conditions, 4000, seeded(5))
    stage, generator = Stage(0.0, 0.0), seeded(6)
    made.start(walkers, stage)
    before = walkers.z
    for _ in range(15):
        walkers = made(walkers, stage, generator)
    assert float((walkers.z != before).any(1).float().mean()) > 0.9
    fresh = prior.sample(4000, seeded(7))
    for k in range(2):
        assert kstest(walkers.z[:, k].numpy(), fresh[:, k].numpy()).pvalue > 1e-3


def test_langevin_moves_keep_a_law_that_is_tilted():
    # N(0, 1) times exp(-(x - 1)^2 / (2 s^2)) is a normal law with a known mean and width.
    conditions, prior = measured(1.0, 0.5), NormalPrior(2)
    walkers = draw_walkers(prior, conditions, 4000, seeded(8))
    variance = 1 / (1 + 1 / 0.25)
    x = 0.8 + math.sqrt(variance) * torch.randn(4000, generator=seeded(9))
    walkers.z[:, 0] = x
    walkers.found = conditions(walkers.z)
    made, stage = Langevin(prior, conditions), Stage(1.0, 0.0)
    generator = seeded(10)
    made.start(walkers, stage)
    for _ in range(15):
        walkers = made(walkers, stage, generator)
    assert kstest(walkers.z[:, 0].numpy(), norm(0.8, math.sqrt(variance)).cdf).pvalue > 1e-3


def test_flips_keep_the_law_of_bits():
    prior = machine()
    patterns = torch.tensor(list(product([0.0, 1.0], repeat=5)))
    p = prior.log_prob(patterns).exp().double().numpy()
    conditions = above(-1.0)
    walkers = draw_walkers(prior, conditions, 4000, seeded(11))
    start = np.random.default_rng(0).choice(32, 4000, p=p / p.sum())
    walkers.z, generator = patterns[start], seeded(12)
    made, stage = BitFlip(prior, conditions), Stage(0.0, 0.0)
    made.start(walkers, stage)
    for _ in range(20):
        walkers = made(walkers, stage, generator)
    code = (walkers.z @ torch.tensor([16.0, 8, 4, 2, 1])).long().numpy()
    assert (code != start).mean() > 0.5
    shares = np.bincount(code, minlength=32) / 4000
    assert np.abs(shares - p).sum() / 2 < 0.05


class SteeredNormal(NormalPrior):
    """A prior with a sampler that follows guidance badly."""

    asked = 0

    def guided_sample(self, n, log_potential_gradient, generator=None):
        SteeredNormal.asked += 1
        z = self.sample(n, generator)
        return z + 0.5 * log_potential_gradient(z).clamp(-4, 4)


def test_guided_samplers_are_asked_and_corrected():
    prior = SteeredNormal(3)
    assert isinstance(prior, GuidedSampler)
    assert not isinstance(NormalPrior(3), GuidedSampler)
    found = sample_under_conditions(prior, measured(2.0, 0.5), 4000, seeded(13))
    assert SteeredNormal.asked == 1
    log_mean = math.log(0.5 / math.sqrt(1.25)) - 0.5 * 4 / 1.25
    assert found.log_probability == pytest.approx(log_mean, abs=0.1)
    assert float(found.z[:, 0].mean()) == pytest.approx(1.6, abs=0.04)
    assert float(found.z[:, 0].std()) == pytest.approx(math.sqrt(0.2), abs=0.03)


def test_conditions_that_are_never_met_end_with_the_nearest():
    far = Conditions([IntervalCondition("f", Coordinate(), 3.0, math.inf)], lambda z: Decoded(torch.tanh(z)))
    with pytest.raises(InputError, match=r"nearest found has (1|0\.99\d*) A for `f`"):
        sample_under_conditions(NormalPrior(2), far, 100, seeded(14))


def test_weights_of_zero_are_walls_without_a_slope():
    conditions = Conditions(
        [FunctionCondition("f", lambda x: torch.where(x[:, 0] > 1, 0.0, -math.inf))], Decoded
    )
    found = sample_under_conditions(NormalPrior(2), conditions, 500, seeded(15))
    assert found.probability == pytest.approx(norm.sf(1), rel=0.25)
    assert float(found.z[:, 0].min()) > 1


def test_a_seed_gives_the_same_samples():
    a, b = (sample_under_conditions(mixture()[0], above(2.0), 300, seeded(16)) for _ in range(2))
    torch.testing.assert_close(a.z, b.z, rtol=0, atol=0)
    assert a.log_probability == b.log_probability
