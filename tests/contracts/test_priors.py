"""What every prior promises. A new one adds a line to PRIORS."""

import math

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from cryoscape.models.posteriors import DiagonalGaussian
from cryoscape.priors.normal import NormalPrior

Z = 2
PRIORS = {"normal": lambda: NormalPrior(Z)}


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


def test_the_density_integrates_to_one(prior):
    grid, cell = square_grid()
    assert abs(float(prior.double().log_prob(grid).exp().sum()) * cell - 1.0) < 1e-6


def test_log_partition_is_the_integral_of_the_energy(prior):
    grid, cell = square_grid()
    found = prior.double().log_partition()
    want = float(torch.logsumexp(-prior.energy(grid), 0)) + math.log(cell)
    assert abs(found.value - want) <= 1e-6 + 4 * found.std_err
    assert found.method
    if found.method == "exact":
        assert found.std_err == 0.0
        assert found.ess == math.inf


@pytest.mark.parametrize("hidden", [False, True], ids=["known posterior", "sampled posterior"])
def test_monte_carlo_kl_agrees(prior, hidden):
    """Against an independent average of log q - log p over 200,000 points by numpy."""
    q = posterior()
    rng = np.random.default_rng(0)
    mean, log_var = q.mean.numpy().astype(float), q.log_var.numpy().astype(float)
    noise = rng.normal(size=(200_000, *mean.shape))
    z = mean + np.exp(log_var / 2) * noise
    log_q = -0.5 * (noise**2 + log_var + np.log(2 * np.pi)).sum(-1)
    with torch.no_grad():
        log_p = prior.log_prob(torch.from_numpy(z).float()).numpy()
    want, error = (log_q - log_p).mean(0), (log_q - log_p).std(0) / np.sqrt(len(noise))
    if hidden:
        samples = q.rsample(200_000, torch.Generator().manual_seed(1))
        got = prior.kl_divergence(SampledOnly(q), samples).detach().numpy()
        assert (np.abs(got - want) < 6 * error + 1e-4).all()
    else:
        samples = q.rsample(20_000, torch.Generator().manual_seed(1))
        got = prior.kl_divergence(q, samples).detach().numpy()
        assert (np.abs(got - want) < 15 * error + 1e-4).all()


def test_samples_follow_the_density(prior):
    """Mean, covariance and cell counts of samples against integrals of the density."""
    n = 40_000
    z = prior.sample(n, torch.Generator().manual_seed(0)).double().numpy()
    grid, cell = square_grid()
    with torch.no_grad():
        p = (prior.double().log_prob(grid).exp() * cell).numpy()
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
    prior.double()
    z = 1.5 * torch.randn(20, Z, dtype=torch.float64)
    step = 1e-5 * torch.eye(Z, dtype=torch.float64)
    want = torch.stack([(prior.log_prob(z + e) - prior.log_prob(z - e)) / 2e-5 for e in step], dim=-1)
    torch.testing.assert_close(prior.score(z), want.detach(), rtol=1e-5, atol=1e-7)
    with torch.no_grad():
        torch.testing.assert_close(prior.score(z), want, rtol=1e-5, atol=1e-7)


def test_loss_is_the_exact_negative_log_likelihood(prior):
    """Value, and its gradient in every parameter by finite differences; none reaches z."""
    prior.double()
    z = torch.randn(50, Z, dtype=torch.float64, requires_grad=True)
    loss = prior.loss(z)
    assert abs(float(loss) + float(prior.log_prob(z).mean())) < 1e-9
    parameters = [p for p in prior.parameters() if p.requires_grad]
    if not parameters:
        assert not loss.requires_grad
        return
    loss.backward()
    assert z.grad is None
    for parameter in parameters:
        flat, grad = parameter.data.view(-1), parameter.grad.view(-1)
        for i in range(0, len(flat), max(1, len(flat) // 5)):
            old = float(flat[i])
            ends = []
            for value in (old + 1e-5, old - 1e-5):
                flat[i] = value
                ends.append(-float(prior.log_prob(z).mean()))
            flat[i] = old
            assert abs(float(grad[i]) - (ends[0] - ends[1]) / 2e-5) < 1e-5


def test_saved_and_loaded_it_is_the_same(build, tmp_path):
    old = build()
    with torch.no_grad():
        for p in old.parameters():
            p.add_(0.1)
    save_file(old.state_dict(), tmp_path / "prior.safetensors")
    torch.manual_seed(3)
    new = build()
    new.load_state_dict(load_file(tmp_path / "prior.safetensors"))
    z = torch.randn(9, Z)
    assert torch.equal(old.log_prob(z), new.log_prob(z))


def test_a_posterior_equal_to_the_prior_costs_nothing_and_any_other_something(prior):
    q = posterior(64)
    assert float(prior.kl_divergence(q).min()) > -1e-5
    far = DiagonalGaussian(q.mean + 6.0, q.log_var)
    assert float((prior.kl_divergence(far) - prior.kl_divergence(q)).mean()) > 1.0
