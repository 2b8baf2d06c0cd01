import shutil

import numpy as np
import pytest
import torch

from cryoscape.errors import InputError
from cryoscape.training import checkpoint
from cryoscape.training.embedding import Embedding
from cryoscape.training.run import Run
from cryoscape.training.train import train
from tests.training.builders import KNOWN, settings


@pytest.fixture
def copied(trained, tmp_path):
    copy = shutil.copytree(trained.path, tmp_path / "run")
    (copy / "embedding.npz").unlink(missing_ok=True)
    return copy


@pytest.mark.parametrize(
    "decoder",
    [
        {"kind": "atomic", "hidden": (16,)},
        {"kind": "modes", "n_modes": 4, "hidden": (16,)},
        {"kind": "segments", "n_segments": 3, "hidden": (16,)},
    ],
    ids=lambda d: d["kind"],
)
def test_a_latent_without_displacement_decodes_to_the_file(sample, tmp_path, decoder):
    """The frame of the decoded structures is that of the model file as given, not the world's."""
    config = settings(decoder=decoder, training={"steps": 1})
    train(sample.particles, sample.model, config, tmp_path, interpretation=KNOWN)
    path = tmp_path / "checkpoints" / "last.safetensors"
    groups, header = checkpoint.load(path)
    last = sorted(n for n in groups["model"] if n.startswith("decoder.network"))[-2:]
    for name in last:
        groups["model"][name].zero_()
    checkpoint.save(path, groups, header)
    got = Run.open(tmp_path).decode(np.random.default_rng(0).normal(size=(3, 2)))
    assert got.shape == (3, 30, 3)
    assert got.dtype == np.float32
    for coords in got:
        np.testing.assert_allclose(coords, sample.model.coords, atol=2e-5)


def test_decoding_in_chunks_is_the_same(trained):
    z = np.random.default_rng(0).normal(size=(7, 2))
    np.testing.assert_allclose(trained.decode(z, chunk=2), trained.decode(z), atol=1e-4)
    np.testing.assert_allclose(trained.decode(z[0])[0], trained.decode(z)[0], atol=1e-4)


@pytest.mark.parametrize("shape", [(3, 3), (3, 1), (2, 2, 2), (5,)])
def test_latents_of_another_shape_are_refused(trained, shape):
    with pytest.raises(InputError, match="do not fit") as caught:
        trained.decode(np.zeros(shape))
    assert "2 columns" in caught.value.remedy


def test_samples_follow_the_prior_and_the_seed(trained):
    z = trained.sample(5000, seed=3)
    assert z.shape == (5000, 2)
    assert z.dtype == np.float32
    assert np.array_equal(z, trained.sample(5000, seed=3))
    assert not np.array_equal(z, trained.sample(5000, seed=4))
    np.testing.assert_allclose(z.std(0), 1.0, atol=0.05)


def test_an_opened_run_is_the_trained_one(trained):
    again = Run.open(trained.path)
    z = np.random.default_rng(1).normal(size=(4, 2))
    assert np.array_equal(again.decode(z), trained.decode(z))
    assert again.step == 24
    assert len(again.model) == 30
    assert len(again.particles) == 120
    assert again.config == trained.config


def test_averaged_weights_are_the_ones_that_decode(sample, tmp_path):
    run = train(
        sample.particles, sample.model, settings(training={"ema": 0.9}), tmp_path, interpretation=KNOWN
    )
    groups, _ = checkpoint.load(tmp_path / "checkpoints" / "last.safetensors")
    name = "decoder.network.0.weight"
    assert torch.equal(run.image_model.state_dict()[name], groups["ema"][name])
    assert not torch.equal(groups["ema"][name], groups["model"][name])


def test_folders_that_are_no_runs(tmp_path, copied):
    with pytest.raises(InputError, match="not a run folder"):
        Run.open(tmp_path / "nothing")
    (copied / "config.yaml").write_text("training: {lr: fast}")
    with pytest.raises(InputError, match="settings cannot be read"):
        Run.open(copied)


def test_a_run_json_cut_short_is_refused(copied):
    (copied / "run.json").write_text('{"status": "trai')
    with pytest.raises(InputError, match="cannot be read"):
        Run.open(copied)


def test_particles_that_changed_since_are_refused(trained, sample, copied, tmp_path):
    """The table lost its last row after training."""
    folder = shutil.copytree(sample.folder, tmp_path / "data")
    lines = (folder / "particles.star").read_text().rstrip().splitlines()
    (folder / "particles.star").write_text("\n".join(lines[:-1]) + "\n")
    text = (copied / "run.json").read_text().replace(str(sample.folder), str(folder))
    (copied / "run.json").write_text(text)
    with pytest.raises(InputError, match="not those of the training"):
        _ = Run.open(copied).particles


def test_without_an_embedding_the_remedy_is_named(trained, copied):
    with pytest.raises(InputError, match="no embedding yet") as caught:
        _ = Run.open(copied).embedding
    assert "cryoscape embed" in caught.value.remedy


@pytest.mark.parametrize("content", [b"", b"not a zip file", b"PK\x03\x04cut"])
def test_a_damaged_embedding_is_refused(tmp_path, content):
    (tmp_path / "embedding.npz").write_bytes(content)
    with pytest.raises(InputError, match="cannot be read"):
        Embedding.read(tmp_path / "embedding.npz")


def test_an_embedding_without_a_column_is_refused(tmp_path):
    np.savez(tmp_path / "embedding.npz", z=np.zeros((3, 2)), uid=np.arange(3))
    with pytest.raises(InputError, match="lacks row, half"):
        Embedding.read(tmp_path / "embedding.npz")
