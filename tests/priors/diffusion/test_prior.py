import numpy as np
import pytest
import torch
from safetensors.torch import load, save

from cryoscape.errors import InputError
from cryoscape.models.posteriors import DiagonalGaussian
from cryoscape.priors.config import DiffusionConfig
from cryoscape.priors.diffusion.prior import DiffusionPrior
from cryoscape.priors.posterior_samples import PosteriorSamples
from tests.priors.diffusion.mixtures import draw, log_density
from tests.priors.ring import DIMENSION, make_ring


def small(**settings):
    torch.manual_seed(0)
    return DiffusionPrior(2, **({"layers": 2, "width": 32, "base": "mixture", "components": 3} | settings))


def bent(x):
    """Points of N(0, I) on a bow, whose density is N(x) since the map keeps area; (n, 2)."""
    return np.stack([x[:, 0], 0.3 * x[:, 1] + 0.7 * (x[:, 0] ** 2 - 1)], 1)


def bent_log_density(y):
    x = np.stack([y[:, 0], (y[:, 1] - 0.7 * (y[:, 0] ** 2 - 1)) / 0.3], 1)
    return -0.5 * (x**2).sum(1) - np.log(2 * np.pi) - np.log(0.3)


@pytest.mark.parametrize(("base", "most"), [("normal", 0.10), ("mixture", 0.06)])
def test_it_learns_a_bow(base, most):
    """Nats from the truth; a mixture of two alone is farther off than the network leaves it."""
    rng = np.random.default_rng(0)
    prior = small(base=base, components=2, width=64)
    report = prior.fit(bent(rng.normal(size=(6000, 2))), steps=500, lr=5e-3)
    y = bent(rng.normal(size=(400, 2)))
    gap = bent_log_density(y) - prior.log_prob(y).double().numpy()
    assert -0.02 < gap.mean() < most
    if base == "mixture":
        with torch.no_grad():
            alone = prior.base.log_prob(prior.whitened(torch.as_tensor(y).float())) - 2 * prior.scale.log()
        assert gap.mean() < 0.5 * (bent_log_density(y) - alone.numpy()).mean()
    assert report.warnings == ()


def test_loss_is_least_where_the_denoiser_is_right():
    """Of the true mixture as base: a network that says anything makes the loss worse, on the same noise."""
    prior = small()
    from tests.priors.diffusion.mixtures import COVARIANCE, MEAN, WEIGHT

    prior.base.set(WEIGHT, MEAN, COVARIANCE)
    z = torch.as_tensor(draw(20_000), dtype=torch.float32)
    right = float(prior.loss(z, generator=torch.Generator().manual_seed(0)).detach())
    prior.loss(z, generator=torch.Generator().manual_seed(0)).backward()
    # Expected slope is 0; that of a wrong base is not.
    slope = float(prior.network.exit.bias.grad.norm())
    assert slope < 0.02
    with torch.no_grad():
        prior.network.exit.bias.fill_(0.2)
    wrong = float(prior.loss(z, generator=torch.Generator().manual_seed(0)).detach())
    assert abs(wrong - right - 0.04) < 0.01


def test_weights_of_the_loss_are_normalised_and_select():
    prior = small(base="normal")
    z = torch.randn(6, 2, generator=torch.Generator().manual_seed(0))

    def value(weights):
        return float(prior.loss(z, weights, torch.Generator().manual_seed(1)).detach())

    weights = torch.tensor([1.0, 0.0, 2.0, 0.5, 0.0, 1.0])
    assert value(weights) == pytest.approx(value(7 * weights), rel=1e-6)
    assert value(torch.ones(6)) == pytest.approx(value(None), rel=1e-6)
    parts = [value(torch.eye(6)[i]) for i in range(6)]
    assert value(weights) == pytest.approx(float(np.dot(parts, weights) / 4.5), rel=1e-5)


def test_the_average_moves_only_while_it_learns():
    prior = small()
    z = torch.randn(20, 2)
    prior.eval().loss(z)
    with torch.no_grad():
        prior.train().loss(z)
    prior.requires_grad_(False)
    prior.loss(z)
    prior.kl_divergence(DiagonalGaussian(torch.zeros(3, 2), torch.zeros(3, 2)))
    assert int(prior.averaged.updates) == 0
    prior.requires_grad_(True)
    prior.loss(z)
    assert int(prior.averaged.updates) == 1


def trained(prior, steps, optimizer=None, first=0):
    optimizer = torch.optim.Adam(prior.parameters(), lr=1e-2) if optimizer is None else optimizer
    z = torch.as_tensor(draw(500), dtype=torch.float32)
    for step in range(first, first + steps):
        loss = prior.loss(z, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return optimizer


def test_it_goes_on_where_it_was_saved():
    whole, first, second = small(), small(), small()
    trained(whole, 20)
    optimizer = trained(first, 10)
    second.load_state_dict(load(save(first.state_dict())))
    again = torch.optim.Adam(second.parameters(), lr=1e-2)
    again.load_state_dict(optimizer.state_dict())
    trained(second, 10, again, first=10)
    for (name, a), b in zip(whole.state_dict().items(), second.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    assert not torch.equal(whole.network.exit.bias, whole.averaged.network.exit.bias)


@pytest.mark.parametrize("seed", range(3))
def test_fits_stay_finite_with_outliers(seed):
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(400, 2))
    z[:3] *= 1000
    prior = small(width=16)
    report = prior.fit(z, steps=40, lr=1e-2, seed=seed)
    assert np.isfinite(report.log_prob)
    assert bool(prior.sample(200, torch.Generator().manual_seed(seed)).isfinite().all())
    assert prior.faults() == ()


def test_same_seed_same_fit():
    fits = []
    for _ in range(2):
        prior = small(width=8)
        prior.fit(draw(300), steps=20)
        fits.append(prior.state_dict())
    assert all(torch.equal(fits[0][name], fits[1][name]) for name in fits[0])


def test_a_fit_of_nothing_is_the_mixture():
    prior = small()
    prior.fit(draw(4000), steps=0)
    z = draw(500, 9)
    gap = log_density(z) - prior.log_prob(z).double().numpy()
    assert abs(gap.mean()) < 0.03


def test_a_second_fit_begins_anew():
    prior = small(width=16)
    prior.fit(draw(400), steps=60, lr=1e-2)
    prior.fit(draw(400), steps=0)
    assert float(prior.averaged.network.exit.weight.abs().max()) == 0.0


def test_warm_start_whitens_by_itself():
    """In joint training nothing else does."""
    z = torch.as_tensor(3 * draw(2000) + np.array([5.0, -2.0]), dtype=torch.float32)
    for base in ("mixture", "normal"):
        prior = small(base=base)
        prior.warm_start(z)
        u = prior.whitened(z)
        assert float(u.mean(0).abs().max()) < 1e-4
        assert abs(float(u.var(0).mean()) - 1) < 1e-3
        drawn = prior.eval().sample(4000, torch.Generator().manual_seed(0))
        torch.testing.assert_close(drawn.mean(0), z.mean(0), rtol=0, atol=0.3)


def blurred_posteriors(n, error=0.5):
    """What images see of the mixture with a known error, as posteriors under N(0, I)."""
    truth = draw(n, 7)
    seen = truth + error * np.random.default_rng(8).normal(size=truth.shape)
    variance = error**2 / (1 + error**2)
    mean = torch.as_tensor(seen / (1 + error**2), dtype=torch.float32)
    return mean, torch.full_like(mean, variance**0.5)


def test_deconvolution_undoes_the_blur():
    """Much nearer to the truth than the aggregate is; the network corrects nothing."""
    samples = PosteriorSamples.of_gaussians(*blurred_posteriors(4000), samples=8)
    z = draw(600, 11)
    gaps = {}
    for objective in ("aggregate", "deconvolved"):
        prior = small()
        report = prior.fit(samples, objective, steps=60, lr=1e-3)
        gaps[objective] = (log_density(z) - prior.log_prob(z).double().numpy()).mean()
        assert report.steps == (60 if objective == "aggregate" else 0)
    assert gaps["deconvolved"] < 0.12
    assert gaps["aggregate"] > 0.4


@pytest.mark.parametrize("base", ["normal", "mixture"])
def test_what_cannot_be_deconvolved_is_refused(base):
    """One Gaussian never, and a mixture not from samples that are all that is known."""
    samples = PosteriorSamples.of_gaussians(*blurred_posteriors(200), samples=4)
    if base == "mixture":
        samples = PosteriorSamples(samples.z, samples.log_reference)
    with pytest.raises(InputError, match="cannot be deconvolved") as caught:
        small(base=base).fit(samples, "deconvolved", steps=5)
    assert "--objective aggregate" in caught.value.remedy


def test_faults_of_the_average_are_named():
    prior = small()
    prior.averaged.network.exit.bias.fill_(float("nan"))
    assert "averaged" in prior.faults()[0]


def test_settings_reach_the_prior():
    prior = DiffusionConfig(layers=16, width=128, sampling="stochastic", sampling_steps=1000).build(8)
    assert len(prior.network.hidden) == 16
    assert prior.sampling_steps == 1000
    assert DiffusionConfig(base="normal").build(3).base.mean.shape == (1, 3)


def test_ring():
    """The law of `ring.py`, after half of the default steps."""
    ring = make_ring()
    torch.manual_seed(0)
    prior = DiffusionPrior(DIMENSION)
    prior.fit(ring.draw(20_000, 1)[0], steps=1000, validation=0.01)
    test, _ = ring.draw(250, 2)
    gap = ring.log_prob(test) - prior.log_prob(test).double().numpy()
    assert gap.mean() <= 0.15
    drawn = prior.sample(10_000, torch.Generator().manual_seed(0)).double().numpy()
    assert 0.025 <= float(ring.in_minor_state(drawn).mean()) <= 0.035
