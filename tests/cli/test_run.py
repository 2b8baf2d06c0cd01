"""One small run through the command line: train, decode, embed, evaluate, resume."""

import json
import os
import shutil
import signal

import gemmi
import numpy as np
import pytest

from cryoscape.cli.main import main
from cryoscape.data.mrc import read_map
from cryoscape.structures.atomic_model import AtomicModel

Z_DIM = 3
SMALL = ["--steps", 6, "--batch", 16, "--encoder.hidden", "[16]", "--decoder.hidden", "[16]"]
TRAIN = ["--z-dim", Z_DIM, *SMALL]


def call(*words):
    return main([str(word) for word in words])


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    folder = tmp_path_factory.mktemp("simulated") / "data"
    size = ["--particles", 150, "--box", 32, "--pixel", 4, "--snr", 0.5, "--states", 5]
    assert call("simulate", "hinge", "-o", folder, *size) == 0
    return folder


@pytest.fixture(scope="module")
def trained(simulated, tmp_path_factory):
    run = tmp_path_factory.mktemp("trained") / "run"
    assert train(simulated, run) == 0
    return run


def train(simulated, run, *more):
    return call(*start(simulated, run), *TRAIN, *more)


def start(simulated, run):
    return ["train", simulated / "particles.star", "--model", simulated / "reference.cif", "-o", run]


@pytest.fixture
def copy(trained, tmp_path):
    """A run that a test may change."""
    return shutil.copytree(trained, tmp_path / "run")


def test_simulation_leaves_the_named_files(simulated):
    assert {p.name for p in simulated.iterdir()} == {
        "particles.star",
        "particles.mrcs",
        "reference.cif",
        "truth.npz",
    }


def test_run_folder_holds_what_the_contract_names(trained):
    for name in (
        "config.yaml",
        "run.json",
        "metrics.csv",
        "embedding.npz",
        "checkpoints/last.safetensors",
        "ensemble/pc1.cif",
        "ensemble/clusters.cif",
        "analysis/analysis.json",
        "open_in_chimerax.cxc",
        "report.html",
        "preflight.json",
    ):
        assert (trained / name).stat().st_size > 0, name
    with np.load(trained / "embedding.npz") as stored:
        assert stored["z"].shape == stored["z_sd"].shape == (150, Z_DIM)
        assert len(set(stored["uid"])) == 150
        np.testing.assert_array_equal(stored["row"], np.arange(150))


def test_decode_all(trained, simulated, tmp_path):
    out = tmp_path / "all.npz"
    assert call("decode", trained, "--particles", "all", "-o", out) == 0
    with np.load(out) as decoded, np.load(simulated / "truth.npz") as truth:
        assert decoded["coords"].dtype == np.float32
        assert decoded["coords"].shape == (150, truth["coords"].shape[1], 3)
        np.testing.assert_array_equal(decoded["row"], np.arange(150))
        # The frame of the file as given: near the true structures, which share it, not 64 A away.
        centre = decoded["coords"].mean(axis=(0, 1))
        assert np.abs(centre - truth["coords"].mean(axis=(0, 1))).max() < 5


def test_decode_points(trained, tmp_path):
    z = np.random.default_rng(0).normal(size=(300, Z_DIM))
    np.save(tmp_path / "z.npy", z)
    assert call("decode", trained, "--z", tmp_path / "z.npy", "-o", tmp_path / "few.npz") == 0
    assert call("decode", trained, "--z", tmp_path / "z.npy", "-o", tmp_path / "few.cif") == 0
    coords = np.load(tmp_path / "few.npz")["coords"]
    models = gemmi.read_structure(str(tmp_path / "few.cif"))
    assert len(models) == len(coords) == 300
    first = np.array([atom.pos.tolist() for chain in models[299] for residue in chain for atom in residue])
    np.testing.assert_allclose(first, coords[299], atol=2e-3)


def test_decode_structures_to_maps(trained, simulated, tmp_path):
    np.save(tmp_path / "z.npy", np.zeros((2, Z_DIM), dtype="f4"))
    words = ["--z", tmp_path / "z.npy", "-o", tmp_path / "map.mrc"]
    assert call("decode", trained, *words) == 0
    found = read_map(tmp_path / "map_001.mrc")
    # The density lies where the model file has its residues.
    z, y, x = np.indices(found.data.shape)
    weight = np.clip(found.data, 0, None)
    centre = np.array([(axis * weight).sum() for axis in (x, y, z)]) / weight.sum()
    model = AtomicModel.read(simulated / "reference.cif")
    away = found.origin + centre * found.voxel_size - model.coords.mean(axis=0)
    assert np.abs(away).max() < 6.0


@pytest.mark.parametrize("kind", ["star", "npy", "txt"])
def test_decode_some_particles(trained, simulated, tmp_path, kind):
    rows = [7, 3, 140]
    which = tmp_path / f"some.{kind}"
    if kind == "star":
        lines = (simulated / "particles.star").read_text().splitlines()
        first = next(i for i, line in enumerate(lines) if "@" in line)
        chosen = [lines[first + row] for row in rows]
        which.write_text("\n".join([*lines[:first], *chosen, ""]))
    elif kind == "npy":
        np.save(which, rows)
    else:
        np.savetxt(which, rows, fmt="%d")
    assert call("decode", trained, "--particles", "all", "-o", tmp_path / "all.npz") == 0
    words = ["--particles", which, "--datadir", simulated, "-o", tmp_path / "some.npz"]
    assert call("decode", trained, *words) == 0
    every, some = np.load(tmp_path / "all.npz"), np.load(tmp_path / "some.npz")
    np.testing.assert_allclose(some["coords"], every["coords"][rows], atol=1e-4)
    np.testing.assert_array_equal(some["uid"], every["uid"][rows])


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (np.zeros((4, Z_DIM + 1)), "shape (4, 4)"),
        (np.zeros(4), "shape (4,)"),
        (np.full((2, Z_DIM), np.nan), "finite"),
        (np.array([["a"] * Z_DIM]), "finite numbers"),
    ],
)
def test_points_that_cannot_be_decoded(trained, tmp_path, cli, points, message):
    np.save(tmp_path / "z.npy", points)
    code, _, err = cli("decode", trained, "--z", tmp_path / "z.npy", "-o", tmp_path / "out.npz")
    assert code == 2
    assert message in err
    assert "z.npy" in err
    assert not (tmp_path / "out.npz").exists()


def test_what_to_decode_must_be_clear(trained, tmp_path, cli):
    np.savetxt(tmp_path / "rows.txt", [3, 150], fmt="%d")
    out = tmp_path / "out.npz"
    for words, message in (
        (["-o", out], "either --particles or --z"),
        (["--particles", "all", "-o", tmp_path / "out.xyz"], "out.xyz"),
        (["--particles", tmp_path / "rows.txt", "-o", out], "rows.txt, row 2"),
        (["--particles", tmp_path / "none.star", "-o", out], "none.star"),
        (["--z", tmp_path / "none.npy", "-o", out], "none.npy"),
    ):
        code, _, err = cli("decode", trained, *words)
        assert code == 2
        assert message in err
    assert [p.name for p in tmp_path.iterdir()] == ["rows.txt"]


def test_full_disk_while_decoding(trained, tmp_path, cli):
    """A limit on the size of files stands in for the full disk: the write fails half-way."""
    import resource

    np.save(tmp_path / "z.npy", np.zeros((2000, Z_DIM)))
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, old[1]))
        code, _, err = cli("decode", trained, "--z", tmp_path / "z.npy", "-o", tmp_path / "out.npz")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
        signal.signal(signal.SIGXFSZ, ignored)
    assert code == 2
    assert "disk is full" in err
    assert [p.name for p in tmp_path.iterdir()] == ["z.npy"]


def test_embed_other_particles(copy, simulated, cli):
    before = (copy / "embedding.npz").read_bytes()
    code, _, err = cli("embed", copy, simulated / "particles.star", "-o", copy / "more.npz")
    assert code == 0, err
    assert (copy / "embedding.npz").read_bytes() == before
    with np.load(copy / "more.npz") as more, np.load(copy / "embedding.npz") as own:
        np.testing.assert_allclose(more["z"], own["z"], atol=1e-4)


def test_evaluate_writes_json(copy, simulated, cli):
    numbers = copy / "numbers.json"
    code, out, err = cli("evaluate", copy, "--truth", simulated / "truth.npz", "--json", numbers)
    assert code == 0, err
    found = json.loads(numbers.read_text())
    assert 0 < found["rmsd"] < 20
    assert f"{found['rmsd']:.2f}" in out


def test_evaluate_without_truth(trained, tmp_path, cli):
    code, _, err = cli("evaluate", trained, "--truth", tmp_path / "truth.npz")
    assert code == 2
    assert "truth.npz" in err


def test_analyze_and_report_again(copy, cli):
    (copy / "report.html").unlink()
    code, out, err = cli("analyze", copy, "--clusters", "3")
    assert code == 0, err
    assert "latent code:" in out
    assert len(json.loads((copy / "analysis" / "analysis.json").read_text())["clusters"]) == 3
    assert cli("report", copy)[0] == 0
    assert (copy / "report.html").is_file()


def test_used_folder_is_refused_and_forced(copy, simulated, cli):
    before = (copy / "run.json").read_text()
    code, _, err = cli(*start(simulated, copy), *TRAIN)
    assert code == 2
    assert "another run" in err
    assert (copy / "run.json").read_text() == before
    assert cli(*start(simulated, copy), *SMALL, "--z-dim", "2", "--force")[0] == 0
    assert np.load(copy / "embedding.npz")["z"].shape == (150, 2)


def test_resume_with_other_settings_is_refused(copy, simulated, cli):
    code, _, err = cli(*start(simulated, copy), "--resume", "--training.lr", "0.5")
    assert code == 2
    assert "training.lr" in err
    assert "config.yaml" in err


def test_interrupted_run_resumes_to_the_same_result(trained, simulated, tmp_path, monkeypatch, cli):
    from cryoscape.training.loop import Trainer

    run, step = tmp_path / "run", Trainer._one_step

    def stopped(self):
        step(self)
        if self.step == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    words = start(simulated, run)
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_one_step", stopped)
        code, _, err = cli(*words, *TRAIN)
    assert code == 130
    assert "--resume" in err
    assert "Traceback" not in err
    assert not (run / "embedding.npz").exists()
    assert cli(*words, "--resume")[0] == 0
    with np.load(run / "embedding.npz") as resumed, np.load(trained / "embedding.npz") as straight:
        np.testing.assert_array_equal(resumed["z"], straight["z"])
