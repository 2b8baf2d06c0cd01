"""`cryoscape states` on a short run."""

import shutil

import mrcfile
import numpy as np
import pytest

from cryoscape.training.train import train
from tests.training.builders import KNOWN, make_sample, settings


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("states")
    sample = make_sample(folder / "data")
    few = {"steps": 2, "batch": 16, "device": "cpu", "precision": "32"}
    run = train(sample.particles, sample.model, settings(training=few), folder / "run", interpretation=KNOWN)
    np.save(folder / "weights.npy", np.eye(2)[sample.state])
    return run.path, folder / "weights.npy"


def test_states_of_given_weights(trained, cli):
    run, weights = trained
    code, out, err = cli("states", run, "--weights", weights, "--b-factor", -80)
    assert code == 0, err
    assert "state_2" in out
    assert "own model best" in out
    assert "back-project" in err
    files = {path.name for path in (run / "states").iterdir()}
    assert {"fsc.png", "specificity.png", "states.json", "particles.star"} <= files
    for name in ("state_1.mrc", "state_2_half1.mrc", "state_2_half2.mrc", "state_1_mask.mrc"):
        with mrcfile.open(run / "states" / name) as mrc:
            assert mrc.is_volume()
            assert np.isfinite(mrc.data).all()
    code, out, _ = cli("states", run, "--states", 1)
    assert code == 0
    assert "one state" in out
    files = {path.name for path in (run / "states").iterdir()}
    assert "state_1.mrc" in files
    assert not any(name.startswith("state_2") for name in files)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--states", 0), "--states a number from 1"),
        (("--states", 100), "--states a number from 1"),
        (("--states", 2, "--weights", "w.npy"), "exclude each other"),
        (("--weights", "missing.npy"), "cannot be read"),
        (("--box", "huge"), "--box"),
    ],
)
def test_bad_options_end_with_a_remedy(trained, cli, words, said):
    code, _, err = cli("states", trained[0], *words)
    assert code == 2
    assert said in err


def test_a_run_without_embedding(trained, cli, tmp_path):
    run = shutil.copytree(trained[0], tmp_path / "run")
    (run / "embedding.npz").unlink()
    code, _, err = cli("states", run)
    assert code == 2
    assert "cryoscape embed RUN" in err
