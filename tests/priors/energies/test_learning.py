"""The ways to learn a tilt, what they promise, and what is said of them where they fail."""

import copy

import numpy as np
import pytest
import torch

from cryoscape.priors.config import EnergyConfig
from cryoscape.priors.energies import bases
from cryoscape.priors.energies.drawing import ShortRun
from cryoscape.priors.energies.negative import (
    LearnedSampler,
    NoiseContrast,
    PersistentLangevin,
    ShortRunChains,
)
from cryoscape.priors.energies.prior import EnergyPrior
from cryoscape.priors.folder import StoredPrior, load_prior, save_prior
from cryoscape.priors.mixture import MixturePrior
from cryoscape.priors.normal import NormalPrior
from tests.priors.energies.toys import (
    Banana,
    banana,
    banana_log_prob,
    distance_from_banana,
    draw_banana,
    log_integral,
)

SMALL = {"hidden": (32, 32), "proposals": 20_000}


@pytest.fixture(scope="module")
def points():
    return draw_banana(6000)


def fitted(negative, points, steps, lr=5e-3, **settings):
    torch.manual_seed(0)
    prior = EnergyPrior(2, base=NormalPrior(2), negative=negative, **SMALL, **settings)
    report = prior.fit(points, steps=steps, lr=lr)
    return prior, report


def test_noise_contrast_recovers_a_known_tilt(points):
    prior, report = fitted(NoiseContrast(), points, 400)
    assert distance_from_banana(copy.deepcopy(prior)) < 0.03
    # It normalises itself.
    assert abs(prior.log_partition().value - np.log(2 * np.pi) - 2 * np.log(float(prior.scale))) < 0.1
    assert report.warnings == ()


def test_the_slope_of_the_contrast_is_0_at_the_true_tilt():
    """At f = log p / p_b the expected logistic loss is least, along whatever it is moved."""
    prior = banana(negative=NoiseContrast(20_000))
    constant = log_integral(lambda u: -prior.energy(u)) - np.log(2 * np.pi)

    class Moved(Banana):
        def __init__(self):
            super().__init__()
            self.by = torch.nn.Parameter(torch.zeros(3))

        def forward(self, u):
            moves = torch.stack([torch.ones_like(u[..., 0]), u[..., 0], u[..., 1].square()], -1)
            return super().forward(u) - constant + moves @ self.by

    prior.law.tilt = Moved()
    z = torch.as_tensor(draw_banana(20_000, 1)).float()
    prior.loss(z, generator=torch.Generator().manual_seed(0)).backward()
    np.testing.assert_allclose(prior.law.tilt.by.grad, 0.0, atol=0.02)
    assert float(torch.autograd.grad(-prior.law.tilt(z).mean(), prior.law.tilt.by)[0].abs().max()) > 0.5


def test_persistent_chains_learn_the_likelihood(points):
    negative = PersistentLangevin(2, buffer=1000, moved=200, steps=5)
    prior, report = fitted(negative, points, 250)
    assert distance_from_banana(copy.deepcopy(prior)) < 0.06
    assert 0.4 < float(negative.acceptance) < 0.75
    assert report.warnings == ()
    # The chains are samples of what was learned.
    np.testing.assert_allclose(negative.chains.mean(0), 0.0, atol=0.15)


def test_a_sampler_network_learns_and_bounds_log_z(points):
    negative = LearnedSampler(2, hidden=(16, 16), bins=6, drawn=512)
    prior, _ = fitted(negative, points, 400)
    assert distance_from_banana(copy.deepcopy(prior)) < 0.1
    with torch.no_grad():
        bounds = [float(negative.bound(prior.law, torch.Generator().manual_seed(s))) for s in range(20)]
    log_z = float(np.log(np.mean(np.exp(prior.law.tilts(torch.randn(200_000, 2)).numpy()))))
    assert log_z - 0.15 < np.mean(bounds) < log_z + 0.01


def test_the_bound_is_that_of_a_generator_with_known_entropy():
    """A generator that changes nothing is the base: E_b[f], by the grid."""
    negative = LearnedSampler(2, drawn=200_000)
    law = banana().law
    want = float(Banana()(torch.randn(400_000, 2, generator=torch.Generator().manual_seed(9))).mean())
    found = float(negative.bound(law, torch.Generator().manual_seed(0)).detach())
    assert found == pytest.approx(want, abs=0.15)


def test_in_alternation_each_is_held_while_the_other_one_learns():
    prior = EnergyPrior(2, negative=LearnedSampler(2), **SMALL)
    with torch.no_grad():
        for p in prior.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(1)))
    negative, law = prior.negative, prior.law
    negative.bound(law).backward()
    assert all(p.grad is None for p in law.parameters())
    assert any(float(p.grad.abs().max()) > 0 for p in negative.parameters())
    negative.zero_grad(set_to_none=True)
    seen, drawn = law.tilt(torch.randn(9, 2)), law.tilt(negative.points(law, 9))
    negative.contrast(seen, drawn, None).backward()
    assert all(p.grad is None for p in negative.parameters())


def test_short_chains_have_good_samples_and_a_wrong_density_which_is_named(points):
    """Pang's step, but three of them: chains that end at the data need not, and do not, follow exp f."""
    short = ShortRun(steps=3, step=0.4)
    prior, report = fitted(ShortRunChains(short, 256), points, 400, lr=2e-3)
    drawn = prior.sample_by(short, 10_000, torch.Generator().manual_seed(0)).double().numpy()
    np.testing.assert_allclose(drawn.mean(0), points.mean(0), atol=0.15)
    np.testing.assert_allclose(np.cov(drawn.T), np.cov(points.T), atol=0.3)
    # Samples are likely under the truth, better than those of a Gaussian of the right moments.
    quality = float(banana_log_prob(drawn).mean())
    gauss = np.random.default_rng(0).multivariate_normal(points.mean(0), np.cov(points.T), 10_000)
    assert quality > float(banana_log_prob(gauss).mean()) + 1.0
    assert distance_from_banana(copy.deepcopy(prior)) > 0.3
    assert any("short chains of the prior are not samples of its density" in w for w in report.warnings)


def test_short_chains_of_a_smooth_law_are_not_blamed():
    prior = EnergyPrior(2, base=NormalPrior(2), negative=ShortRunChains(ShortRun()), **SMALL)
    assert prior.faults() == ()


def test_chains_that_run_away_are_named():
    narrow = MixturePrior(2, 2)
    narrow.gaussians.set(np.zeros((2, 2)), 1e-3 * np.tile(np.eye(2), (2, 1, 1)))
    prior = EnergyPrior(2, base=narrow, negative=ShortRunChains(ShortRun()), **SMALL)
    assert "run away" in " ".join(prior.faults())


class Slope(torch.nn.Module):
    def __init__(self, by):
        super().__init__()
        self.by = by

    def forward(self, u):
        return self.by * u[..., 0]


def test_a_base_that_does_not_overlap_is_named():
    prior = EnergyPrior(2, base=NormalPrior(2), **SMALL)
    prior.law.tilt = Slope(3.0)
    assert "hardly overlaps" in prior.faults()[0]
    prior.law.tilt = Slope(0.5)
    prior._known = None
    assert prior.faults() == ()
    # Then short chains are judged by going on from them: they do not reach the far end.
    prior = EnergyPrior(2, base=NormalPrior(2), sampler=ShortRun(steps=3, step=0.1), **SMALL)
    prior.law.tilt = Slope(4.0)
    assert any("below that of the density" in fault for fault in prior.faults())


def test_an_energy_that_is_not_finite_is_named():
    prior = EnergyPrior(2, base=NormalPrior(2), **SMALL)
    prior.law.tilt = Slope(1e39)
    assert "not finite" in prior.faults()[0]


def test_chains_that_do_not_move_are_named():
    prior = EnergyPrior(2, negative=PersistentLangevin(2, buffer=100), **SMALL)
    assert prior.faults() == ()
    prior.negative.acceptance.fill_(0.02)
    assert "2 % of their steps" in prior.faults()[0]


@pytest.mark.parametrize("learning", ["nce", "short-run", "persistent", "sampler"])
def test_settings_build_each_way_to_learn(learning, tmp_path):
    """Fits are the same for a seed, leave the base alone, and come back from a folder as they were."""
    settings = EnergyConfig(
        learning=learning, components=2, hidden=(8,), proposals=2000, chain_steps=3, buffer=200
    )
    z = draw_banana(400)
    priors = []
    for _ in range(2):
        torch.manual_seed(0)
        prior = settings.build(2)
        prior.fit(z, steps=0)
        base = copy.deepcopy(prior.law.base.state_dict())
        torch.manual_seed(0)
        prior = settings.build(2)
        prior.fit(z, steps=5, seed=0)
        for name, value in prior.law.base.state_dict().items():
            assert torch.equal(value, base[name])
        assert not any(p.requires_grad for p in prior.requires_grad_(True).law.base.parameters())
        assert any(float(p.detach().abs().max()) > 0 for p in prior.law.tilt.layers[-1].parameters())
        priors.append(prior)
    for a, b in zip(priors[0].parameters(), priors[1].parameters(), strict=True):
        assert torch.equal(a, b)
    save_prior(tmp_path / "prior", StoredPrior(priors[0], settings))
    back = load_prior(tmp_path / "prior").prior
    assert torch.equal(back.log_prob(z), priors[0].log_prob(z))
    draws = [p.sample(20, torch.Generator().manual_seed(1)) for p in (back, priors[0])]
    assert torch.equal(*draws)


def test_short_chains_come_with_their_own_settings():
    settings = EnergyConfig(learning="short-run")
    assert (settings.base, settings.lr, settings.chain_steps, settings.step_size) == ("normal", 1e-4, 60, 0.4)
    assert EnergyConfig(learning="short-run", base="mixture").base == "mixture"
    assert (EnergyConfig().base, EnergyConfig().proposals) == ("mixture", 200_000)
    assert EnergyConfig(base="flow").proposals == 50_000


def test_a_flow_as_base_is_fitted(monkeypatch):
    monkeypatch.setattr(bases, "STEPS", 150)
    settings = EnergyConfig(base="flow", hidden=(8,), proposals=2000)
    z = torch.as_tensor(draw_banana(2000)).float()
    prior = settings.build(2)
    prior.warm_start(3 * z + 1, torch.Generator().manual_seed(0))
    gap = banana_log_prob(z) - 2 * np.log(3) - prior.log_prob(3 * z + 1).detach()
    assert float(gap.mean()) < 0.15
