import numpy as np
import torch
from scipy.stats import norm

from cryoscape.models.posteriors import DiagonalGaussian


def posterior(dtype=torch.float32):
    g = torch.Generator().manual_seed(0)
    return DiagonalGaussian(
        torch.randn(4, 3, generator=g, dtype=dtype), torch.randn(4, 3, generator=g, dtype=dtype)
    )


def test_log_density_and_entropy_of_scipy():
    q = posterior(torch.float64)
    z = torch.randn(5, 4, 3, dtype=torch.float64)
    sd = np.exp(q.log_var.numpy() / 2)
    want = norm.logpdf(z.numpy(), q.mean.numpy(), sd).sum(-1)
    np.testing.assert_allclose(q.log_prob(z), want)
    np.testing.assert_allclose(q.stddev, sd)
    np.testing.assert_allclose(q.entropy(), norm.entropy(q.mean.numpy(), sd).sum(-1))


def test_samples_have_its_mean_and_width():
    q = posterior()
    z = q.rsample(40_000, torch.Generator().manual_seed(1))
    assert z.shape == (40_000, 4, 3)
    assert float(((z.mean(0) - q.mean) / q.stddev).abs().max()) < 5 / 40_000**0.5
    assert float((z.std(0) / q.stddev - 1).abs().max()) < 0.02


def test_a_seed_gives_the_same_noise_whatever_the_parameters():
    q, other = posterior(), DiagonalGaussian(torch.zeros(4, 3), torch.zeros(4, 3))
    a = (q.rsample(2, torch.Generator().manual_seed(5)) - q.mean) / q.stddev
    b = other.rsample(2, torch.Generator().manual_seed(5))
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_samples_are_reparameterised():
    """dz/dmean = 1 and dz/dlog_var = (z - mean) / 2."""
    mean, log_var = torch.zeros(1, 2, requires_grad=True), torch.ones(1, 2, requires_grad=True)
    z = DiagonalGaussian(mean, log_var).rsample(1, torch.Generator().manual_seed(2))
    z.sum().backward()
    torch.testing.assert_close(mean.grad, torch.ones(1, 2))
    torch.testing.assert_close(log_var.grad, (z[0] / 2).detach())
