"""Simulated images: noise and signal as the likelihood says, the same in any batch."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from cryoscape.analysis.populations.likelihood_table import image_table
from cryoscape.analysis.validation.simulated_images import SimulatedImages, draw_scenes
from tests.analysis.validation.imaging import likelihood_of, particles, scenes

N = 200


@pytest.fixture(scope="module")
def case():
    some = scenes(0, 25)
    return SimpleNamespace(images=particles(N), scenes=some, likelihood=likelihood_of(some[0], 20.0))


def simulated(case, **changes):
    settings = {"choice": torch.zeros(N, dtype=torch.int64), "seed": 3} | changes
    return SimulatedImages(case.images, case.likelihood, case.scenes, **settings)


def test_noise_has_the_spectrum_of_the_likelihood(case):
    like = case.likelihood
    rows = torch.arange(N)
    noise = simulated(case, choice=torch.full((N,), -1))(rows).images
    inside = like.weights == 2
    ratio = (noise.abs().square() / like.noise[0][like.shells])[:, inside]
    count = ratio.numel()
    # |X|^2 / s2 of a complex normal number has mean and variance 1.
    assert float(ratio.mean()) == pytest.approx(1, abs=5 / count**0.5)
    assert float(ratio.var()) == pytest.approx(1, abs=0.1)


def test_expected_log_likelihood_is_half_the_signal_energy(case):
    """Of Gaussian noise, E log p(x | V) - log p(x | nothing) = |T Y|^2 / (2 s2) with images of V."""
    rows = torch.arange(N)
    like, scene = case.likelihood, case.scenes[0]
    found = image_table(like, [scene], simulated(case), rows)[:, 0]
    batch = case.images(rows)
    y = scene.project(batch.rotations, like.box, like.pixel_size) * like.transfer(batch.ctf, batch.group)
    energy = (like.weights * y.abs().square() / like.noise[:, like.shells][batch.group]).sum((1, 2)).numpy()
    standard = (found - 0.5 * energy) / np.sqrt(energy)
    assert abs(standard.mean()) < 4 / np.sqrt(N)
    assert standard.std() == pytest.approx(1, abs=0.2)


def test_an_image_is_the_same_in_every_batch(case):
    source = simulated(case)
    together = source(torch.arange(20)).images
    alone = torch.cat([source(torch.tensor([i])).images for i in range(20)])
    # Products of another size may be summed in another order.
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)
    other = simulated(case, seed=4)(torch.arange(20)).images
    assert not torch.allclose(together, other, atol=1e-2)


def test_wrong_poses_cost_likelihood_only_where_they_are_put_in(case):
    rows = torch.arange(N)
    right = image_table(case.likelihood, case.scenes[:1], simulated(case), rows).mean()
    wrong = image_table(
        case.likelihood, case.scenes[:1], simulated(case, rotation_sd=10.0, shift_sd=2.0), rows
    ).mean()
    assert wrong < 0.9 * right
    # The poses that a user is given stay as they are.
    batch = simulated(case, rotation_sd=10.0)(rows[:3])
    torch.testing.assert_close(batch.rotations, case.images(rows[:3]).rotations)


def test_scenes_are_drawn_by_population():
    chosen = draw_scenes(torch.tensor([0.2, 0.0, 0.8]), 5000, seed=1)
    assert not (chosen == 1).any()
    assert float((chosen == 2).float().mean()) == pytest.approx(0.8, abs=0.025)
