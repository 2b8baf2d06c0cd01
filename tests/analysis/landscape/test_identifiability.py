"""Nats between conformations against independent sums, and the finest detail against blurred waves."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from cryoscape.analysis.landscape.identifiability import (
    detail_along,
    nats_between_means,
    nats_between_scenes,
    needed_nats,
)
from cryoscape.data.images import ImageBatch
from cryoscape.models.likelihoods import GaussianLikelihood
from cryoscape.physics import fourier
from cryoscape.progress import Silent
from cryoscape.simulate.distances import nats_between
from cryoscape.simulate.imaging import clean_images, draw_views
from cryoscape.simulate.options import SimulationOptions
from cryoscape.simulate.scenarios import build_scenario

BOX, PIXEL, N = 64, 2.5, 32


@dataclass
class Projections:
    """A scene whose projections are given."""

    coefficients: torch.Tensor

    def project(self, rotations, box, pixel_size):
        return self.coefficients


def batch_of(n):
    flat = torch.ones(n, BOX, BOX // 2 + 1)
    eye = torch.eye(3).expand(n, 3, 3)
    return ImageBatch(torch.arange(n), flat.to(torch.complex64), flat, eye, torch.zeros(n, dtype=torch.int64))


@pytest.fixture(scope="module")
def simulated():
    """Clean images of three states in the same views, and the simulator's own nats between neighbours."""
    options = SimulationOptions(populations=(0.5, 0.3, 0.2))
    built = build_scenario("states", [], options, Silent())
    views = draw_views(built.population, N, options, 3)
    views.state[:] = 0
    images = [
        clean_images(
            torch.from_numpy(built.coords[k : k + 1].astype(np.float32)),
            torch.from_numpy(built.state_weights[k : k + 1].astype(np.float32)),
            built.atoms.sigma,
            views,
            np.arange(N),
            options,
            BOX,
            PIXEL,
            3,
        )
        for k in range(3)
    ]
    return images, nats_between(built, views, options, 2.5, BOX, PIXEL, 3)


def test_against_the_simulator(simulated):
    """Sums over pixels there, over whitened coefficients here."""
    images, want = simulated
    likelihood = GaussianLikelihood(BOX, PIXEL, 2 * PIXEL)
    likelihood.noise[:] = 2.5
    scenes = [Projections(fourier.forward(one.float())) for one in images]
    found = nats_between_scenes(likelihood, scenes, batch_of(N))
    # What the band leaves out, from the full plane: the corners, the last row and column.
    k = np.fft.fftfreq(BOX) * BOX
    inside = (
        (np.hypot(*np.meshgrid(k, k)) <= BOX // 2) & (np.abs(k) < BOX // 2) & (np.abs(k) < BOX // 2)[:, None]
    )
    inside[0, 0] = False
    for k, expected in enumerate(want):
        power = np.abs(np.fft.fft2((images[k + 1] - images[k]).numpy())) ** 2
        power[:, 0, 0] = 0
        assert found[k, k + 1] == pytest.approx(expected * power[:, inside].sum() / power.sum(), rel=1e-3)
    np.testing.assert_allclose(found, found.T)
    np.testing.assert_array_equal(np.diag(found), 0)


def test_it_is_the_expected_log_likelihood_ratio(simulated):
    """Drawn images of the first state through the likelihood itself, with a noise that is not white."""
    images, _ = simulated
    likelihood = GaussianLikelihood(BOX, PIXEL, 3 * PIXEL)
    likelihood.noise[:] = 4.0 + torch.arange(likelihood.n_shells) / 3
    likelihood.gain[:] = 1.2
    scenes = [Projections(fourier.forward(one.float())) for one in images[:2]]
    batch = batch_of(N)
    found = nats_between_scenes(likelihood, scenes, batch)[0, 1]
    generator, ratios = torch.Generator().manual_seed(0), []
    amplitude = likelihood.noise[0, likelihood.shells].sqrt()
    for _ in range(60):
        noise = fourier.forward(torch.randn(N, BOX, BOX, generator=generator)) * amplitude
        seen = 1.2 * scenes[0].coefficients + noise
        first, second = (
            likelihood.log_prob(seen, one.coefficients, batch.ctf, batch.group) for one in scenes
        )
        ratios.append((first - second).double())
    ratios = torch.stack(ratios)
    assert abs(float(ratios.mean()) - found) < 4 * float(ratios.std()) / np.sqrt(ratios.numel())


def test_nats_of_mixtures():
    rng = np.random.default_rng(0)
    points = rng.normal(size=(6, 9))
    nats = 0.5 * np.square(points[:, None] - points).sum(-1)
    a, b = rng.dirichlet(np.ones(6), 2)
    want = 0.5 * np.square(a @ points - b @ points).sum()
    assert nats_between_means(nats, a, b) == pytest.approx(want, rel=1e-12)


@pytest.mark.parametrize("period", [None, 60.0])
def test_error_along_a_variable(period):
    """Gaussian images of error 2 about a place on a line or circle, and another motion beside it."""
    rng = np.random.default_rng(1)
    value = rng.permutation(np.linspace(-30, 30, 120, endpoint=False))
    other = rng.normal(scale=5, size=120)
    apart = value[:, None] - value
    if period is not None:
        # Chords of the circle; steps are short.
        apart = period / np.pi * np.sin(np.pi * apart / period)
    nats = 0.5 * (np.square(apart) + np.square(other[:, None] - other)) / 4
    edges = np.linspace(-30, 30, 41) if period else np.linspace(-24, 24, 33)
    found = detail_along(nats, value, edges, 10_000, period)
    assert np.median(found.error) == pytest.approx(2, rel=0.15)
    np.testing.assert_allclose(found.bin_nats, 0.5 * (1.5 / found.error) ** 2)
    np.testing.assert_allclose(found.finest, 2 * np.pi * found.error / np.sqrt(np.log(10_000)))


def test_nothing_is_told_apart():
    found = detail_along(np.zeros((9, 9)), np.arange(9.0), np.linspace(0, 8, 5), 100)
    assert np.isinf(found.error).all()
    assert (found.bin_nats == 0).all()


def test_the_finest_wave_is_at_the_noise_of_so_many_images():
    """A wave at the limit, blurred by the error of an image, has the amplitude 1 / sqrt(N)."""
    n, error = 5000, 1.7
    wave = 2 * np.pi * error / np.sqrt(np.log(n))
    x = np.linspace(-8 * error, 8 * error, 20_001)
    kernel = np.exp(-0.5 * (x / error) ** 2)
    left = (kernel * np.cos(2 * np.pi * x / wave)).sum() / kernel.sum()
    assert left == pytest.approx(n**-0.5, rel=1e-3)
    assert needed_nats(n) == pytest.approx(0.5 * (wave / error) ** 2)
