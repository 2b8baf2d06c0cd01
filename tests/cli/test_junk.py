"""`cryoscape junk` on short runs of a set with some empty images."""

import json
import shutil

import mrcfile
import numpy as np
import pytest

from cryoscape.analysis.junk.mixture import CLASSES
from cryoscape.data.particles import Particles
from cryoscape.training.train import train
from tests.training.builders import KNOWN, make_sample, settings

EMPTY = 30
FEW = ["--candidates", 4, "--resamples", 40]
SHORT = {"steps": 2, "batch": 16, "device": "cpu", "precision": "32"}


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    made = make_sample(tmp_path_factory.mktemp("junk") / "data", n=150)
    with mrcfile.mmap(made.folder / "particles.mrcs", mode="r+") as mrc:
        mrc.data[:EMPTY] = np.random.default_rng(9).normal(size=(EMPTY, *mrc.data.shape[1:]))
    return made


@pytest.fixture(scope="module")
def trained(sample):
    folder = sample.folder.parent / "run"
    config = settings(training=SHORT)
    return train(sample.particles, sample.model, config, folder, interpretation=KNOWN).path


def test_empty_images_are_called_junk(trained, cli):
    code, out, err = cli("junk", trained, *FEW)
    assert code == 0, err
    assert "images are junk" in out
    assert "intervals by particles" in out
    assert "called junk" in out
    assert "compare images" in err
    folder = trained / "analysis"
    assert (folder / "junk.png").read_bytes().startswith(b"\x89PNG")
    record = json.loads((folder / "junk.json").read_text())
    assert record["junk_share_low"] < EMPTY / 150 < record["junk_share_high"]
    assert sum(row["share"] for row in record["classes"]) == pytest.approx(1)
    with np.load(folder / "junk.npz") as arrays:
        odds, called, posterior = arrays["log_odds"], arrays["called"], arrays["posterior"]
        z, uid = arrays["residual_z"], arrays["uid"]
    assert np.median(odds[:EMPTY]) > 3
    assert np.median(odds[EMPTY:]) < -3
    assert called[:EMPTY].mean() > 0.9
    np.testing.assert_allclose(posterior.sum(axis=1), 1)
    assert np.median(posterior[:EMPTY].argmax(axis=1)) == CLASSES.index("noise")
    assert abs(z[EMPTY:].mean()) < 1
    scored, kept = (Particles.read(folder / f"particles_{name}.star") for name in ("scored", "kept"))
    np.testing.assert_array_equal(scored.uid, uid)
    np.testing.assert_array_equal(kept.uid, uid[~called])
    text = (folder / "particles_scored.star").read_text()
    for column in ("Junk", "JunkProbability", "LogOddsContaminant", "ResidualZ", "LogPrior", "Amplitude"):
        assert f"_cryoscape{column} #" in text


def test_the_same_again_in_another_folder_at_another_rate(trained, cli, tmp_path):
    for name in ("a", "b"):
        assert cli("junk", trained, *FEW, "--fdr", 0.3, "-o", tmp_path / name)[0] == 0
    found = [np.load(tmp_path / name / "junk.npz") for name in ("a", "b")]
    for key in found[0].files:
        np.testing.assert_array_equal(found[0][key], found[1][key])
    with np.load(trained / "analysis" / "junk.npz") as strict:
        assert strict["called"].sum() < found[0]["called"].sum()
    probability, called = found[0]["probability"], found[0]["called"]
    assert (1 - probability[called]).mean() <= 0.3


def test_maps(sample, cli, tmp_path):
    config = settings(training=SHORT, decoder={"kind": "voxels"}, encoder={"kind": "image"})
    run = train(sample.particles, None, config, tmp_path / "run", interpretation=KNOWN)
    code, _, err = cli("junk", run.path, *FEW)
    assert code == 0, err
    with np.load(run.path / "analysis" / "junk.npz") as arrays:
        odds = arrays["log_odds"]
    assert np.median(odds[:EMPTY]) > np.median(odds[EMPTY:]) + 3


def test_a_likelihood_that_is_not_in_nats_is_measured_anew(sample, cli, tmp_path):
    config = settings(training=SHORT, likelihood={"kind": "correlation"})
    run = train(sample.particles, sample.model, config, tmp_path / "run", interpretation=KNOWN)
    code, out, err = cli("junk", run.path, *FEW)
    assert code == 0, err
    assert "warning: the correlation likelihood of the run is not in nats" in out
    with np.load(run.path / "analysis" / "junk.npz") as arrays:
        assert arrays["called"][:EMPTY].mean() > 0.9


def test_a_set_without_any_particle(cli, tmp_path):
    empty = make_sample(tmp_path / "data", n=150, snr=0)
    run = train(
        empty.particles, empty.model, settings(training=SHORT), tmp_path / "run", interpretation=KNOWN
    )
    code, out, err = cli("junk", run.path, *FEW)
    assert code == 0, err
    assert "not told apart" in out or "look at poses and structures" in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--fdr", 0], "--fdr 0 is no rate"),
        (["--fdr", 1.5], "--fdr 1.5 is no rate"),
        (["--fdr", "x"], "nvalid"),
        (["--candidates", 0], "--candidates 0 is too few"),
        (["--resamples", 3], "--resamples 3 is too few"),
    ],
)
def test_senseless_questions_are_refused(trained, cli, tmp_path, words, said):
    code, _, err = cli("junk", trained, *words, "-o", tmp_path / "out")
    assert code == 2
    assert said in err
    assert not (tmp_path / "out").exists()


def test_no_embedding_no_run_and_no_folder(trained, cli, tmp_path):
    run = shutil.copytree(trained, tmp_path / "run")
    (run / "embedding.npz").unlink()
    code, _, err = cli("junk", run)
    assert code == 2
    assert "cryoscape embed RUN" in err
    code, _, err = cli("junk", tmp_path)
    assert code == 2
    assert "not a run folder" in err
    (tmp_path / "file").write_text("")
    code, _, err = cli("junk", trained, "-o", tmp_path / "file")
    assert code == 2
    assert "not a folder" in err
