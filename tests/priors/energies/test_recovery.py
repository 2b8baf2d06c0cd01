import math

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal

from cryoscape.priors.config import RecoveryConfig
from cryoscape.priors.energies.blurred import BlurredMixture
from cryoscape.priors.energies.ladder import NoiseLadder
from cryoscape.priors.energies.recovery import RecoveryPrior
from cryoscape.priors.folder import StoredPrior, load_prior, save_prior
from tests.priors.energies.toys import distance_from_banana, draw_banana, log_integral


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_the_ladder_keeps_unit_variance_and_forgets():
    ladder = NoiseLadder(6)
    u = torch.randn(50_000, 1, generator=seeded())
    for t in range(6):
        below, above = ladder.climb(u, torch.full((len(u),), t), seeded(t + 1))
        assert float(above.var()) == pytest.approx(1.0, abs=0.03)
        assert float((above - below).std()) == pytest.approx(float(ladder.sd[t]), rel=0.02)
        a = float(ladder.signal[t] * ladder.shrink[t])
        slope = float((u * above).mean() / u.square().mean())
        assert slope == pytest.approx(a, abs=0.02)
    noise = math.sqrt(1 - a**2) / a
    assert noise == pytest.approx(10.0, rel=1e-3)
    assert float(ladder.sd[0] / ladder.shrink[0]) == pytest.approx(0.1, rel=1e-3)


def blurred(levels=4):
    log_weight = torch.tensor([0.7, 0.3]).double().log()
    mean = torch.tensor([[1.0, 0.0], [-1.0, 1.5]]).double()
    covariance = torch.tensor([[[0.3, 0.1], [0.1, 0.2]], [[0.1, -0.05], [-0.05, 0.4]]]).double()
    ladder = NoiseLadder(levels).double()
    return BlurredMixture(log_weight, mean, covariance, ladder), ladder, (log_weight, mean, covariance)


@pytest.mark.parametrize("t", range(4))
def test_the_base_of_a_level_is_the_blurred_mixture(t):
    base, ladder, (log_weight, mean, covariance) = blurred()
    y = torch.randn(40, 2, generator=seeded(), dtype=torch.float64)
    a, r = float(ladder.signal[t]), float(ladder.shrink[t])
    want = sum(
        w * multivariate_normal(r * a * m, r**2 * (a**2 * c + (1 - a**2) * np.eye(2))).pdf(y.numpy())
        for w, m, c in zip(log_weight.exp().tolist(), mean.numpy(), covariance.numpy(), strict=True)
    )
    np.testing.assert_allclose(base.log_prob(y, t), np.log(want), atol=1e-6)
    levels = torch.full((40,), t)
    np.testing.assert_allclose(base.log_prob(y, levels), np.log(want), atol=1e-6)


@pytest.mark.parametrize("t", [0, 2])
def test_the_way_back_under_the_base_is_bayes_rule(t):
    """Moments of draws against a sum over a grid of base times blur."""
    base, ladder, _ = blurred()
    above = torch.tensor([0.2, 0.6], dtype=torch.float64)
    axis = torch.linspace(-5, 5, 801, dtype=torch.float64)
    y = torch.cartesian_prod(axis, axis)
    sd = float(ladder.sd[t])
    p = (base.log_prob(y, t) - 0.5 * ((y - above) / sd).square().sum(-1)).softmax(0)
    n = 40_000
    drawn = base.draw_back(above.expand(n, 2), torch.full((n,), t), seeded())
    mean = p @ y
    covariance = (y - mean).T @ ((y - mean) * p[:, None])
    np.testing.assert_allclose(drawn.mean(0), mean, atol=5 * sd / math.sqrt(n))
    np.testing.assert_allclose(torch.cov(drawn.T), covariance, atol=0.03 * float(covariance.max()))


def small(**settings):
    torch.manual_seed(0)
    settings = {"hidden": (32, 32), "components": 2, "proposals": 20_000} | settings
    return RecoveryPrior(2, **settings)


@pytest.fixture(scope="module")
def learned():
    prior = small(components=1, levels=4, steps=5)
    points = draw_banana(6000)
    report = prior.fit(points, steps=800, lr=1e-2)
    return prior, report, points


def test_the_density_of_the_lowest_level_is_learned(learned):
    prior, report, points = learned
    start = small(components=1, levels=4)
    start.fit(points, steps=0)
    before, after = (distance_from_banana(p) for p in (start, prior))
    prior.float()
    assert before > 0.15
    assert after < 0.5 * before
    assert report.warnings == ()


def test_the_ladder_leads_to_the_data(learned):
    prior, _, points = learned
    drawn = prior.sample(8000, seeded()).double().numpy()
    np.testing.assert_allclose(drawn.mean(0), points.mean(0), atol=0.08)
    np.testing.assert_allclose(np.cov(drawn.T), np.cov(points.T), atol=0.15)
    # The bend: of the ridge u_1 = u_0^2 - 1, which no Gaussian has.
    bend = np.mean(drawn[:, 1] * drawn[:, 0] ** 2) - drawn[:, 1].mean() * np.mean(drawn[:, 0] ** 2)
    true = np.mean(points[:, 1] * points[:, 0] ** 2) - points[:, 1].mean() * np.mean(points[:, 0] ** 2)
    assert bend == pytest.approx(true, rel=0.2)


def test_log_z_is_the_integral(learned):
    prior = learned[0]
    found = prior.log_partition()
    want = log_integral(lambda z: -prior.energy(z.float()).double(), half=9.0)
    assert abs(found.value - want) < 4 * found.std_err + 1e-4
    assert 0 < found.std_err < 0.02


def test_without_a_network_the_ladder_leads_to_the_mixture():
    """The base is consistent over the levels: moments of what comes down are those of the mixture."""
    prior = small()
    prior.fit(draw_banana(3000), steps=0)
    n = 20_000
    down, want = (f(n, seeded(s)) for s, f in enumerate((prior.descend, prior.proposal.sample)))
    np.testing.assert_allclose(down.mean(0), want.mean(0), atol=0.04)
    np.testing.assert_allclose(torch.cov(down.T), torch.cov(want.T), atol=0.05)
    third = [float((u[:, 0].square() * u[:, 1]).mean()) for u in (down, want)]
    assert third[0] == pytest.approx(third[1], abs=0.08)


def test_a_ladder_that_does_not_lead_to_the_density_is_named():
    prior = small()
    prior.fit(draw_banana(3000), steps=0)
    assert prior.faults() == ()
    # An upper level that pushes everything aside; the density of the lowest one does not know of it.
    first, last = prior.tilt.layers[0], prior.tilt.layers[-1]
    with torch.no_grad():
        first.weight.zero_()
        first.weight[0, 0], first.weight[0, 2 + 3] = 1.0, 10.0
        first.bias.fill_(-10.0)
        prior.tilt.layers[2].weight.zero_()
        prior.tilt.layers[2].weight[0, 0] = 1.0
        last.weight[0, 0] = 20.0
    assert "do not follow its density" in " ".join(prior.faults())


def test_faults_of_chains_and_of_the_mixture_are_named():
    prior = small()
    prior.acceptance[2] = 0.01
    assert "a level of the prior hardly move" in prior.faults()[0]
    prior = small()
    with torch.no_grad():
        prior.tilt.layers[-1].weight.fill_(3e38)
    assert "not finite" in prior.faults()[0]
    prior = small()
    prior.proposal.gaussians.set(np.full((2, 2), 4.0), 0.05 * np.tile(np.eye(2), (2, 1, 1)))
    prior.base = "normal"
    assert "hardly overlaps" in prior.faults()[0]


@pytest.mark.parametrize("base", ["mixture", "normal"])
def test_settings_fit_and_come_back_from_a_folder(base, tmp_path):
    settings = RecoveryConfig(base=base, levels=3, hidden=(8,), components=2, proposals=2000, chain_steps=2)
    z = draw_banana(400)
    priors = []
    for _ in range(2):
        torch.manual_seed(0)
        prior = settings.build(2)
        prior.fit(z, steps=5)
        priors.append(prior)
    for a, b in zip(priors[0].parameters(), priors[1].parameters(), strict=True):
        assert torch.equal(a, b)
    assert not any(p.requires_grad for p in prior.requires_grad_(True).proposal.parameters())
    save_prior(tmp_path / "prior", StoredPrior(priors[0], settings))
    back = load_prior(tmp_path / "prior").prior
    assert torch.equal(back.log_prob(z), priors[0].log_prob(z))
    assert torch.equal(*(p.sample(20, seeded(1)) for p in (back, priors[0])))
