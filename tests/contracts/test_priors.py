"""What every prior promises. A new one adds a line to `prior_builders`."""

import math

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from scipy.interpolate import RectBivariateSpline
from scipy.stats import multivariate_normal

from cryoscape.models.posteriors import DiagonalGaussian
from cryoscape.priors.fitting import CostlyDensity
from cryoscape.priors.flow import FlowPrior
from cryoscape.priors.normal import NormalPrior
from cryoscape.priors.transport import TransportPrior
from tests.contracts.prior_builders import NEW, PRIORS, Z


def exactly(prior):
    """In double precision, and with the smallest error of a differential equation."""
    for part in prior.modules():
        if isinstance(part, CostlyDensity):
            part.tolerance = 1e-10
    return prior.double()


class SampledOnly:
    """A posterior whose formula the prior cannot know."""

    def __init__(self, q):
        self._q = q
        self.mean, self.log_prob, self.rsample = q.mean, q.log_prob, q.rsample


@pytest.fixture(params=PRIORS)
def build(request):
    return PRIORS[request.param]


@pytest.fixture
def prior(build):
    return build()


def posterior(n=4):
    g = torch.Generator().manual_seed(7)
    return DiagonalGaussian(torch.randn(n, Z, generator=g), torch.randn(n, Z, generator=g) - 1.0)


def square_grid(half=9.0, n=361):
    """Points of a square (n * n, 2) in double precision and the area of a cell."""
    axis = torch.linspace(-half, half, n, dtype=torch.float64)
    return torch.cartesian_prod(axis, axis), float(axis[1] - axis[0]) ** 2


def test_shapes_and_precision(prior):
    z = torch.randn(3, 5, Z)
    assert prior.event_shape == (Z,)
    for value in (prior.energy(z), prior.log_prob(z)):
        assert value.shape == (3, 5)
        assert value.dtype == torch.float32
    assert prior.score(z).shape == z.shape
    assert prior.loss(z[0]).shape == ()
    assert prior.sample(6).shape == (6, Z)
    assert prior.sample(6).dtype == torch.float32
    assert prior.kl_divergence(posterior()).shape == (4,)
    prior.double()
    assert prior.log_prob(z.double()).dtype == torch.float64
    assert prior.sample(6).dtype == torch.float64
    assert prior.loss(z[0].double()).dtype == torch.float64


def integral(prior):
    """Log of the integral of exp(-energy), and the error of the sum over the grid that it is taken from.

    The density of splines has kinks, where the error falls with the square of the step only; that of a
    differential equation has the error of its solver.
    """
    kinks = isinstance(prior, FlowPrior)
    solved = isinstance(prior, CostlyDensity)
    sizes = (6.5, 721) if kinks else (7.5, 61) if solved else (9.0, 361)
    grid, cell = square_grid(*sizes)
    with torch.no_grad():
        total = float(torch.logsumexp(-prior.energy(grid), 0)) + math.log(cell)
    return total, 5e-6 if kinks or solved else 1e-6


def test_the_density_integrates_to_one(prior):
    log_integral, error = integral(prior.double())
    found = prior.log_partition()
    assert abs(math.exp(log_integral - found.value) - 1.0) < error + 4 * found.std_err


def test_log_partition_is_the_integral_of_the_energy(prior):
    found = prior.double().log_partition()
    want, error = integral(prior)
    assert abs(found.value - want) <= error + 4 * found.std_err
    assert found.method
    if found.method == "exact":
        assert found.std_err == 0.0
        assert found.ess == math.inf


@pytest.mark.parametrize("hidden", [False, True], ids=["known posterior", "sampled posterior"])
def test_monte_carlo_kl_agrees(prior, hidden):
    """Against an independent average of log q - log p over 200,000 points by numpy."""
    many, few = (500, 500) if isinstance(prior, CostlyDensity) else (200_000, 20_000)
    q = posterior()
    rng = np.random.default_rng(0)
    mean, log_var = q.mean.numpy().astype(float), q.log_var.numpy().astype(float)
    noise = rng.normal(size=(many, *mean.shape))
    z = mean + np.exp(log_var / 2) * noise
    log_q = -0.5 * (noise**2 + log_var + np.log(2 * np.pi)).sum(-1)
    with torch.no_grad():
        log_p = prior.log_prob(torch.from_numpy(z).float()).numpy()
    want, error = (log_q - log_p).mean(0), (log_q - log_p).std(0) / np.sqrt(len(noise))
    # Of a prior that is not normalised the KL is known but for the constant log Z.
    want -= 0.0 if prior.normalized else prior.log_partition().value
    if hidden:
        samples = q.rsample(many, torch.Generator().manual_seed(1))
        got = prior.kl_divergence(SampledOnly(q), samples).detach().numpy()
        assert (np.abs(got - want) < 6 * error + 1e-4).all()
    else:
        samples = q.rsample(few, torch.Generator().manual_seed(1))
        got = prior.kl_divergence(q, samples).detach().numpy()
        assert (np.abs(got - want) < 15 * error + 1e-4).all()


def log_density_on_grid(prior):
    """Of the points of `square_grid()`; where it takes long, by splines between fewer of them."""
    coarse = isinstance(prior, CostlyDensity)
    grid, _ = square_grid(n=91 if coarse else 361)
    with torch.no_grad():
        log_p = prior.log_prob(grid).numpy()
    if not coarse:
        return log_p
    few, many = np.linspace(-9, 9, 91), np.linspace(-9, 9, 361)
    return RectBivariateSpline(few, few, log_p.reshape(91, 91))(many, many).ravel()


def test_samples_follow_the_density(prior):
    """Mean, covariance and cell counts of samples against integrals of the density."""
    n = 40_000
    z = prior.sample(n, torch.Generator().manual_seed(0)).double().numpy()
    grid, cell = square_grid()
    p = np.exp(log_density_on_grid(prior.double())) * cell
    grid = grid.numpy()
    mean = p @ grid
    covariance = (grid - mean).T @ ((grid - mean) * p[:, None])
    sd = np.sqrt(np.diag(covariance))
    assert (np.abs(z.mean(0) - mean) < 4.5 * sd / np.sqrt(n)).all()
    np.testing.assert_allclose(np.cov(z.T), covariance, atol=0.05 * sd.max() ** 2)
    for direction in ([1, 0], [0, 1], [1, 1], [1, -1]):
        cut = mean @ direction + 0.7 * sd.mean()
        share = float(p[grid @ direction > cut].sum())
        seen = float((z @ direction > cut).mean())
        assert abs(seen - share) < 5 * math.sqrt(share * (1 - share) / n) + 2e-3 + 0.02 * share


def test_a_seed_gives_the_same_samples(prior):
    a, b, c = (prior.sample(5, torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    assert not a.requires_grad


def test_score_is_the_slope_of_the_log_density(prior):
    exactly(prior)
    z = 1.5 * torch.randn(20, Z, dtype=torch.float64)
    step = 1e-5 * torch.eye(Z, dtype=torch.float64)
    want = torch.stack([(prior.log_prob(z + e) - prior.log_prob(z - e)) / 2e-5 for e in step], dim=-1)
    torch.testing.assert_close(prior.score(z), want.detach(), rtol=1e-5, atol=1e-7)
    with torch.no_grad():
        torch.testing.assert_close(prior.score(z), want, rtol=1e-5, atol=1e-7)


def slope_of_the_likelihood(prior, z, parameter, i, step=1e-5):
    """Finite difference of the mean of -log p(z) in one number."""
    ends = []
    with torch.no_grad():
        flat = parameter.view(-1)
        old = float(flat[i])
        for value in (old + step, old - step):
            flat[i] = value
            ends.append(-float(prior.log_prob(z).mean()))
        flat[i] = old
    return (ends[0] - ends[1]) / (2 * step)


def test_loss_is_the_exact_negative_log_likelihood(prior):
    """Value, and its gradient in every parameter by finite differences; none reaches z."""
    prior.double()
    z = torch.randn(50, Z, dtype=torch.float64, requires_grad=True)
    if not prior.estimates_likelihood_gradient:
        pytest.skip("its loss is not the likelihood")
    if not prior.normalized:
        surrogate_follows_the_likelihood(prior, z)
        return
    loss = prior.loss(z)
    assert abs(float(loss.detach()) + float(prior.log_prob(z).mean().detach())) < 1e-9
    parameters = [p for p in prior.parameters() if p.requires_grad]
    if not parameters:
        assert not loss.requires_grad
        return
    loss.backward()
    assert z.grad is None
    for parameter in parameters:
        grad = parameter.grad.view(-1)
        for i in range(0, len(grad), max(1, len(grad) // 5)):
            assert abs(float(grad[i]) - slope_of_the_likelihood(prior, z, parameter, i)) < 1e-5


def surrogate_follows_the_likelihood(prior, z):
    """The mean gradient over many negative phases, within its standard error."""
    draws, parameters = [], [p for p in prior.parameters() if p.requires_grad]
    for seed in range(60):
        prior.zero_grad()
        prior.loss(z, generator=torch.Generator().manual_seed(seed)).backward()
        draws.append([p.grad.clone().view(-1) for p in parameters])
    assert z.grad is None
    for parameter, grads in zip(parameters, zip(*draws, strict=True), strict=True):
        grads = torch.stack(grads)
        for i in range(0, grads.shape[1], max(1, grads.shape[1] // 3)):
            want = slope_of_the_likelihood(prior, z, parameter, i)
            error = float(grads[:, i].std()) / math.sqrt(len(grads))
            assert error < 0.05
            assert abs(float(grads[:, i].mean()) - want) < 4.5 * error + 1e-6


def test_weights_of_a_loss_are_counts(prior):
    """A point of weight 3 counts as three points; the sum of the weights does not matter."""
    if not (prior.normalized and prior.estimates_likelihood_gradient):
        pytest.skip("its loss has no value, or one that noise decides")
    z = torch.randn(4, Z, generator=torch.Generator().manual_seed(2))
    weights = torch.tensor([3.0, 1.0, 0.0, 2.0])
    want = prior.loss(z.repeat_interleave(weights.long(), 0))
    assert abs(float(prior.loss(z, weights)) - float(want)) < 1e-5
    assert abs(float(prior.loss(z, 7 * weights)) - float(want)) < 1e-5


def test_saved_and_loaded_it_is_the_same(build, tmp_path):
    old = build()
    with torch.no_grad():
        for p in old.parameters():
            p.add_(0.1)
    old.shift.copy_(torch.tensor([0.2, -0.1]))
    old.scale.fill_(1.1)
    save_file(old.state_dict(), tmp_path / "prior.safetensors")
    torch.manual_seed(3)
    new = build()
    new.load_state_dict(load_file(tmp_path / "prior.safetensors"))
    z = torch.randn(9, Z)
    assert torch.equal(old.log_prob(z), new.log_prob(z))
    a, b = (prior.sample(9, torch.Generator().manual_seed(4)) for prior in (old, new))
    assert torch.equal(a, b)


def test_gradients_of_the_kl_reach_the_posterior(prior):
    """Pathwise, against finite differences in the mean and the log variance with the same noise."""
    prior.double()
    mean, log_var = (t.double().requires_grad_() for t in (posterior().mean, posterior().log_var))

    def kl(mean, log_var):
        q = DiagonalGaussian(mean, log_var)
        return prior.kl_divergence(q, q.rsample(3, torch.Generator().manual_seed(0)))

    assert torch.autograd.gradcheck(
        kl, (mean, log_var), eps=1e-6, atol=1e-5, rtol=1e-4, fast_mode=isinstance(prior, CostlyDensity)
    )


def test_states_add_up_to_the_density(prior):
    """Where a prior has states, it is the mixture of their Gaussians, and the shares of z are Bayes' rule."""
    states = prior.double().states()
    z = 1.5 * torch.randn(30, Z, dtype=torch.float64)
    if states is None:
        with pytest.raises(NotImplementedError):
            prior.responsibilities(z)
        return
    parts = [
        w * multivariate_normal(m, c).pdf(z.numpy())
        for w, m, c in zip(states.weight, states.mean, states.covariance, strict=True)
    ]
    joint = np.stack(parts, 1)
    np.testing.assert_allclose(np.log(joint.sum(1)), prior.log_prob(z).detach(), rtol=1e-8)
    share = joint / joint.sum(1, keepdims=True)
    np.testing.assert_allclose(prior.responsibilities(z).detach(), share, atol=1e-8)
    assert len(set(states.names)) == len(states.weight)
    assert abs(states.weight.sum() - 1) < 1e-12


def test_transports_go_back_and_forth(prior):
    if not isinstance(prior, TransportPrior):
        return
    n = 3 if isinstance(prior, CostlyDensity) else 50
    z = 2 * torch.randn(n, Z, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    base = exactly(prior).encode(z)
    torch.testing.assert_close(prior.decode(base), z, rtol=1e-9, atol=1e-9)
    jacobian = torch.stack([torch.autograd.functional.jacobian(prior.encode, row) for row in z])
    want = NormalPrior(Z).double().log_prob(base) + torch.linalg.slogdet(jacobian)[1]
    torch.testing.assert_close(prior.log_prob(z), want, rtol=1e-9, atol=1e-9)


def test_a_prior_in_order_has_no_faults_and_a_broken_one_does(prior):
    assert prior.faults() == ()
    for parameter in list(prior.parameters())[:1]:
        parameter.data.fill_(float("nan"))
        assert "not finite" in prior.faults()[0]


def test_no_posterior_costs_less_than_nothing_and_one_far_away_costs_something(prior):
    """KL is not negative, up to the error of the mean over samples."""
    q = posterior(64)
    log_z = 0.0 if prior.normalized else prior.log_partition().value
    z = q.rsample(20 if isinstance(prior, CostlyDensity) else 4000, torch.Generator().manual_seed(3))
    with torch.no_grad():
        each = q.log_prob(z) + prior.energy(z) + log_z
        error = each.std(0) / math.sqrt(len(each))
        kl = prior.kl_divergence(q, z) + log_z
        assert bool((kl > -5 * error - 1e-5).all())
        far = DiagonalGaussian(q.mean + 6.0, q.log_var)
        assert float((prior.kl_divergence(far) - prior.kl_divergence(q)).mean()) > 1.0


@pytest.mark.parametrize("kind", NEW)
@pytest.mark.parametrize("d", [1, 8])
def test_a_new_prior_is_nearly_standard_normal(kind, d):
    """Before its start, KL from N(0, I) by the log densities, and the moments of samples."""
    torch.manual_seed(0)
    prior = NEW[kind](d)
    z = torch.randn(300, d, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        gap = NormalPrior(d).log_prob(z) - prior.log_prob(z)
    assert -0.1 < float(gap.mean()) < 0.2
    drawn = prior.sample(2000, torch.Generator().manual_seed(2))
    assert float(drawn.mean(0).abs().max()) < 0.35
    assert 0.8 < float(drawn.var(0).min()) <= float(drawn.var(0).max()) < 1.7
