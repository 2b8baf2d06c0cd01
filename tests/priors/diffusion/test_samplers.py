import numpy as np
import pytest
import torch

from cryoscape.priors.diffusion.prior import DiffusionPrior
from tests.priors.diffusion.mixtures import COVARIANCE, MEAN, WEIGHT, mixture_prior, moments


def shares(z):
    """Share of the points nearest to each component, by its own distance."""
    inverse = np.linalg.inv(COVARIANCE)
    gap = z[:, None] - MEAN
    distance = np.einsum("nki,kij,nkj->nk", gap, inverse, gap) + np.log(np.linalg.det(COVARIANCE))
    return np.bincount((distance - 2 * np.log(WEIGHT)).argmin(1), minlength=3) / len(z)


@pytest.mark.parametrize(
    ("kind", "steps", "n"), [("heun", 40, 20_000), ("heun", 18, 20_000), ("stochastic", 1000, 5000)]
)
def test_samples_follow_the_mixture(kind, steps, n):
    prior = mixture_prior(sampling=kind, sampling_steps=steps)
    z = prior.sample(n, torch.Generator().manual_seed(0)).double().numpy()
    mean, covariance = moments()
    error = 4.5 * np.sqrt(np.diag(covariance) / n)
    assert (np.abs(z.mean(0) - mean) < error + 2e-3).all()
    np.testing.assert_allclose(np.cov(z.T), covariance, atol=0.01 + 3 / np.sqrt(n))
    assert np.abs(shares(z) - WEIGHT).max() < 4.5 * np.sqrt(0.25 / n) + 0.01


@pytest.mark.parametrize("kind", ["heun", "stochastic"])
def test_a_seed_gives_the_same_samples_and_all_are_finite(kind):
    prior = mixture_prior(sampling=kind, sampling_steps=20)
    drawn = [prior.sample(200, torch.Generator().manual_seed(seed)) for seed in [*range(10), 0]]
    assert torch.equal(drawn[0], drawn[-1])
    assert not torch.equal(drawn[0], drawn[1])
    assert all(bool(z.isfinite().all()) for z in drawn)


@pytest.mark.parametrize("error", [1.0, 0.1])
def test_guidance_is_exact_among_gaussians(error):
    """N(0, I) seen at 1.5 with an error, also one that is much narrower than the prior."""
    prior = DiffusionPrior(2, layers=1, width=8).eval()
    g = torch.Generator().manual_seed(0)
    z = prior.guided_sample(4000, lambda z: (1.5 - z) / error**2, g).double()
    gain = 1 / (1 + error**2)
    np.testing.assert_allclose(z.mean(0), [1.5 * gain, 1.5 * gain], atol=0.06 * error)
    np.testing.assert_allclose(z.var(0), [gain * error**2] * 2, rtol=0.06)


@pytest.mark.parametrize("kind", ["heun", "stochastic"])
@pytest.mark.parametrize("error", [1.0, 0.4])
def test_guidance_by_a_gaussian_gives_nearly_the_product(kind, error):
    """p(z) N(z; m, error^2 I) is a mixture again, with weights, means and covariances in closed form."""
    prior = mixture_prior(sampling=kind, sampling_steps=40 if kind == "heun" else 300)
    target, noise = np.array([1.0, 0.5]), error**2 * np.eye(2)
    pull = torch.as_tensor(target, dtype=torch.float32)
    asked = []

    def gradient(z):
        asked.append(z.requires_grad)
        return (pull - z) / error**2

    z = prior.guided_sample(4000, gradient, torch.Generator().manual_seed(0)).double().numpy()
    assert not any(asked)
    gap, inverse = target - MEAN, np.linalg.inv(COVARIANCE + noise)
    means = MEAN + np.einsum("kij,kjl,kl->ki", COVARIANCE, inverse, gap)
    weight = WEIGHT * np.exp(-0.5 * np.einsum("ki,kij,kj->k", gap, inverse, gap))
    weight /= np.sqrt(np.linalg.det(COVARIANCE + noise))
    weight /= weight.sum()
    before, after = np.linalg.norm(moments()[0] - weight @ means), np.linalg.norm(z.mean(0) - weight @ means)
    # What is left is the error of guidance between modes, whose weights it sees late.
    assert after < 0.3 * before
    assert np.abs(shares(z) - weight).max() < 0.3 * np.abs(WEIGHT - weight).max()


def test_guidance_in_units_of_z():
    """A prior in other units, and a potential that is moved with them, give the same samples moved."""
    plain, moved = mixture_prior(), mixture_prior()
    moved.shift.copy_(torch.tensor([2.0, -1.0]))
    moved.scale.fill_(3.0)
    a = plain.guided_sample(50, lambda u: 0.5 - u, torch.Generator().manual_seed(1))
    b = moved.guided_sample(50, lambda z: (0.5 - moved.whitened(z)) / 3.0, torch.Generator().manual_seed(1))
    torch.testing.assert_close(moved.shift + 3.0 * a, b, rtol=1e-4, atol=1e-4)
