"""Nats by shell against sums over coefficients, the chain of evidence, and shells never trained on."""

import math

import numpy as np
import pytest
import torch

from cryoscape.analysis.populations.likelihood_table import image_table
from cryoscape.analysis.validation.nats import need_nats
from cryoscape.analysis.validation.results import Status
from cryoscape.analysis.validation.shells import (
    finer_likelihood,
    shell_gain,
    shell_table,
    shells_check,
    unseen_cutoff,
    unseen_gain,
)
from cryoscape.analysis.validation.simulated_images import SimulatedImages, draw_scenes
from cryoscape.data.images import BandImages
from cryoscape.errors import InputError
from cryoscape.models.decoders.base import AtomicScene, MapScene
from cryoscape.models.likelihoods import CorrelationLikelihood, GaussianLikelihood, MeanSquaredLikelihood
from cryoscape.models.scattering import BeadScatterers
from cryoscape.physics.fourier_voxels import SliceSampler
from tests.analysis.validation.imaging import BOX, CUTOFF, PIXEL, likelihood_of, particles, scenes
from tests.training.builders import BOX as SAMPLE_BOX
from tests.training.builders import CORNER, make_sample
from tests.training.builders import PIXEL as SAMPLE_PIXEL

TWO = scenes(0.0, 25.0)
WEIGHT = np.array([0.6, 0.4])


@pytest.fixture(scope="module")
def table():
    like = likelihood_of(TWO[0], 40.0)
    images = SimulatedImages(particles(150), like, TWO, draw_scenes(torch.tensor(WEIGHT), 150))
    return like, images, shell_table(like, TWO, images, torch.arange(150))


def test_shells_add_up(table):
    like, images, found = table
    want = image_table(like, TWO, images, torch.arange(150))
    np.testing.assert_allclose(found.sum(-1), want, atol=2e-4)


def test_one_shell_by_hand(table):
    """The difference of squares of the residuals over all coefficients of a shell."""
    like, images, found = table
    batch = images(torch.arange(5))
    y = TWO[1].project(batch.rotations, BOX, PIXEL) * like.transfer(batch.ctf, batch.group)
    x = batch.images
    for row, shell in ((0, 3), (2, 6), (4, like.n_shells - 1)):
        total = 0.0
        for a, b in np.ndindex(BOX, BOX // 2 + 1):
            ky = a if a < BOX // 2 else a - BOX
            radius = math.hypot(b, ky)
            if round(radius) != shell or radius > BOX * PIXEL / CUTOFF or BOX // 2 in (a, b):
                continue
            off = abs(x[row, a, b]) ** 2 - abs(x[row, a, b] - y[row, a, b]) ** 2
            total += (1 if b == 0 else 2) * float(off) / (2 * float(like.noise[0, shell]))
        assert found[row, 1, shell] == pytest.approx(total, abs=1e-4)


def test_running_gains_add_up_to_the_evidence(table):
    like, _, found = table
    gain = shell_gain(found, WEIGHT, 0, BOX * PIXEL, running=True)
    total = found.sum(-1)
    want = np.logaddexp.reduce(total + np.log(WEIGHT), axis=1) - total[:, 0]
    assert gain.total == pytest.approx(want.mean())
    assert gain.total_error == pytest.approx(want.std(ddof=1) / np.sqrt(150))
    assert gain.gain.sum() == pytest.approx(gain.total)
    np.testing.assert_allclose(gain.frequency, np.arange(like.n_shells) / (BOX * PIXEL))
    assert gain.gain[0] == pytest.approx(0, abs=1e-12)


def test_responsibilities_of_other_shells_predict(table):
    """Judged by the exact responsibilities: fine shells gain; by shuffled ones they lose."""
    like, _, found = table
    coarse = found[:, :, :6].sum(-1) + np.log(WEIGHT)
    known = np.exp(coarse - np.logaddexp.reduce(coarse, axis=1)[:, None])
    told = shell_gain(found, known, 0, BOX * PIXEL, first=6)
    np.testing.assert_array_equal(told.shell, np.arange(6, like.n_shells))
    assert told.total > 3 * told.total_error
    shuffled = shell_gain(found, np.random.default_rng(0).permutation(known), 0, BOX * PIXEL, first=6)
    assert shuffled.total < told.total - 3 * told.total_error
    # A single structure against itself.
    itself = shell_gain(found, np.array([1.0, 0.0]), 0, BOX * PIXEL)
    assert itself.total == pytest.approx(0, abs=1e-12)


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    return make_sample(tmp_path_factory.mktemp("shells"), n=600, snr=2.0)


def made(sample, cutoff):
    """Likelihood of a band fitted to the first state, scenes, and the responsibilities of that band."""
    images = BandImages(sample.particles, cutoff)
    scatterers = BeadScatterers(torch.ones(30))
    both = [AtomicScene(torch.from_numpy(s - CORNER)[None].float(), scatterers) for s in sample.states]
    like = finer_likelihood(images, both[0], torch.arange(400))
    table = image_table(like, both, images.batch, torch.arange(400, 600)) + np.log(0.5)
    return like, both, np.exp(table - np.logaddexp.reduce(table, axis=1)[:, None])


def test_the_likelihood_of_one_structure_is_that_of_least_squares(sample):
    """Noise of the simulation, which is white; the fit knows the structure of half the images only."""
    like, _, _ = made(sample, 8.0)
    assert isinstance(like, GaussianLikelihood)
    power = np.square(sample.particles.images(np.arange(600))).mean()
    assert float(like.noise[0, -1]) == pytest.approx(1.0, abs=0.1)
    assert power > 2


def test_unseen_shells_are_predicted_and_shuffled_ones_are_not(sample):
    like, both, known = made(sample, 14.0)
    split = {"training_rows": torch.arange(400), "rows": torch.arange(400, 600)}
    found = unseen_gain(like, sample.particles, both, 0, known, **split)
    assert found.shell[0] == like.n_shells
    assert found.frequency[0] > 1 / 14.0
    assert found.frequency[-1] <= 1.05 * 1.5 / 14.0
    assert found.total > 4 * found.total_error
    seen = shell_gain(np.zeros((200, 2, like.n_shells)), known, 0, 72.0)
    assert shells_check(seen, found).status is Status.PASSED
    wrong = unseen_gain(like, sample.particles, both, 0, known[:, ::-1], **split)
    check = shells_check(seen, wrong)
    assert check.status is Status.FAILED
    assert "never saw" in check.text


def test_where_there_is_nothing_beyond(sample):
    like, both, known = made(sample, 2 * SAMPLE_PIXEL)
    assert unseen_cutoff(like, sample.particles) is None
    split = {"training_rows": torch.arange(400), "rows": torch.arange(400, 600)}
    reason = unseen_gain(like, sample.particles, both, 0, known, **split)
    assert "limit of the pixels" in reason
    sampler = SliceSampler(SAMPLE_BOX, 8)
    maps = [MapScene(sampler, torch.zeros(1, 1, 2))] * 2
    reason = unseen_gain(like, sample.particles, maps, 0, known, **split)
    assert "beyond the band" in reason
    seen = shell_gain(np.zeros((200, 2, 5)), known, 0, 72.0)
    check = shells_check(seen, reason)
    assert check.status is Status.NOT_RUN
    assert reason in check.text


@pytest.mark.parametrize("kind", [CorrelationLikelihood, MeanSquaredLikelihood])
def test_without_nats_it_refuses(kind):
    with pytest.raises(InputError, match="nats"):
        need_nats(kind(BOX, PIXEL, CUTOFF))
