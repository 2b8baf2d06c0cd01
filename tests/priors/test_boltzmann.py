import math

import numpy as np
import pytest
import torch

from cryoscape.errors import InputError
from cryoscape.priors.boltzmann import BoltzmannPrior
from cryoscape.priors.expectation_maximisation import MixtureEstimate
from cryoscape.priors.fitting import PosteriorSamples
from cryoscape.priors.samplers.exact import ExactSampler
from cryoscape.priors.switches.codes import order_by_bisection
from cryoscape.priors.switches.marginal import Annealing, annealed_energy, switch_posterior
from cryoscape.priors.switches.start import (
    configurations,
    match_moments,
    pairwise_features,
    pairwise_weights,
    table_score,
    unexplained,
)

FIELDS = np.array([0.5, -0.3, 0.2])
COUPLINGS = np.array([[0.0, 0.8, 0.0], [0.8, 0.0, -0.5], [0.0, -0.5, 0.0]])
DIRECTIONS = np.array([[2.0, 0, 0, 0], [0, 1.5, 0, 0], [0, 0, 1.0, 0.5]])


def weights_by_hand(fields, couplings):
    """exp(b.s + s J s / 2) of all configurations, normalised, by the definition."""
    codes = configurations(len(fields))
    weight = np.array([math.exp(fields @ s + sum(
        couplings[i, j] * s[i] * s[j] for i in range(len(s)) for j in range(i + 1, len(s))
    )) for s in codes])  # fmt: skip
    return codes, weight / weight.sum()


def coupled_switches(n, seed=0, width=0.25):
    """Points around additive means of three coupled switches, and their configurations."""
    rng = np.random.default_rng(seed)
    codes, weight = weights_by_hand(FIELDS, COUPLINGS)
    s = codes[rng.choice(len(codes), n, p=weight)]
    return s @ DIRECTIONS + width * rng.standard_normal((n, 4)), s


def moved(prior, by, seed=0):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in prior.parameters():
            p.add_(by * torch.randn(p.shape, generator=generator))
    return prior


def enumerated_energy(prior, u):
    """-log sum_s exp(b.s + ...) N(u; mu(s), S) over all 2^m configurations."""
    s = torch.as_tensor(configurations(prior.spins)).to(u)
    joint = prior.switches.log_unnormalised(s) + prior.emission.log_prob_given(u[:, None, :], s)
    return -torch.logsumexp(joint, 1)


def test_weights_are_boltzmann_factors():
    prior = BoltzmannPrior(2, 3).double()
    with torch.no_grad():
        prior.switches.fields.copy_(torch.from_numpy(FIELDS))
        prior.switches.couplings.copy_(torch.from_numpy(COUPLINGS[np.triu_indices(3, 1)]))
    codes, weight = weights_by_hand(FIELDS, COUPLINGS)
    states = prior.states()
    np.testing.assert_allclose(states.weight, weight, rtol=1e-12)
    assert states.names[5] == "+-+"
    assert codes[5].tolist() == [1, -1, 1]
    np.testing.assert_allclose(prior.couplings_kt(), COUPLINGS)
    np.testing.assert_allclose(prior.fields_kt(), FIELDS)
    np.testing.assert_allclose(prior.switch_means().detach(), weight @ codes, rtol=1e-12)
    problem = prior.switches.problem()
    gap = problem.energy(torch.from_numpy(codes)) + torch.from_numpy(np.log(weight))
    assert float(gap.std()) < 1e-12


def test_moments_are_matched_and_pairwise_weights_come_back():
    codes, weight = weights_by_hand(FIELDS, COUPLINGS)
    features = pairwise_features(codes)
    theta = match_moments(weight, features)
    # The weights are smoothed by 1e-4.
    np.testing.assert_allclose(theta[:3], FIELDS, atol=1e-3)
    np.testing.assert_allclose(theta[3:], COUPLINGS[np.triu_indices(3, 1)], atol=1e-3)
    other = np.random.default_rng(0).dirichlet(np.full(8, 0.5))
    found = pairwise_weights(match_moments(other, features), features)
    np.testing.assert_allclose(found @ features, other @ features, atol=3e-4)


def test_bisection_gives_products_their_codes():
    """Means on a cuboid with product weights: every spin is an axis, and the heavier side is +."""
    rng = np.random.default_rng(0)
    codes, weight = weights_by_hand(np.array([0.3, -0.2, 0.5]), np.zeros((3, 3)))
    shuffle = rng.permutation(8)
    mean = codes @ np.diag([4.0, 2.0, 1.0])
    mixture = MixtureEstimate(weight[shuffle], mean[shuffle], np.tile(np.eye(3), (8, 1, 1)))
    order = order_by_bisection(mixture, table_score)
    np.testing.assert_allclose(np.abs(np.diff(mixture.mean[order].reshape(2, 4, 3).mean(1)[:, 0])), 8.0)
    theta = match_moments(mixture.weight[order], pairwise_features(codes))
    np.testing.assert_allclose(np.abs(theta[:3]), [0.3, 0.2, 0.5], atol=2e-3)
    np.testing.assert_allclose(theta[3:], 0.0, atol=2e-3)


@pytest.mark.parametrize("emission", ["table", "additive"])
def test_fit_finds_the_law_of_coupled_switches(emission):
    z, _ = coupled_switches(6000)
    prior = BoltzmannPrior(4, 3, emission=emission)
    report = prior.fit(z, steps=100, lr=3e-3)
    test, _ = coupled_switches(3000, 1)
    codes, weight = weights_by_hand(FIELDS, COUPLINGS)
    square = ((test[:, None] - codes @ DIRECTIONS) ** 2).sum(2) / 0.25**2
    normal = 4 * math.log(0.25 * math.sqrt(2 * math.pi))
    truth = np.log((weight * np.exp(-0.5 * square)).sum(1)) - normal
    gap = truth - prior.log_prob(test).detach().numpy()
    assert -0.01 < gap.mean() < 0.05
    assert report.warnings == ()


def test_couplings_come_back_with_a_start_along_the_directions():
    z, s = coupled_switches(8000)
    prior = BoltzmannPrior(4, 3, emission="additive")
    prior.start_from_directions(torch.from_numpy(DIRECTIONS).float())
    prior.fit(z, steps=100, lr=3e-3)
    # Standard errors of b and J from so many configurations are about 0.02.
    np.testing.assert_allclose(prior.fields_kt(), FIELDS, atol=0.07)
    np.testing.assert_allclose(prior.couplings_kt(), COUPLINGS, atol=0.07)
    directions = (prior.emission.directions * prior.scale).detach().numpy()
    np.testing.assert_allclose(directions, DIRECTIONS, atol=0.03)
    up = prior.switch_probabilities(torch.from_numpy(z).float()).detach().numpy()
    assert ((up > 0.5) == (s > 0)).mean() > 0.99


@pytest.mark.parametrize("emission", ["table", "additive"])
def test_biophysical_start(emission):
    prior = BoltzmannPrior(4, 3, emission=emission)
    centre = torch.tensor([0.1, 0.2, -0.3, 0.4])
    directions = 0.3 * torch.from_numpy(DIRECTIONS).float()
    prior.start_from_directions(directions, 0.5, centre)
    states = prior.states()
    np.testing.assert_allclose(
        states.mean, centre + configurations(3) @ (0.5 * directions.numpy()), atol=1e-6
    )
    np.testing.assert_allclose(states.weight, 1 / 8, rtol=1e-6)
    assert prior.couplings_kt().abs().max() == 0.0
    centred = states.mean - centre.numpy()
    total = (centred.T * states.weight) @ centred + np.einsum("k,kij->ij", states.weight, states.covariance)
    np.testing.assert_allclose(total, np.eye(4), atol=1e-5)
    assert prior.anchored


def test_directions_that_explain_too_much_leave_a_twentieth():
    left = unexplained(np.array([[3.0, 0.0]]), np.diag([4.0, 1.0]))
    np.testing.assert_allclose(left, np.diag([0.2, 1.0]), rtol=1e-6)


def test_a_wrong_number_of_directions_is_refused():
    with pytest.raises(InputError, match="2 directions of 4 dimensions do not fit 3 switches"):
        BoltzmannPrior(4, 3).start_from_directions(torch.zeros(2, 4))


def test_a_table_of_too_many_spins_is_refused():
    with pytest.raises(InputError, match="2\\^11"):
        BoltzmannPrior(2, 11, emission="table")


def test_turning_a_switch_over_changes_nothing_else():
    prior = moved(BoltzmannPrior(3, 3, emission="additive"), 0.4).double()
    z = torch.randn(20, 3, dtype=torch.float64)
    want = prior.log_prob(z)
    with torch.no_grad():
        prior.switches.fields[1] *= -1
        # Pairs (0, 1), (0, 2), (1, 2).
        prior.switches.couplings[[0, 2]] *= -1
        prior.emission.directions[1] *= -1
    torch.testing.assert_close(prior.log_prob(z), want)


def test_deconvolution_keeps_the_switches():
    z, _ = coupled_switches(4000)
    rng = np.random.default_rng(5)
    variance = 0.09 * rng.uniform(0.7, 1.4, z.shape)
    value = 0.6 * z + np.sqrt(variance) * rng.standard_normal(z.shape)
    shrink = 1 / (1 + variance)
    data = PosteriorSamples.of_gaussians(
        torch.tensor(value * shrink).float(), torch.tensor(np.sqrt(variance * shrink)).float(), samples=2
    )
    prior = BoltzmannPrior(4, 3, emission="additive")
    report = prior.fit(data, "deconvolved")
    assert report.steps == 0
    sd = np.sqrt(np.diagonal(prior.states().covariance[0])) / 0.6
    np.testing.assert_allclose(sd, 0.25, atol=0.05)
    found = np.sort(np.linalg.norm((prior.emission.directions * prior.scale).detach() / 0.6, axis=1))
    np.testing.assert_allclose(found, np.sort(np.linalg.norm(DIRECTIONS, axis=1)), atol=0.08)


@pytest.mark.parametrize("spins", [11, 14])
def test_up_to_fourteen_spins_all_is_exact(spins):
    prior = moved(BoltzmannPrior(3, spins), 0.2).double()
    u = torch.randn(12, 3, dtype=torch.float64)
    want = enumerated_energy(prior, u) + prior.switches.log_partition().value
    torch.testing.assert_close(-prior.log_prob(u), want, rtol=1e-9, atol=1e-9)
    assert prior.log_partition().method == "exact"
    assert prior.states() is None
    joint = prior._log_joint(u).softmax(-1).detach().numpy()
    up = joint @ (configurations(spins) > 0)
    np.testing.assert_allclose(prior.switch_probabilities(u).detach(), up, atol=1e-9)


@pytest.fixture
def many():
    """Fifteen switches, with independent samples of them in the negative phase."""
    return moved(BoltzmannPrior(3, 15, sampler=ExactSampler()), 0.15)


def standard_errors(draws, want):
    """Distance of the mean of draws (n, ...) from what is wanted, in standard errors, root mean square."""
    draws = torch.stack(draws)
    error = draws.std(0) / math.sqrt(len(draws)) + 1e-6
    return float(((draws.mean(0) - want) / error).square().mean().sqrt())


def test_beyond_the_sum_is_annealed(many):
    """Values and gradients in z against enumeration of 2^15 configurations."""
    u = many.sample(30, torch.Generator().manual_seed(1)).requires_grad_()
    want = enumerated_energy(many, u)
    slope = torch.autograd.grad(want.sum(), u)[0]
    values, slopes, errors = [], [], []
    for seed in range(20):
        many.annealing = Annealing(chains=32, temperatures=64, seed=100 * seed)
        energy = many.energy(u)
        values.append(energy.detach())
        slopes.append(torch.autograd.grad(energy.sum(), u)[0])
        errors.append(switch_posterior(u.detach(), many.switches, many.emission, many.annealing).error)
    spread, claimed = torch.stack(values).std(0).mean(), torch.stack(errors).mean()
    assert 0.6 < float(spread / claimed) < 1.6
    # A log of a mean is too low by half its variance.
    assert standard_errors(values, want.detach() + 0.5 * float(claimed) ** 2) < 1.6
    assert standard_errors(slopes, slope) < 1.6
    assert float((torch.stack(slopes).mean(0) - slope).norm() / slope.norm()) < 0.05
    assert not many.normalized
    assert many.log_partition().method == "enumeration"


def test_the_gradient_is_that_of_the_mean_energy_of_weighted_samples(many):
    """Exactly, not only on average: the value's gradient is replaced by this one."""
    u = torch.randn(5, 3, requires_grad=True)
    posterior = switch_posterior(u, many.switches, many.emission, many.annealing)
    energy = annealed_energy(u, many.switches, many.emission, posterior)
    torch.testing.assert_close(energy, -posterior.log_sum)
    joint = many.emission.log_prob_given(u[:, None], posterior.spins)
    want = torch.autograd.grad(-(posterior.weight * joint).sum(), u)[0]
    torch.testing.assert_close(torch.autograd.grad(energy.sum(), u)[0], want)


def test_samples_of_many_switches_have_the_moments_of_the_law(many):
    z = many.sample(20_000, torch.Generator().manual_seed(0)).double()
    codes = torch.as_tensor(configurations(15)).float()
    with torch.no_grad():
        weight = many.switches.log_unnormalised(codes).double().softmax(0)
        mean = (many.emission.origin + codes @ many.emission.directions).double()
        covariance = many.emission.covariance.matrices()[0].double()
    centre = weight @ mean
    total = ((mean - centre) * weight[:, None]).T @ (mean - centre) + covariance
    sd = total.diagonal().sqrt()
    assert bool(((z.mean(0) - centre).abs() < 5 * sd / math.sqrt(len(z))).all())
    torch.testing.assert_close(torch.cov(z.T), total, rtol=0.06, atol=0.04 * float(sd.max()) ** 2)


def test_many_switches_learn_by_their_chains(many):
    """Mean gradient of the surrogate over negative phases against that of the enumerated likelihood."""
    z = torch.randn(32, 3, generator=torch.Generator().manual_seed(3))
    codes = torch.as_tensor(configurations(15)).float()
    log_z = torch.logsumexp(many.switches.log_unnormalised(codes), 0)
    parameters = [many.switches.fields, many.switches.couplings, many.emission.directions]
    want = torch.autograd.grad(enumerated_energy(many, z).mean() + log_z, parameters)
    draws = []
    for seed in range(40):
        many.annealing = Annealing(chains=16, temperatures=48, seed=100 * seed)
        loss = many.loss(z, generator=torch.Generator().manual_seed(seed))
        draws.append(torch.autograd.grad(loss, parameters))
    for i, wanted in enumerate(want):
        assert standard_errors([d[i] for d in draws], wanted) < 1.5


def test_persistent_chains_follow_many_switches():
    """Block Gibbs carried on: after some steps the chains have the means of the law."""
    prior = moved(BoltzmannPrior(3, 15), 0.3)
    z = torch.randn(32, 3, generator=torch.Generator().manual_seed(3))
    for seed in range(30):
        prior.loss(z, generator=torch.Generator().manual_seed(seed))
    codes = torch.as_tensor(configurations(15)).float()
    with torch.no_grad():
        want = prior.switches.log_unnormalised(codes).softmax(0) @ codes
    assert float((prior.switch_means() - want).abs().max()) < 5 / math.sqrt(512)


def test_many_switches_start_along_the_principal_axes_and_fit():
    z, _ = coupled_switches(2000)
    prior, normal = (
        BoltzmannPrior(4, 16),
        torch.distributions.MultivariateNormal(torch.tensor(z.mean(0)), torch.tensor(np.cov(z.T))),
    )
    report = prior.fit(z, steps=3)
    assert report.log_prob > float(normal.log_prob(torch.tensor(z)).mean()) - 0.2
    assert report.warnings == ()
    drawn = prior.sample(20_000, torch.Generator().manual_seed(0))
    np.testing.assert_allclose(np.cov(drawn.T), np.cov(z.T), atol=0.25)
    up = prior.switch_probabilities(torch.from_numpy(z[:50]).float())
    assert up.shape == (50, 16)
    assert 0 <= float(up.min()) <= float(up.max()) <= 1


def test_an_unreliable_sum_is_named():
    prior = BoltzmannPrior(3, 15, annealing=Annealing(chains=8, temperatures=8))
    with torch.no_grad():
        prior.emission.directions.mul_(60.0)
    assert any("cannot be annealed reliably" in fault for fault in prior.faults())


def test_frozen_and_idle_switches_are_named():
    prior = BoltzmannPrior(3, 3, emission="additive")
    with torch.no_grad():
        prior.emission.directions.copy_(torch.eye(3))
        prior.switches.fields[1] = 8.0
        prior.emission.directions[2] = 0.0
    assert prior.faults() == ("switches that never change: 2", "switches that move nothing: 3")
