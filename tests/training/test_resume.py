"""A run that was stopped and resumed is the run that was not, bit for bit."""

import json
import signal

import pytest

from cryoscape.training import checkpoint
from cryoscape.training.interruption import Interrupted
from cryoscape.training.run import Run
from cryoscape.training.train import train
from tests.training.builders import KNOWN, settings
from tests.training.outcomes import assert_same, die, in_child, outcome, signal_at

CASES = {
    "plain": {},
    "everything": {
        "encoder": {"kind": "score", "refresh": (0.3, 0.6)},
        "restraints": {"clash": 20.0, "clash_cutoff": 8.0, "keep": 60.0},
        "training": {"ema": 0.9, "clip": 10.0},
    },
    "segments": {"decoder": {"kind": "segments", "n_segments": 3, "hidden": (16,)}},
    "correlation": {
        "likelihood": {"kind": "correlation"},
        "decoder": {"kind": "modes", "n_modes": 4, "hidden": (16,)},
        "objective": {"samples": 2},
    },
    "field": {
        "encoder": {"kind": "field"},
        "decoder": {"kind": "field", "hidden": (16, 16), "n_frequencies": 12, "subset": 0.3},
    },
    "voxels": {
        "encoder": {"kind": "field", "dropout": 0.2},
        "decoder": {"kind": "voxels", "n_volumes": 3, "hidden": (8,)},
    },
    "poses": {"poses": {"refine": True, "start": 0.1}},
    "bf16": {"training": {"precision": "bf16"}},
    "streamed": {"data": {"cache_memory": 0.0}, "encoder": {"kind": "image+score"}},
    "mixture": {"prior": {"kind": "mixture", "components": 3}},
    "not yet in force": {"prior": {"kind": "mixture", "components": 3, "start": 0.75}},
    "vamp": {"prior": {"kind": "vamp", "exemplars": 8}, "encoder": {"refresh": (0.7,)}},
    "flow": {"prior": {"kind": "flow", "hidden": (8,), "transforms": 2}},
    "diffusion": {"prior": {"kind": "diffusion", "layers": 1, "width": 8, "tolerance": 1e-3}},
    "hierarchy": {"prior": {"kind": "hierarchy", "clusters": 2, "components": 1, "layers": 1, "width": 8}},
    "energy": {"prior": {"kind": "energy", "components": 2, "hidden": (8,), "proposals": 2000}},
    "persistent": {
        "prior": {
            "kind": "energy",
            "learning": "persistent",
            "components": 2,
            "hidden": (8,),
            "buffer": 50,
            "proposals": 2000,
        },
    },
    "recovery": {"prior": {"kind": "recovery", "components": 2, "hidden": (8,), "proposals": 2000}},
    "boltzmann": {"prior": {"kind": "boltzmann", "spins": 2}},
    "many switches": {"prior": {"kind": "boltzmann", "spins": 12}},
    "grbm": {"prior": {"kind": "grbm", "hidden": 3}, "objective": {"bound": "importance", "samples": 3}},
    "rbm": {"prior": {"kind": "rbm", "chains": 16}, "z_dim": 4},
    "rbm, importance": {
        "prior": {"kind": "rbm", "chains": 16, "sampler": {"kind": "tempering", "sweeps": 2}},
        "z_dim": 4,
        "objective": {"bound": "importance", "samples": 3},
    },
    "dbm": {
        "prior": {"kind": "dbm", "chains": 16, "layers": (2, 1, 1)},
        "z_dim": 4,
        "objective": {"gradient": "leave-one-out", "samples": 2},
    },
    "bernoulli": {"prior": {"kind": "bernoulli"}, "encoder": {"relaxation": "gumbolt"}},
}


def run(sample, config, out, **more):
    return train(sample.particles, sample.model, config, out, interpretation=KNOWN, **more)


@pytest.fixture(scope="module")
def whole(sample, tmp_path_factory):
    """Uninterrupted runs, made once each."""
    made = {}

    def make(name):
        if name not in made:
            made[name] = tmp_path_factory.mktemp("whole") / name
            run(sample, settings(**CASES[name]), made[name])
        return made[name]

    return make


@pytest.mark.parametrize("name", CASES)
def test_after_sigterm(name, sample, whole, tmp_path):
    config = settings(**CASES[name])
    with pytest.MonkeyPatch.context() as patch:
        signal_at(patch, 13, signal.SIGTERM)
        with pytest.raises(Interrupted, match="SIGTERM"):
            run(sample, config, tmp_path)
    info = Run.open(tmp_path).info
    assert (info["status"], info["step"], Run.open(tmp_path).step) == ("interrupted", 14, 14)
    resumed = run(sample, config, tmp_path, resume=True)
    assert resumed.info["status"] == "trained"
    assert_same(tmp_path, whole(name))


def test_after_ctrl_c_twice(sample, whole, tmp_path):
    for step in (5, 17):
        with pytest.MonkeyPatch.context() as patch:
            signal_at(patch, step, signal.SIGINT)
            with pytest.raises(Interrupted, match="SIGINT"):
                run(sample, settings(), tmp_path, resume=step > 5)
    run(sample, settings(), tmp_path, resume=True)
    assert_same(tmp_path, whole("plain"))


def test_the_comparison_can_fail(sample, whole, tmp_path):
    run(sample, settings(training={"seed": 1}), tmp_path)
    with pytest.raises(AssertionError):
        assert_same(tmp_path, whole("plain"))


def test_handlers_of_signals_are_given_back(sample, tmp_path):
    before = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]
    run(sample, settings(training={"steps": 1}), tmp_path)
    assert [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)] == before


@pytest.mark.parametrize("name", ["plain", "everything"])
def test_after_kill_between_checkpoints(name, sample, whole, tmp_path, monkeypatch):
    """Killed at step 16; the last checkpoint is that of step 9."""
    config = settings(**CASES[name])

    def doomed():
        from cryoscape.training.loop import Trainer

        original = Trainer._one_step

        def one_step(self):
            if self.step == 16:
                die()
            original(self)
            if self.step == 8:
                self.step += 1
                self.save()
                self.step -= 1

        monkeypatch.setattr(Trainer, "_one_step", one_step)
        run(sample, config, tmp_path)

    assert in_child(doomed) == signal.SIGKILL
    assert Run.open(tmp_path).info["status"] == "training"
    assert Run.open(tmp_path).step == 9
    assert len(outcome(tmp_path)[2]) > 1
    run(sample, config, tmp_path, resume=True)
    assert_same(tmp_path, whole(name))


def test_after_kill_during_the_writing_of_a_checkpoint(sample, whole, tmp_path, monkeypatch):
    def doomed():
        original = checkpoint.save_file
        count = 0

        def save_half(tensors, path, metadata):
            nonlocal count
            original(tensors, path, metadata=metadata)
            count += 1
            if count == 6 and json.loads(metadata["header"])["step"] > 3:
                path.write_bytes(path.read_bytes()[:5000])
                die()

        monkeypatch.setattr(checkpoint, "save_file", save_half)
        run(sample, settings(training={"checkpoint_minutes": 1e-9}), tmp_path)

    assert in_child(doomed) == signal.SIGKILL
    assert 0 < Run.open(tmp_path).step < 24
    assert len(list((tmp_path / "checkpoints").glob(".*"))) == 1
    run(sample, settings(), tmp_path, resume=True)
    assert_same(tmp_path, whole("plain"))
    assert not list((tmp_path / "checkpoints").glob(".*"))


def test_after_kill_before_the_first_checkpoint(sample, tmp_path, monkeypatch):
    def doomed():
        monkeypatch.setattr(checkpoint, "save_file", lambda *a, **k: die())
        run(sample, settings(), tmp_path)

    assert in_child(doomed) == signal.SIGKILL
    with pytest.raises(Exception, match="no checkpoint") as caught:
        run(sample, settings(), tmp_path, resume=True)
    assert "--force" in caught.value.remedy


def test_a_finished_run_stays_as_it_is(sample, whole, tmp_path):
    first = run(sample, settings(), tmp_path)
    before = outcome(tmp_path)
    again = run(sample, settings(), tmp_path, resume=True)
    assert again.info["status"] == "trained"
    assert again.info["training_seconds"] >= first.info["training_seconds"]
    assert outcome(tmp_path)[1:] == before[1:]
    assert_same(tmp_path, whole("plain"))


def test_metrics_may_have_lost_their_last_line(sample, whole, tmp_path, monkeypatch):
    with pytest.MonkeyPatch.context() as patch:
        signal_at(patch, 13, signal.SIGTERM)
        with pytest.raises(Interrupted):
            run(sample, settings(), tmp_path)
    with open(tmp_path / "metrics.csv", "a") as stream:
        stream.write("1")
    run(sample, settings(), tmp_path, resume=True)
    assert_same(tmp_path, whole("plain"))
