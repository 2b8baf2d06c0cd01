"""`cryoscape landscape` on short runs."""

import json
import shutil

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.torch import save_file

from cryoscape.data.particles import Particles
from cryoscape.training.run import Run
from cryoscape.training.train import train
from tests.training.builders import KNOWN, make_sample, settings

CV = "distance A:1 A:30"
FEW = ["--candidates", 8, "--resamples", 20, "--bins", 12]
SHORT = {"steps": 2, "batch": 16, "device": "cpu", "precision": "32"}


def louder(run, chosen, factor):
    """So short a training moves hardly anything: make its motion that of a molecule."""
    path = run.path / "checkpoints" / "last.safetensors"
    with safe_open(path, "pt") as stored:
        names = stored.keys()
        tensors, header = {name: stored.get_tensor(name) for name in names}, stored.metadata()
    for name in chosen(tensors):
        tensors[name] *= factor
    save_file(tensors, path, header)
    return run.path


def last_layer(tensors):
    return [max(n for n in tensors if n.startswith("model/decoder.network.") and n.endswith("weight"))]


def volumes(tensors):
    return [name for name in tensors if "decoder" in name and tensors[name].ndim > 3]


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    return make_sample(tmp_path_factory.mktemp("landscape") / "data")


@pytest.fixture(scope="module")
def trained(sample):
    config = settings(training=SHORT)
    folder = sample.folder.parent / "run"
    return louder(
        train(sample.particles, sample.model, config, folder, interpretation=KNOWN), last_layer, 100
    )


def test_one_variable(trained, cli):
    code, out, err = cli("landscape", trained, "--cv", CV, *FEW)
    assert code == 0, err
    assert "vitrified sample" in out
    assert "dG, kT" in out
    assert "cannot resolve this profile finer than" in out
    assert "bootstrap" in err
    folder = trained / "analysis"
    assert (folder / "landscape.png").read_bytes().startswith(b"\x89PNG")
    record = json.loads((folder / "landscape.json").read_text())
    assert "vitrified" in record["what"]
    assert record["drawn_by"] == "particle"
    assert len(record["population"]) == 12
    assert sum(s["population"] for s in record["states"]) + record["elsewhere"] == pytest.approx(1)
    for state in record["states"]:
        assert state["low"] <= state["population"] + 0.05
        assert state["high"] >= state["population"] - 0.05
    with np.load(folder / "landscape.npz") as arrays:
        member, uid = arrays["membership"], arrays["uid"]
        distance = arrays["values"][0]
        z = arrays["z"]
    assert member.shape == (120, len(record["states"]))
    np.testing.assert_allclose(member.sum(axis=1), 1, atol=1e-5)
    np.testing.assert_array_equal(uid, Run.open(trained).particles.uid)
    coords = Run.open(trained).decode(z)
    np.testing.assert_allclose(distance[:8], np.linalg.norm(coords[:, 29] - coords[:, 0], axis=1), rtol=1e-5)


def test_own_states_two_variables_and_the_same_again(trained, cli, tmp_path):
    with np.load(trained / "analysis" / "landscape.npz") as arrays:
        cut = round(float(np.median(arrays["values"][0])), 2)
    states = ["--state", f"near: {CV} < {cut}", "--state", f"far: {CV} > {cut}", "--state", "far: rg > 1"]
    words = ["landscape", trained, "--cv", CV, "--cv", "rg", *FEW, *states]
    for name in ("a", "b"):
        code, out, err = cli(*words, "-o", tmp_path / name)
        assert code == 0, err
    assert f"{CV} > {cut} and rg > 1" in out
    found = [np.load(tmp_path / name / "landscape.npz") for name in ("a", "b")]
    for key in found[0].files:
        np.testing.assert_array_equal(found[0][key], found[1][key])
    assert found[0]["free_energy"].shape == (12, 12)
    record = json.loads((tmp_path / "a" / "landscape.json").read_text())
    fine, value = found[0]["fine_weight"], found[0]["values"][0]
    assert record["states"][0]["population"] == pytest.approx(fine[value < cut].sum(), abs=1e-3)
    assert (tmp_path / "a" / "landscape.png").is_file()


def test_images_of_a_micrograph_stay_together(trained, cli, tmp_path, monkeypatch):
    read = Particles.read

    def with_micrographs(*args, **kwargs):
        found = read(*args, **kwargs)
        found.micrograph[:] = np.arange(len(found)) // 5
        return found

    monkeypatch.setattr(Particles, "read", with_micrographs)
    code, out, err = cli("landscape", trained, "--cv", CV, *FEW, "-o", tmp_path)
    assert code == 0, err
    assert "intervals by 24 micrographs" in out
    assert json.loads((tmp_path / "landscape.json").read_text())["micrographs"] == 24


def test_maps(sample, cli, tmp_path):
    """A run that decodes maps, along the occupancy of a mask over the part that moves."""
    import mrcfile

    config = settings(training=SHORT, decoder={"kind": "voxels"}, encoder={"kind": "image"})
    path = louder(train(sample.particles, None, config, tmp_path / "run", interpretation=KNOWN), volumes, 5)
    run = Run.open(path)
    box = run.geometry.box
    mask = np.zeros((box,) * 3, dtype=np.float32)
    mask[: box // 2] = 1
    with mrcfile.new(tmp_path / "mask.mrc") as mrc:
        mrc.set_data(mask)
        mrc.voxel_size = run.geometry.pixel_size
        mrc.header.origin = run.geometry.map_origin
    cv = f"occupancy {tmp_path / 'mask.mrc'}"
    code, out, err = cli("landscape", path, "--cv", cv, *FEW)
    assert code == 0, err
    assert "vitrified sample" in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "--cv"),
        (["--cv", CV, "--cv", "rg", "--cv", "rg A"], "one or two"),
        (["--cv", "distance A:1 B:3"], "no chain 'B'"),
        (["--cv", "length A:1 A:3"], "no collective variable"),
        (["--cv", "distance A:1 A:1"], "same residues"),
        (["--cv", CV, "--bins", 2], "--bins 2 is too few"),
        (["--cv", CV, "--candidates", 1], "--candidates 1 is too few"),
        (["--cv", CV, "--resamples", 3], "--resamples 3 is too few"),
        (["--cv", CV, "--state", f"{CV} < 20"], "names no state"),
        (["--cv", CV, "--state", f"a: {CV} < 1"], "nothing that the run decodes is in the state 'a'"),
        (["--cv", CV, "--state", f"a: {CV} > 1", "--state", f"b: {CV} > 0"], "overlap"),
        (["--cv", CV, "--state", f"a: {CV}"], "says no limits"),
        (["--cv", CV, "--seed", "x"], "nvalid"),
    ],
)
def test_senseless_questions_are_refused(trained, cli, tmp_path, words, said):
    code, _, err = cli("landscape", trained, *words, "-o", tmp_path / "out")
    assert code == 2
    assert said in err
    assert not (tmp_path / "out").exists()


def test_no_embedding_no_run_and_no_folder(trained, cli, tmp_path):
    run = shutil.copytree(trained, tmp_path / "run")
    (run / "embedding.npz").unlink()
    code, _, err = cli("landscape", run, "--cv", CV)
    assert code == 2
    assert "embedding" in err
    code, _, err = cli("landscape", tmp_path, "--cv", CV)
    assert code == 2
    assert "not a run folder" in err
    (tmp_path / "file").write_text("")
    code, _, err = cli("landscape", trained, "--cv", CV, "-o", tmp_path / "file")
    assert code == 2
    assert "not a folder" in err


def test_a_variable_that_does_not_change(sample, cli, tmp_path):
    still = train(
        sample.particles, sample.model, settings(training=SHORT), tmp_path / "run", interpretation=KNOWN
    )
    code, _, err = cli("landscape", still.path, "--cv", CV, *FEW)
    assert code == 2
    assert "does not change" in err


def test_the_report_shows_it(trained, tmp_path, cli):
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    assert cli("landscape", run, "--cv", CV, *FEW)[0] == 0
    assert cli("report", run)[0] == 0
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "Populations and free energy of the vitrified sample" in page
    record = json.loads((run / "analysis/landscape.json").read_text())
    assert all(f"<td>{state['name']}</td>" in page for state in record["states"])
    (run / "analysis/landscape.json").write_text("{")
    code, _, err = cli("report", run)
    assert code == 2
    assert "landscape.json" in err
