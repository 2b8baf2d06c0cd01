import json
import shutil
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch

from cryoscape.errors import InputError
from cryoscape.structures.atomic_model import AtomicModel
from cryoscape.training import checkpoint
from cryoscape.training import train as module
from cryoscape.training.run import Run
from cryoscape.training.train import Interpretation, train
from tests.training.builders import CUTOFF, KNOWN, make_sample, settings, write_pdb
from tests.training.outcomes import assert_same, outcome


def run(sample, config, out, **more):
    return train(sample.particles, sample.model, config, out, **{"interpretation": KNOWN, **more})


@pytest.fixture
def finished(trained, tmp_path):
    """A copy of the finished run, to be spoilt."""
    return shutil.copytree(trained.path, tmp_path / "run")


def test_the_folder_of_a_finished_run(trained, sample):
    assert trained.info["status"] == "trained"
    assert trained.info["step"] == trained.info["total_steps"] == 24
    assert {p.name for p in trained.path.iterdir()} >= {
        "config.yaml",
        "run.json",
        "metrics.csv",
        "checkpoints",
    }
    assert {p.name for p in (trained.path / "checkpoints").iterdir()} == {
        "last.safetensors",
        "best.safetensors",
    }
    assert trained.config == settings()
    metrics = trained.metrics
    assert metrics["step"][metrics["split"] == "train"].tolist() == [5, 10, 15, 20, 24]
    assert np.isfinite(metrics["elbo"]).all()
    assert not [p for p in trained.path.rglob("*") if p.name.startswith(".") or p.suffix in (".pkl", ".pt")]


def test_the_same_seed_gives_the_same_run(trained, sample, tmp_path):
    run(sample, settings(), tmp_path)
    assert_same(tmp_path, trained.path)


def test_a_used_folder_is_refused(sample, finished):
    before = {p: p.stat().st_mtime_ns for p in finished.rglob("*")}
    with pytest.raises(InputError, match="another run") as caught:
        run(sample, settings(), finished)
    assert "--resume" in caught.value.remedy
    assert "--force" in caught.value.remedy
    assert {p: p.stat().st_mtime_ns for p in finished.rglob("*")} == before


def test_force_replaces_everything_of_the_earlier_run(sample, finished):
    old = {"embedding.npz", "report.html", "analysis/pca.json", "ensemble/pc1.cif", "preflight.json"}
    for name in old:
        (finished / name).parent.mkdir(exist_ok=True)
        (finished / name).write_text("old")
    (finished / "mine.txt").write_text("the user's own")
    again = run(sample, settings(training={"steps": 3}), finished, force=True)
    assert again.step == 3
    assert again.metrics["step"].max() == 3
    assert (finished / "mine.txt").exists()
    found = [finished / name for name in old]
    assert [p.name for p in found if p.is_file() and p.read_bytes() == b"old"] == []


def test_a_refused_input_leaves_the_earlier_run_alone_even_with_force(sample, finished):
    before = outcome(finished)
    outside = Interpretation((0.0, 0.0, 0.0), 1, CUTOFF)
    with pytest.raises(InputError, match="outside the box"):
        run(sample, settings(), finished, force=True, interpretation=outside)
    with pytest.raises(InputError, match="Nyquist"):
        run(sample, settings(), finished, force=True, interpretation=replace(KNOWN, cutoff=1.0))
    assert Run.open(finished).info["status"] == "trained"
    assert outcome(finished)[1:] == before[1:]


@pytest.mark.parametrize(
    ("sections", "named"),
    [
        ({"training": {"lr": 1e-3}}, ["training.lr"]),
        ({"z_dim": 3}, ["z_dim"]),
        ({"decoder": {"kind": "modes"}}, ["decoder.kind"]),
        ({"objective": {"beta": 0.5}, "training": {"steps": 30}}, ["objective.beta", "training.steps"]),
    ],
)
def test_resuming_with_other_settings_is_refused_by_name(sample, finished, sections, named):
    with pytest.raises(InputError, match="other settings") as caught:
        run(sample, settings(**sections), finished, resume=True)
    for name in named:
        assert name in str(caught.value)
    assert "encoder" not in str(caught.value)


def test_where_and_how_often_may_change_on_resuming(sample, finished, trained):
    free = {"threads": 2, "checkpoint_minutes": 1.0, "device": "auto", "tensorboard": False}
    run(sample, settings(training=free), finished, resume=True)
    assert_same(finished, trained.path)


def test_resuming_with_other_particles_or_another_model_is_refused(sample, finished, tmp_path):
    with pytest.raises(InputError, match="other particles"):
        train(sample.particles.select(np.arange(100)), sample.model, settings(), finished, resume=True)
    with pytest.raises(InputError, match="other particles"):
        train(sample.particles.select(np.arange(120)[::-1]), sample.model, settings(), finished, resume=True)
    write_pdb(tmp_path / "other.pdb", sample.states[1])
    with pytest.raises(InputError, match="another model"):
        train(sample.particles, AtomicModel.read(tmp_path / "other.pdb"), settings(), finished, resume=True)


def test_resuming_nothing_is_refused(sample, tmp_path):
    with pytest.raises(InputError, match="not a run folder"):
        run(sample, settings(), tmp_path / "nothing", resume=True)


def test_a_damaged_checkpoint_is_refused_on_resuming(sample, finished):
    path = finished / "checkpoints" / "last.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match="checkpoint cannot be read"):
        run(sample, settings(), finished, resume=True)


def test_pixels_that_are_no_numbers_are_refused_before_anything_is_written(tmp_path):
    import mrcfile

    spoilt = make_sample(tmp_path / "data", n=40)
    with mrcfile.mmap(spoilt.folder / "particles.mrcs", "r+") as mrc:
        mrc.data[31, 3, 3] = np.nan
    with pytest.raises(InputError, match="not finite") as caught:
        run(spoilt, settings(), tmp_path / "run")
    assert caught.value.row == 32
    assert not (tmp_path / "run").exists()


def test_divergence_is_reported_and_the_last_good_checkpoint_kept(sample, tmp_path):
    config = settings(training={"lr": 1e20, "schedule": "constant", "steps": 200})
    with pytest.raises(InputError, match="diverged") as caught:
        run(sample, config, tmp_path)
    assert "--training.lr" in caught.value.remedy
    assert Run.open(tmp_path).info["status"] == "failed"
    groups, header = checkpoint.load(tmp_path / "checkpoints" / "last.safetensors")
    assert header["step"] == 0
    assert all(bool(t.isfinite().all()) for tensors in groups.values() for t in tensors.values())


def test_bf16_trains_on_a_cpu(sample, trained, tmp_path):
    found = run(sample, settings(training={"precision": "bf16"}), tmp_path)
    single, mixed = trained.metrics["elbo"], found.metrics["elbo"]
    assert np.isfinite(mixed).all()
    assert not np.array_equal(single, mixed)
    np.testing.assert_allclose(mixed, single, rtol=0.05, atol=3.0)
    assert all(t.dtype != torch.bfloat16 for t in outcome(tmp_path)[0].values())
    assert found.decode(np.zeros((1, 2))).dtype == np.float32


def test_training_in_another_thread(sample, trained, tmp_path):
    """Signals belong to the main thread; elsewhere training does without, with the same result."""
    found = []
    thread = threading.Thread(target=lambda: found.append(run(sample, settings(), tmp_path)))
    thread.start()
    thread.join(timeout=60)
    assert len(found) == 1
    assert_same(tmp_path, trained.path)


@pytest.mark.parametrize("device", ["tpu", "cpu:0", "cuda:x", "cuda:99"])
def test_devices_that_are_not_there(sample, tmp_path, device):
    with pytest.raises(InputError, match=r"device|GPU"):
        run(sample, settings(training={"device": device}), tmp_path)


def test_tensorboard_gets_the_same_numbers(sample, tmp_path):
    pytest.importorskip("tensorboard")
    run(sample, settings(training={"tensorboard": True, "steps": 2}), tmp_path)
    assert list((tmp_path / "logs").iterdir())


def test_fewer_particles_than_a_batch(tmp_path):
    small = make_sample(tmp_path / "data", n=7)
    found = run(small, settings(training={"steps": 3}), tmp_path / "run")
    assert found.step == 3
    assert np.isfinite(found.metrics["loss"]).all()


def test_nobody_held_out(sample, tmp_path):
    found = run(sample, settings(data={"held_out": 0.0}, training={"steps": 3}), tmp_path)
    assert set(found.metrics["split"]) == {"train"}
    assert not (tmp_path / "checkpoints" / "best.safetensors").exists()


def test_what_the_user_says_of_frame_sign_and_band_goes_over_the_check(sample):
    half = KNOWN.offset[0]
    config = settings(data={"frame": "corner", "invert": True, "cutoff": 9.0})
    assert not module.needs_check(config)
    found = module.interpret(sample.particles, sample.model, config, None)
    assert found == Interpretation((half, half, half), -1, 9.0)
    assert module.needs_check(settings(data={"frame": "corner", "invert": True}))
    centred = module.interpret(
        sample.particles,
        sample.model,
        settings(data={"frame": "centroid", "invert": False, "cutoff": 9.0}),
        None,
    )
    np.testing.assert_allclose(centred.offset, sample.states[0].mean(0), atol=1e-2)


def test_run_json_says_what_was_done(trained, sample):
    info = json.loads((trained.path / "run.json").read_text())
    assert info["particles"]["n"] == 120
    assert info["particles"]["path"].endswith("particles.star")
    assert info["seed"] == 0
    assert info["versions"]["torch"] == torch.__version__
    assert info["hardware"]["device"] == "cpu"
    assert info["geometry"]["box"] == 18
