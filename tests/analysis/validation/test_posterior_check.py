"""Encoders of which it is known how wrong they are: exact posteriors of small motions and of bits, narrowed
ones, and trained runs of atoms and of maps."""

from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.stats import norm

from cryoscape.analysis.validation.posterior_check import (
    LEVELS,
    along,
    calibration_of_draws,
    posterior_check,
    simulated_posteriors,
)
from cryoscape.analysis.validation.results import Status
from cryoscape.errors import InputError
from cryoscape.models.decoders.base import AtomicScene
from cryoscape.models.likelihoods import CorrelationLikelihood
from cryoscape.models.posteriors import Bernoulli, DiagonalGaussian
from cryoscape.models.scattering import BeadScatterers
from cryoscape.training.train import train
from tests.analysis.validation.imaging import BOX, CUTOFF, PIXEL, likelihood_of, particles, scenes
from tests.training.builders import KNOWN, make_sample, settings


class Swing:
    """z -> the chain with its end moved by z times `size`, A."""

    def __init__(self, size):
        self.base = scenes(0.0)[0].coords[0]
        self.mode = torch.zeros_like(self.base)
        self.mode[18:, 0] = size

    def objects(self, z):
        return self.base + z[:, :1, None] * self.mode

    def __call__(self, z):
        return AtomicScene(self.objects(z), BeadScatterers(torch.ones(30)))


@dataclass
class ExactModel:
    """Posteriors from the likelihood itself: by its slope and bend at 0, or at both values of a bit."""

    decoder: Swing
    likelihood: object
    bits: bool = False
    narrowed: float = 1.0

    def features(self, batch):
        like, found = self.likelihood, []
        for z in (0.0, 1.0) if self.bits else (-0.5, 0.0, 0.5):
            y = self.decoder(torch.full((1, 1), z)).project(batch.rotations, like.box, like.pixel_size)
            found.append(like.log_prob(batch.images, y, batch.ctf, batch.group))
        return torch.stack(found, dim=1)

    def posterior(self, features):
        if self.bits:
            return Bernoulli((features[:, 1] - features[:, 0])[:, None])
        low, middle, high = features.unbind(1)
        precision = 1.0 - (low + high - 2 * middle) / 0.25
        mean = (high - low) / precision
        return DiagonalGaussian(mean[:, None], -torch.log(precision[:, None]) + np.log(self.narrowed))


@dataclass
class ExactRun:
    image_model: ExactModel
    n: int
    info: dict = field(default_factory=dict)

    @property
    def prior(self):
        return SimpleNamespace(support="binary" if self.image_model.bits else "real")

    def sample(self, n, seed=0):
        z = np.random.default_rng(seed).standard_normal((n, 1)).astype(np.float32)
        return (z > 0).astype(np.float32) if self.image_model.bits else z

    def images(self):
        class Images:
            batch = particles(self.n)
            __len__ = lambda _: self.n  # noqa: E731

        return Images()


def run_of(n=600, size=0.5, **more):
    decoder = Swing(size)
    return ExactRun(ExactModel(decoder, likelihood_of(decoder(torch.zeros(1, 1)), 400.0), **more), n)


def checked(run, draws=64):
    axis = run.image_model.decoder.mode.flatten()[None].numpy()
    coordinates = along(run.image_model.decoder, axis / np.linalg.norm(axis))
    return posterior_check(run, coordinates, torch.arange(run.n), draws=draws)


def test_an_exact_posterior_passes():
    check = checked(run_of())
    assert check.number == 7
    assert check.status is Status.PASSED
    assert check.values["z_variance"][0] == pytest.approx(1, abs=0.15)
    assert abs(check.values["z_mean"][0]) < 0.13
    np.testing.assert_allclose(check.values["coverage"][0], LEVELS, atol=0.06)
    # Images tell something, and not everything: the error is below the spread of the prior, and above zero.
    assert 0.1 < check.values["error"][0] / (0.5 * np.sqrt(12)) < 0.9


@pytest.mark.parametrize("narrowed", [0.5, 2.0])
def test_a_posterior_of_another_width_fails(narrowed):
    check = checked(run_of(narrowed=narrowed))
    assert check.values["z_variance"][0] == pytest.approx(1 / narrowed, rel=0.15)
    assert check.status is Status.FAILED
    assert (check.values["coverage"][0, 1] < 0.9) == (narrowed < 1)


def test_bits():
    """The odds of two structures are the posterior; what is nearly certain has no width of its own."""
    check = checked(run_of(size=1.5, bits=True, n=800))
    assert check.values["pooled"]
    assert check.values["z_variance"][0] == pytest.approx(1, abs=0.2)
    np.testing.assert_allclose(check.values["coverage"][0], LEVELS, atol=0.07)


def test_scores_and_ranks_of_few_draws():
    """Draws of the same law as the truth, as few as 8: neither is biased."""
    rng = np.random.default_rng(0)
    centre, width = rng.standard_normal((4000, 2)), np.array([0.5, 3.0])
    truth = centre + width * rng.standard_normal((4000, 2))
    draws = centre + width * rng.standard_normal((8, 4000, 2))
    found = calibration_of_draws(truth, draws)
    np.testing.assert_allclose(found.variance, 1, atol=0.1)
    np.testing.assert_allclose(found.coverage, np.tile(LEVELS, (2, 1)), atol=0.03)
    many = calibration_of_draws(truth, centre + 0.5 * width * rng.standard_normal((400, 4000, 2)))
    np.testing.assert_allclose(many.variance, 4, rtol=0.08)
    want = [2 * norm.cdf(0.5 * norm.ppf(0.5 + level / 2)) - 1 for level in LEVELS]
    np.testing.assert_allclose(many.coverage, np.tile(want, (2, 1)), atol=0.03)
    assert calibration_of_draws(truth, draws, pooled=True).variance == pytest.approx([1, 1], abs=0.08)


SHORT = {"steps": 20, "batch": 16, "device": "cpu", "precision": "32"}
MAPS = {
    "encoder": {"kind": "field", "hidden": (16,)},
    "decoder": {"kind": "voxels", "n_volumes": 2, "hidden": (8,)},
}


@pytest.mark.parametrize("kind", ["atoms", "maps"])
def test_trained_runs(kind, tmp_path):
    """Hardly trained: numbers are there, repeat with the seed, and are of objects of the decoder."""
    sample = make_sample(tmp_path / "data", n=200, snr=1.0)
    config = settings(training=SHORT, **(MAPS if kind == "maps" else {}))
    model = None if kind == "maps" else sample.model
    run = train(sample.particles, model, config, tmp_path / "run", interpretation=KNOWN)
    decoder = run.image_model.decoder
    axis = np.random.default_rng(0).standard_normal((2, decoder.reference.numel()))
    rows = torch.arange(100, 140)
    found = simulated_posteriors(run, along(decoder, axis), rows, draws=5, seed=3)
    again = simulated_posteriors(run, along(decoder, axis), rows, draws=5, seed=3)
    assert found[0].shape == (40, 2)
    assert found[1].shape == (5, 40, 2)
    np.testing.assert_array_equal(found[1], again[1])
    objects = decoder.objects(torch.from_numpy(run.sample(40, 3))).flatten(1).numpy()
    np.testing.assert_allclose(found[0], objects @ axis.T, rtol=1e-3, atol=1e-3)
    check = posterior_check(run, along(decoder, axis), rows, draws=8)
    assert np.isfinite(check.values["z_variance"]).all()


def test_where_it_cannot_be_asked():
    run = run_of(n=4)
    run.info["latents_from"] = "another"
    assert checked(run).status is Status.NOT_RUN
    run.info.clear()
    run.image_model.likelihood = CorrelationLikelihood(BOX, PIXEL, CUTOFF)
    with pytest.raises(InputError, match="nats"):
        checked(run)
