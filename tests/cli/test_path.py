"""`cryoscape path` on short runs."""

import json
import shutil

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.torch import save_file

from cryoscape.structures.ensemble import read_ensemble
from cryoscape.training.run import Run
from cryoscape.training.train import train
from tests.cli.test_landscape import last_layer
from tests.training.builders import KNOWN, make_sample, settings

FEW = ["--candidates", 8, "--resamples", 20, "--bins", 10, "--frames", 6]
ENDS = ["--from", 3, "--to", 40]
SHORT = {"steps": 2, "batch": 16, "device": "cpu", "precision": "32"}
# Smooth, as trained networks nearly are and those a hundred times as loud as they began are not.
SMOOTH = {"kind": "atomic", "hidden": (16,), "activation": "silu"}


def louder(run, chosen, factor):
    """So short a training moves hardly anything: make its motion that of a molecule, and spread its codes."""
    path = run.path / "checkpoints" / "last.safetensors"
    with safe_open(path, "pt") as stored:
        names = stored.keys()
        tensors, header = {name: stored.get_tensor(name) for name in names}, stored.metadata()
    for name in chosen(tensors):
        tensors[name] *= factor
    save_file(tensors, path, header)
    with np.load(run.path / "embedding.npz") as stored:
        columns = dict(stored)
    rng = np.random.default_rng(0)
    side = np.where(np.arange(len(columns["z"])) % 3 == 0, 1.5, -1.0)
    columns["z"] = (0.5 * rng.standard_normal(columns["z"].shape)).astype(np.float32)
    columns["z"][:, 0] += side
    columns["z_sd"] = np.full_like(columns["z"], 0.3)
    np.savez(run.path / "embedding.npz", **columns)
    return run.path


def volumes(tensors):
    return [name for name in tensors if "decoder" in name and tensors[name].ndim > 2]


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    return make_sample(tmp_path_factory.mktemp("path") / "data")


@pytest.fixture(scope="module")
def trained(sample):
    run = train(
        sample.particles,
        sample.model,
        settings(training=SHORT, decoder=SMOOTH),
        sample.folder.parent / "run",
        interpretation=KNOWN,
    )
    return louder(run, last_layer, 100)


def test_between_the_two_largest_states(trained, cli, tmp_path):
    run = shutil.copytree(trained, tmp_path / "run")
    code, out, err = cli("path", run, "--cv", "rg A", *FEW)
    assert code == 0, err
    assert "from state_1 to state_2" in out
    assert "is not a rate" in out
    assert "string" in err
    record = json.loads((run / "analysis/path.json").read_text())
    assert record["unit"] == "A"
    assert [way["name"] for way in record["ways"]] == ["minimum free energy", "straight"]
    found, straight = record["ways"]
    assert found["highest_free_energy_kt"] <= straight["highest_free_energy_kt"] + 0.1
    assert (run / "analysis/path.png").read_bytes().startswith(b"\x89PNG")
    coords = read_ensemble(run / "ensemble/path.cif")
    with np.load(run / "analysis/path.npz") as arrays:
        frames, travelled = arrays["frames"], arrays["frame_travelled"]
        values = arrays["values"]
        z, along = arrays["minimum_free_energy_z"], arrays["minimum_free_energy_travelled"]
    decoded = Run.open(run).decode(frames)
    np.testing.assert_allclose(coords, decoded, atol=2e-3)
    # Lengths are those of these very structures, and frames are equally spaced.
    fine = Run.open(run).decode(z).astype(float)
    chords = np.sqrt(np.square(np.diff(fine, axis=0)).sum(-1).mean(-1))
    np.testing.assert_allclose(np.diff(along), chords, rtol=0.01)
    np.testing.assert_allclose(np.diff(travelled), np.diff(travelled).mean(), rtol=0.02)
    assert travelled[-1] == pytest.approx(found["length"])
    centred = decoded - decoded.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(values[0], np.sqrt(np.square(centred).sum(-1).mean(-1)), rtol=1e-3)
    geometry = record["frames"]["geometry"]
    bonds = np.linalg.norm(np.diff(decoded, axis=1), axis=-1)
    own = np.linalg.norm(np.diff(Run.open(run).structure.coords, axis=0), axis=-1)
    np.testing.assert_allclose(geometry["bond_worst"], np.abs(bonds - own).max(axis=1), rtol=1e-3)
    assert len(record["frames"]["nats_to_next"]) == 5
    barrier = record["barrier"]
    assert barrier["forth_kt"]["low"] <= barrier["forth_kt"]["high"]
    total = sum(record["profile"]["population"]) + record["elsewhere"]
    assert total == pytest.approx(1, abs=0.02)


def test_between_two_particles_elsewhere_and_the_same_again(trained, cli, tmp_path):
    for name in ("a", "b"):
        code, out, err = cli("path", trained, *ENDS, *FEW, "-o", tmp_path / name)
        assert code == 0, err
    assert "from particle 3 to particle 40" in out
    found = [np.load(tmp_path / name / "path.npz") for name in ("a", "b")]
    for key in found[0].files:
        np.testing.assert_array_equal(found[0][key], found[1][key])
    z = Run.open(trained).embedding.z
    np.testing.assert_allclose(found[0]["frames"][[0, -1]], z[[3, 40]], atol=1e-4)
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert names == ["path.cif", "path.json", "path.npz", "path.png"]


def test_states_of_the_landscape(trained, cli, tmp_path):
    run = shutil.copytree(trained, tmp_path / "run")
    cv = "distance A:1 A:30"
    ends = Run.open(run).decode(Run.open(run).embedding.z)[:, [0, 29]]
    value = np.linalg.norm(ends[:, 1] - ends[:, 0], axis=-1)
    cut = float(0.5 * (value.min() + value.max()))
    states = ["--state", f"near: {cv} < {cut}", "--state", f"far: {cv} > {cut}"]
    few = ["--candidates", 8, "--resamples", 20, "--bins", 10]
    assert cli("landscape", run, "--cv", cv, *few, *states)[0] == 0
    code, out, err = cli("path", run, "--from", "near", *FEW)
    assert code == 0, err
    assert "from near to far" in out
    code, _, err = cli("path", run, "--from", "middle", *FEW)
    assert code == 2
    assert "near, far" in err


def test_a_flow_prior_has_a_third_way(sample, cli, tmp_path):
    config = settings(training=SHORT, decoder=SMOOTH, prior={"kind": "flow", "start": 0.0})
    path = louder(
        train(sample.particles, sample.model, config, tmp_path / "run", interpretation=KNOWN), last_layer, 100
    )
    code, out, err = cli("path", path, *ENDS, *FEW)
    assert code == 0, err
    assert "probability flow" in out
    assert "the flow prior of the run" in out


@pytest.mark.parametrize("decoder", ["voxels", "field"])
def test_maps(sample, cli, tmp_path, decoder):
    kind = {"kind": decoder} | ({"hidden": (8, 8)} if decoder == "field" else {})
    config = settings(training=SHORT, decoder=kind, encoder={"kind": "image"})
    chosen = volumes if decoder == "voxels" else (lambda _: [])
    run = train(sample.particles, None, config, tmp_path / "run", interpretation=KNOWN)
    path = louder(run, chosen, 5)
    code, out, err = cli("path", path, *ENDS, *FEW)
    assert code == 0, err
    assert "of the map" in out
    maps = sorted(path.name for path in (path / "maps").glob("path_*.mrc"))
    assert maps == [f"path_{k:02d}.mrc" for k in range(1, 7)]
    record = json.loads((path / "analysis/path.json").read_text())
    assert record["frames"]["geometry"] is None


def test_bits_and_a_likelihood_without_noise(sample, cli, tmp_path):
    config = settings(training=SHORT, prior={"kind": "rbm"})
    run = train(sample.particles, sample.model, config, tmp_path / "bits", interpretation=KNOWN)
    code, _, err = cli("path", run.path, *ENDS)
    assert code == 2
    assert "bits" in err
    config = settings(training=SHORT, decoder=SMOOTH, likelihood={"kind": "correlation"})
    run = train(sample.particles, sample.model, config, tmp_path / "run", interpretation=KNOWN)
    code, out, err = cli("path", louder(run, last_layer, 100), *ENDS, *FEW)
    assert code == 0, err
    assert "not in nats" in out
    record = json.loads((tmp_path / "run/analysis/path.json").read_text())
    assert all(record["profile"]["unresolved"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--from", 3, "--to", 3], "the same"),
        (["--from", 3, "--to", 100000], "not in the embedding"),
        (["--from", "open", "--to", 3], "no state 'open'"),
        ([*ENDS, "--frames", 2], "--frames 2 is too few"),
        ([*ENDS, "--candidates", 2], "--candidates 2 is too few"),
        ([*ENDS, "--bins", 2], "--bins 2 is too few"),
        ([*ENDS, "--resamples", 2], "--resamples 2 is too few"),
        ([*ENDS, "--cv", "length A:1 A:3"], "no collective variable"),
        ([*ENDS, "--seed", "x"], "nvalid"),
    ],
)
def test_senseless_questions_are_refused(trained, cli, tmp_path, words, said):
    code, _, err = cli("path", trained, *words, "-o", tmp_path / "out")
    assert code == 2
    assert said in err
    assert not (tmp_path / "out").exists()


def test_one_state_no_embedding_no_run_and_no_folder(trained, cli, tmp_path):
    run = shutil.copytree(trained, tmp_path / "run")
    with np.load(run / "embedding.npz") as stored:
        columns = dict(stored)
    columns["z"] = (0.9 * np.random.default_rng(0).standard_normal(columns["z"].shape)).astype(np.float32)
    np.savez(run / "embedding.npz", **columns)
    code, _, err = cli("path", run)
    assert code == 2
    assert "this run has 1 state" in err
    (run / "embedding.npz").unlink()
    code, _, err = cli("path", run)
    assert code == 2
    assert "embedding" in err
    code, _, err = cli("path", tmp_path)
    assert code == 2
    assert "not a run folder" in err
    (tmp_path / "file").write_text("")
    code, _, err = cli("path", trained, "-o", tmp_path / "file")
    assert code == 2
    assert "not a folder" in err
