import math

import numpy as np
import torch

from cryoscape.priors.diffusion.noise import (
    SIGMA_MAX,
    SIGMA_MIN,
    bounding_levels,
    denoise,
    noisy,
    sampler_levels,
    training_levels,
)


def test_denoiser_is_scaled_as_published():
    """D = c_skip x + c_out F(c_in x) with the formulas of EDM for sigma_data = 1, at levels far apart."""
    sigma = torch.tensor([0.002, 0.3, 1.0, 80.0], dtype=torch.float64)
    x = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * sigma[:, None]
    s = sigma.numpy()[:, None]
    want = x.numpy() / (s**2 + 1) + s / np.sqrt(s**2 + 1) * np.tanh(x.numpy() / np.sqrt(s**2 + 1))
    np.testing.assert_allclose(denoise(lambda y, _: y.tanh(), x, sigma), want, rtol=1e-12)


def test_target_denoises_to_the_point_itself():
    g = torch.Generator().manual_seed(0)
    u, noise = torch.randn(2, 50, 3, dtype=torch.float64, generator=g)
    sigma = torch.logspace(-2.6, 1.9, 50, dtype=torch.float64)
    scaled, target = noisy(u, sigma, noise)
    x = u + sigma[:, None] * noise
    torch.testing.assert_close(scaled, x / torch.sqrt(1 + sigma.square())[:, None])
    torch.testing.assert_close(denoise(lambda *_: target, x, sigma), u, rtol=1e-9, atol=1e-9)


def test_levels_of_a_sampler():
    levels = sampler_levels(18, torch.zeros((), dtype=torch.float64)).numpy()
    want = [(80 ** (1 / 7) + i / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7 for i in range(18)]
    np.testing.assert_allclose(levels, want)


def test_levels_of_training_are_log_normal():
    found = training_levels(20_000, -0.5, 1.2, torch.Generator().manual_seed(1)).log()
    assert abs(float(found.mean()) + 0.5) < 1e-3
    assert abs(float(found.std()) - 1.2) < 5e-3
    # Stratified, but in random order.
    assert abs(float(torch.corrcoef(torch.stack([found[:-1], found[1:]]))[0, 1])) < 0.05


def test_levels_of_the_bound_integrate_over_the_logarithm():
    """Of 1, of sin^2 cos^2 of the angle, which is 1/2 over all noise, and of what is at one end alone."""
    sigma, weight = (t.double() for t in bounding_levels(200_000, torch.Generator().manual_seed(2)))
    span = math.log(SIGMA_MAX / SIGMA_MIN)
    assert abs(float(weight.mean()) / span - 1) < 2e-3
    hump = sigma.square() / (1 + sigma.square()).square()
    assert abs(float((weight * hump).mean()) - 0.5) < 2e-3
    end = (sigma > 20).double()
    assert abs(float((weight * end).mean()) - math.log(4)) < 0.02
    assert float(weight.max()) <= 2 * span + 1e-3
