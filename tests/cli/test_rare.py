"""`cryoscape rare` on short runs."""

import json
import shutil

import gemmi
import mrcfile
import numpy as np
import pytest

from cryoscape.cli.rare import rare
from cryoscape.data.particles import Particles
from cryoscape.errors import InputError
from cryoscape.training.run import Run
from cryoscape.training.train import train
from tests.training.builders import KNOWN, make_sample, settings

FEW = {"candidates": 8, "resamples": 60}


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    # Of another seed than the search: the states would be drawn from the stream of its first resample.
    return make_sample(tmp_path_factory.mktemp("rare") / "data", n=500, share=0.93, snr=1.0, seed=11)


@pytest.fixture(scope="module")
def trained(sample):
    short = {"steps": 200, "batch": 32, "device": "cpu", "precision": "32"}
    folder = sample.folder.parent / "run"
    return train(sample.particles, sample.model, settings(training=short), folder, interpretation=KNOWN).path


def test_a_rare_state_and_its_particles(trained, sample, tmp_path, capsys):
    rare(trained, out=tmp_path, **FEW)
    out = capsys.readouterr().out
    assert "1 rare state" in out
    record = json.loads((tmp_path / "analysis" / "rare.json").read_text())
    (name,) = record["rare"]
    state = next(s for s in record["states"] if s["name"] == name)
    assert state["low"] <= np.mean(sample.state == 1) <= state["high"]
    # Images tell the states apart for certain, so that the interval is that of a count.
    p = np.mean(sample.state == 1)
    assert state["high"] - state["low"] == pytest.approx(2 * 1.96 * np.sqrt(p * (1 - p) / 500), rel=0.3)
    assert state["held_out_nats"] > 2 * state["held_out_error"] > 0
    assert state["more_images_to_detect"] == max(0, int(np.ceil(state["images_to_detect"] - 500)))
    with np.load(tmp_path / "analysis" / "rare.npz") as arrays:
        k = arrays["state"].tolist().index(name)
        probability, listed = arrays["probability"][:, k], arrays["retrieved"][:, k]
        np.testing.assert_allclose(arrays["probability"].sum(axis=1), 1, atol=1e-5)
        np.testing.assert_array_equal(arrays["uid"], sample.particles.uid)
    assert listed.sum() == state["retrieved"] > 10
    assert np.mean(1 - probability[listed]) <= 0.05
    assert np.mean(sample.state[listed] == 1) > 0.8
    model = gemmi.read_structure(str(tmp_path / "ensemble" / "rare.cif"))
    assert len(model) == len(record["states"])
    rows = Particles.read(tmp_path / "particles" / f"rare_{k + 1}.star")
    assert set(rows.uid) == set(sample.particles.uid[listed])
    text = (tmp_path / "particles" / "rare.star").read_text()
    assert f"_cryoscapeRare{k + 1}Probability" in text
    assert (tmp_path / "analysis" / "rare.png").read_bytes().startswith(b"\x89PNG")
    rare(trained, out=tmp_path / "again", **FEW)
    assert json.loads((tmp_path / "again" / "analysis" / "rare.json").read_text()) == record


def test_maps_without_a_rare_state(tmp_path, capsys):
    """One state alone; what an earlier call left is removed."""
    sample = make_sample(tmp_path / "data", n=120, share=1.0)
    config = settings(
        training={"steps": 5, "batch": 16, "device": "cpu", "precision": "32"},
        decoder={"kind": "voxels"},
        encoder={"kind": "image"},
    )
    run = train(sample.particles, None, config, tmp_path / "run", interpretation=KNOWN)
    old = run.path / "particles" / "rare_7.star"
    old.parent.mkdir(exist_ok=True)
    old.write_text("")
    rare(run.path, **FEW)
    assert "no rare state" in capsys.readouterr().out
    assert not old.exists()
    with mrcfile.open(run.path / "maps" / "rare_1.mrc") as mrc:
        assert mrc.data.shape == (run.geometry.box,) * 3
        assert np.isfinite(mrc.data).all()


def test_senseless_questions_are_refused(trained, tmp_path):
    for words, said in (({"fdr": 0.0}, "discovery"), ({"fdr": 1.5}, "discovery"), ({"candidates": 1}, "few")):
        with pytest.raises(InputError, match=said):
            rare(trained, out=tmp_path / "out", **words)
        assert not (tmp_path / "out").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="not a folder"):
        rare(trained, out=tmp_path / "file")


def test_no_embedding_and_no_nats(trained, sample, tmp_path):
    run = shutil.copytree(trained, tmp_path / "run")
    (run / "embedding.npz").unlink()
    with pytest.raises(InputError, match="embedding"):
        rare(run, **FEW)
    config = settings(
        training={"steps": 2, "batch": 16, "device": "cpu", "precision": "32"},
        likelihood={"kind": "correlation"},
    )
    path = train(sample.particles, sample.model, config, tmp_path / "cc", interpretation=KNOWN).path
    with pytest.raises(InputError, match="not in nats"):
        rare(Run.open(path).path, **FEW)
