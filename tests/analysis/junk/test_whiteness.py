"""z-scores of residuals: standard normal on noise, large where something is left."""

import numpy as np
import pytest
import torch
from scipy.stats import chi2, kstest, norm

from cryoscape.analysis.junk.whiteness import residual_scores, standard_normal, whiteness
from cryoscape.physics import fourier
from tests.analysis.junk.scenes import likelihood_of, scene_and_images

BOX, PIXEL = 32, 3.0


def scores(images):
    weights = fourier.band_weights(BOX, PIXEL, 7.0)
    shells = fourier.shell_index(BOX)
    return whiteness(fourier.forward(images), weights, shells).numpy()


def noise(n, seed=0):
    return torch.randn(n, BOX, BOX, generator=torch.Generator().manual_seed(seed))


def test_white_noise_is_standard_normal():
    z = scores(noise(2000))
    assert z.mean() == pytest.approx(0, abs=0.1)
    assert z.std() == pytest.approx(1, abs=0.07)
    assert kstest(z, "norm").pvalue > 1e-4


def test_more_power_less_power_and_coloured_power():
    assert scores(1.1 * noise(300)).mean() > 1.5
    assert scores(0.85 * noise(300)).mean() > 1.5
    tilt = 1 + 0.4 * torch.cos(3 * fourier.frequency_grid(BOX, PIXEL).norm(dim=-1) * 2 * PIXEL)
    tilt = tilt / tilt.square().mean().sqrt()
    assert scores(fourier.inverse(fourier.forward(noise(300)) * tilt, BOX)).mean() > 2


def test_noise_that_is_stronger_in_one_place():
    axis = torch.arange(BOX) - BOX // 2
    for centre in (0, 8):
        place = 1 + 1.2 * torch.exp(-((axis[:, None] - centre) ** 2 + axis**2) / 40)
        images = noise(300) * place / place.square().mean().sqrt()
        assert scores(images).mean() > 2


def test_chi_square_to_normal():
    for n in (12.0, 60.0, 400.0):
        values = chi2.ppf([0.01, 0.2, 0.5, 0.9, 0.99], n)
        found = standard_normal(torch.from_numpy(values), torch.tensor(n, dtype=torch.float64))
        np.testing.assert_allclose(found, norm.ppf([0.01, 0.2, 0.5, 0.9, 0.99]), atol=0.02)


def test_particles_leave_noise_and_others_do_not():
    scene, images = scene_and_images(n=600, gain=12.0)
    likelihood, best = likelihood_of(gain=12.0), np.zeros(600, dtype=np.int64)
    right = residual_scores(likelihood, [scene], images, best, np.ones(600))
    assert right.mean() == pytest.approx(0, abs=0.2)
    assert right.std() == pytest.approx(1, abs=0.1)
    wrong = residual_scores(likelihood, [scene], images, best, np.full(600, 0.3))
    assert wrong.mean() > 1
