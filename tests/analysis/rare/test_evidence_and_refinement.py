"""Evidence of images of a known structure, and structures fitted to images, on a short run."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from cryoscape.analysis.populations.likelihood_table import likelihood_table
from cryoscape.analysis.rare.evidence import evidence_table, nats_between, shortfall
from cryoscape.analysis.rare.proposals import covering_codes, tempered_codes
from cryoscape.analysis.rare.refinement import (
    Conformation,
    coordinates_of,
    fit_code,
    image_group,
    maps_of,
    scenes_of,
    tune_decoder,
)
from cryoscape.physics import fourier
from cryoscape.priors.mixture import MixturePrior
from cryoscape.priors.normal import NormalPrior
from cryoscape.training.train import train
from tests.training.builders import KNOWN, make_sample, settings


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    return make_sample(tmp_path_factory.mktemp("rare") / "data", n=200, snr=0.3)


@pytest.fixture(scope="module")
def run(sample):
    short = {"steps": 60, "batch": 32, "device": "cpu", "precision": "32"}
    return train(
        sample.particles, sample.model, settings(training=short), sample.folder / "run", interpretation=KNOWN
    )


def true_scenes(run, sample):
    offset = torch.tensor(run.geometry.offset)
    return [run.image_model.decoder.scene(torch.tensor(s)[None].float() - offset) for s in sample.states]


def test_evidence_of_right_structures_is_as_expected(run, sample, monkeypatch):
    """Images made by the model itself: mean P and variance 2 P; under another structure they fall short."""
    likelihood, images = run.image_model.likelihood, run.images()
    scenes = true_scenes(run, sample)
    monkeypatch.setitem(likelihood._buffers, "noise", torch.full_like(likelihood.noise, 0.04))
    g = torch.Generator().manual_seed(0)
    batch = images.batch(torch.arange(len(images)))
    both = torch.stack([s.project(batch.rotations, likelihood.box, likelihood.pixel_size) for s in scenes])
    clean = both[torch.from_numpy(sample.state), torch.arange(len(images))]
    white = 0.2 * torch.randn(len(images), likelihood.box, likelihood.box, generator=g)
    noisy = likelihood.transfer(batch.ctf, batch.group) * clean + fourier.forward(white)

    class Made:
        def __len__(self):
            return len(images)

        def batch(self, rows):
            return replace(images.batch(rows), images=noisy[rows])

    monkeypatch.setattr(run, "images", Made)
    table, expected = evidence_table(run, scenes)
    rows = np.arange(len(table))
    z = (table - expected)[rows, sample.state] / np.sqrt(2 * expected[rows, sample.state])
    assert abs(z.mean()) < 3 / np.sqrt(len(z))
    assert z.std() == pytest.approx(1, abs=0.15)
    right, wrong = np.eye(2)[sample.state], np.eye(2)[1 - sample.state]
    np.testing.assert_allclose(shortfall(table, expected, right), -z)
    # Of the other structure it is D nats less, on average, and its own expectation differs.
    d = nats_between(run, scenes, views=len(images))[0, 1]
    lost = (table[rows, sample.state] - table[rows, 1 - sample.state]).mean()
    assert lost == pytest.approx(d, abs=4 * np.sqrt(2 * d / len(z)))
    assert shortfall(table, expected, wrong).mean() > 0.2


def test_evidence_is_that_of_the_likelihood_table(run):
    z = run.sample(3, seed=1)
    table, expected = evidence_table(run, scenes_of(run, [Conformation(one, "") for one in z]))
    np.testing.assert_allclose(table, likelihood_table(run, z), rtol=1e-4, atol=1e-3)
    assert (expected > 0).all()
    nats = nats_between(run, scenes_of(run, [Conformation(one, "") for one in z]), views=200)
    np.testing.assert_allclose(np.diag(nats), 0, atol=1e-9)
    assert (nats[~np.eye(3, dtype=bool)] > 0).all()


def test_a_group_makes_its_own_structure(run, sample):
    """Images of the second state alone: fitted and tuned structures come nearer to it, and fit better."""
    share = (sample.state == 1).astype(float)
    group = image_group(run, share)
    assert len(group.weights) == (sample.state == 1).sum()
    assert float(group.weights.sum()) == pytest.approx(1, abs=1e-5)
    start = Conformation(np.zeros(2, np.float32), "start")
    fitted = fit_code(run, start, group)
    before = [p.clone() for p in run.image_model.decoder.parameters()]
    tuned = tune_decoder(run, fitted, group)
    for old, now in zip(before, run.image_model.decoder.parameters()):
        assert torch.equal(old, now)
    table, _ = evidence_table(run, scenes_of(run, [start, fitted, tuned]))
    mean = table[sample.state == 1].mean(axis=0)
    assert mean[0] < mean[1] < mean[2]
    error = np.linalg.norm(coordinates_of(run, [start, fitted, tuned]) - sample.states[1], axis=2)
    rmsd = np.sqrt(np.square(error).mean(axis=1))
    assert rmsd[2] < rmsd[0]
    assert image_group(run, np.zeros(200)) is None


def test_tempered_normal_is_wider():
    g = torch.Generator().manual_seed(0)
    z = tempered_codes(NormalPrior(3), 4.0, 2000, g)
    np.testing.assert_allclose(z.std(0).numpy(), 2.0, rtol=0.06)


def test_tempered_mixture_crosses_more_often():
    """A basin of 2 % at temperature 4: of two Gaussians far apart, weights to the power 1/4, renormalised."""
    prior = MixturePrior(1, 2)
    with torch.no_grad():
        z = torch.cat([torch.randn(980, 1), 3.0 + torch.randn(20, 1)])
        prior.warm_start(z, torch.Generator().manual_seed(0))
    cold = prior.sample(1000, torch.Generator().manual_seed(1))
    hot = tempered_codes(prior, 4.0, 1000, torch.Generator().manual_seed(1))
    assert (hot > 2.5).float().mean() > 2 * (cold > 2.5).float().mean()


def test_codes_cover_more_than_the_prior(run):
    z = covering_codes(run, 12)
    assert z.shape == (12, 2)
    assert np.isfinite(z).all()
    np.testing.assert_array_equal(z, covering_codes(run, 12))
    assert np.abs(z).max() > 2.5


def test_maps_are_fitted_too(sample, tmp_path):
    config = settings(
        training={"steps": 10, "batch": 32, "device": "cpu", "precision": "32"},
        decoder={"kind": "voxels"},
        encoder={"kind": "image"},
    )
    volume = train(sample.particles, None, config, tmp_path / "run", interpretation=KNOWN)
    group = image_group(volume, (sample.state == 1).astype(float))
    start = Conformation(np.zeros(2, np.float32), "start")
    tuned = tune_decoder(volume, start, group)
    table, _ = evidence_table(volume, scenes_of(volume, [start, tuned]))
    gain = (table[:, 1] - table[:, 0])[sample.state == 1]
    assert gain.mean() > 0
    assert maps_of(volume, [start, tuned]).shape == (2, *(volume.geometry.box,) * 3)
    assert len(covering_codes(volume, 8)) == 8
