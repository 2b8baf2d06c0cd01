"""`cryoscape states` on a short run."""

import json
import shutil

import mrcfile
import numpy as np
import pytest

from cryoscape.analysis.landscape.membership import file_names
from cryoscape.training.run import Run
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


def with_landscape(run, state, names=("state 1", "far off"), **changed):
    """A landscape of the particles of a run, as `cryoscape landscape` writes it."""
    arrays = {"membership": 0.9 * np.eye(2, dtype=np.float32)[state], "uid": Run.open(run).embedding.uid}
    (run / "analysis").mkdir(exist_ok=True)
    np.savez(run / "analysis" / "landscape.npz", **(arrays | changed))
    states = [{"name": name, "population": share} for name, share in zip(names, (0.3, 0.7))]
    (run / "analysis" / "landscape.json").write_text(json.dumps({"states": states}))


def test_states_of_the_landscape(trained, cli, tmp_path):
    run = shutil.copytree(trained[0], tmp_path / "run")
    state = np.load(trained[1]).argmax(axis=1)
    with_landscape(run, state)
    code, out, err = cli("states", run, "--landscape", "--b-factor", -80)
    assert code == 0, err
    assert "far_off" in out
    record = json.loads((run / "states" / "states.json").read_text())
    assert [s["name"] for s in record["states"]] == ["state_1", "far_off"]
    assert [s["share"] for s in record["states"]] == [0.3, 0.7]
    assert [s["images"] for s in record["states"]] == pytest.approx([0.9 * sum(state == k) for k in (0, 1)])
    assert record["membership"] == "the landscape"


def test_a_landscape_that_does_not_fit_is_refused(trained, cli, tmp_path):
    run = shutil.copytree(trained[0], tmp_path / "run")
    shutil.rmtree(run / "states", ignore_errors=True)
    for name in ("landscape.json", "landscape.npz"):
        (run / "analysis" / name).unlink(missing_ok=True)
    state = np.load(trained[1]).argmax(axis=1)

    def refused(said, *words):
        code, _, err = cli("states", run, "--landscape", *words)
        assert code == 2
        assert said in err
        assert "->" in err
        assert not (run / "states").exists()

    refused("there is no landscape yet")
    with_landscape(run, state, uid=np.arange(len(state), dtype=np.uint64))
    refused("of other particles")
    with_landscape(run, state, names=("one",))
    refused("do not belong together")
    with_landscape(run, (np.arange(len(state)) % 30 != 0).astype(int))
    refused("too few for a map")
    (run / "analysis" / "landscape.npz").write_bytes(b"no")
    refused("cannot be read")
    refused("excludes", "--states", 2)


def test_names_of_states_become_names_of_files():
    assert file_names(["state 1", "closed/half", "closed half", "  "]) == (
        "state_1", "closed_half", "closed_half_2", "state",
    )  # fmt: skip


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
