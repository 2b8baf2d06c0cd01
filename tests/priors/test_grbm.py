import math

import numpy as np
import pytest
import torch

from cryoscape.priors.grbm import GaussianRbmPrior
from cryoscape.priors.samplers.exact import ExactSampler
from cryoscape.priors.switches.start import configurations


def moved(prior, by=0.4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in prior.parameters():
            p.add_(by * torch.randn(p.shape, generator=generator))
    return prior


def joint_energy(prior, z, h):
    """E(z, h) by the definition, for one z and one h."""
    m, f, w, sd = (t.detach().numpy() for t in (prior.centre, prior.field, prior.weight, prior.sd))
    b, c = m - w.sum(1) / 2, f - (m / sd**2) @ w
    return 0.5 * np.sum(((z - b) / sd) ** 2) - c @ h - (z / sd**2) @ w @ h


def test_free_energy_sums_over_the_hidden_units():
    prior = moved(GaussianRbmPrior(3, 4)).double()
    for z in np.random.default_rng(0).standard_normal((5, 3)):
        each = [-joint_energy(prior, z, (1 + s) / 2) for s in configurations(4)]
        assert float(prior.free_energy(torch.from_numpy(z))) == pytest.approx(-np.logaddexp.reduce(each))


def test_log_z_by_enumeration_is_that_by_quadrature():
    prior = moved(GaussianRbmPrior(1, 5)).double().requires_grad_(False)
    grid = torch.linspace(-30, 30, 60_001, dtype=torch.float64)[:, None]
    want = torch.logsumexp(-prior.free_energy(grid), 0) + math.log(1e-3)
    found = prior.unit_energy(grid[:1]) - prior.free_energy(grid[:1])
    assert float(found) == pytest.approx(float(want), abs=1e-9)


def test_log_z_of_many_units_is_that_of_few():
    """17 hidden units, one of which acts on nothing: log 2 more than without it."""
    many, few = GaussianRbmPrior(3, 17).double(), moved(GaussianRbmPrior(3, 16), 0.2).double()
    with torch.no_grad():
        for name in ("centre", "log_sd"):
            getattr(many, name).copy_(getattr(few, name))
        many.weight.zero_()
        many.weight[:, :16], many.field[:16] = few.weight, few.field
    want = few.unit_energy(torch.zeros(3)) - few.free_energy(torch.zeros(3)) + math.log(2.0)
    assert many.unit_log_partition().value == pytest.approx(float(want.detach()), abs=1e-9)


def test_states_are_on_a_lattice():
    prior = moved(GaussianRbmPrior(2, 3)).double()
    states = prior.states()
    h = (1 + configurations(3)) / 2
    np.testing.assert_allclose(states.mean, (prior.lowest + torch.from_numpy(h) @ prior.weight.T).detach())
    places = [np.array([x, y]) for x in np.arange(-9, 9, 0.5) for y in np.arange(-9, 9, 0.5)]
    weight = [np.logaddexp.reduce([-joint_energy(prior, z, row) for z in places]) for row in h]
    np.testing.assert_allclose(states.weight, np.exp(weight - np.logaddexp.reduce(weight)), atol=1e-6)


@pytest.mark.parametrize("hidden", [4, 9])
def test_a_warm_start_has_the_moments_of_the_points(hidden):
    rng = np.random.default_rng(0)
    root = np.eye(4) + 0.15 * rng.standard_normal((4, 4))
    z = torch.from_numpy(3.0 + rng.standard_normal((4000, 4)) @ root.T).float()
    prior = GaussianRbmPrior(4, hidden)
    prior.warm_start(z)
    found = prior.sample(60_000, torch.Generator().manual_seed(0))
    np.testing.assert_allclose(found.mean(0), z.mean(0), atol=0.03)
    np.testing.assert_allclose(torch.cov(found.T), torch.cov(z.T), atol=0.06)


def two_states(n, minor, sd, seed=1):
    """Points of two states at (1, 0) and (-1, 1), the minor one, and their log density."""
    rng = np.random.default_rng(seed)
    z = np.where(rng.random((n, 1)) < minor, [-1.0, 1.0], [1.0, 0.0]) + sd * rng.standard_normal((n, 2))
    square = [((z - centre) ** 2).sum(1) / sd**2 for centre in ([1.0, 0.0], [-1.0, 1.0])]
    joint = [math.log(w) - 0.5 * s for w, s in zip((1 - minor, minor), square, strict=True)]
    return z, np.logaddexp(*joint) - math.log(2 * math.pi * sd**2)


def test_fit_separates_two_states():
    z, truth = two_states(4000, 0.2, 0.2)
    prior = GaussianRbmPrior(2, 1)
    prior.fit(z, steps=200, lr=3e-2)
    assert (truth - prior.log_prob(z).detach().numpy()).mean() < 0.02
    left = prior.sample(20_000, torch.Generator().manual_seed(0))[:, 0] < 0
    assert float(left.float().mean()) == pytest.approx((z[:, 0] < 0).mean(), abs=0.015)


def test_many_units_learn_by_persistent_chains():
    """Beyond enumeration in the loss, the likelihood (exact by enumeration of 17 here) still grows."""
    z, truth = two_states(3000, 0.5, 0.3)
    prior = GaussianRbmPrior(2, 17)
    before = prior.fit(z, steps=0).log_prob
    after = prior.fit(z, steps=150, lr=2e-2).log_prob
    assert after > before + 0.1
    assert after > truth.mean() - 0.15
    assert prior.faults() == ()


def test_samples_of_many_units_are_those_of_the_exact_law():
    prior = moved(GaussianRbmPrior(2, 17, sampler=ExactSampler()), 0.2)
    z = prior.sample(30_000, torch.Generator().manual_seed(0)).double()
    h = torch.as_tensor((1 + configurations(17)) / 2).float()
    with torch.no_grad():
        weight = prior._log_weights(h).double().softmax(0)
        mean = (prior.lowest + h @ prior.weight.T).double()
    want = weight @ mean
    assert bool(((z.mean(0) - want).abs() < 5 * z.std(0) / math.sqrt(len(z))).all())


def test_idle_units_are_named():
    prior = moved(GaussianRbmPrior(2, 3))
    with torch.no_grad():
        prior.weight[:, 1] = 0.0
    assert prior.faults() == ("1 of the 3 hidden units act on nothing",)
