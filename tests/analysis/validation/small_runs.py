"""Runs of a few dozen steps on two states of a short chain, and what is needed to train them again."""

from __future__ import annotations

import shutil

from cryoscape.training.run import Run
from cryoscape.training.train import train
from tests.training.builders import KNOWN, make_sample, settings

STEPS = 24
MAPS = {
    "encoder": {"kind": "field", "hidden": (32, 16)},
    "decoder": {"kind": "voxels", "n_volumes": 3, "hidden": (8,)},
}


def atoms_run(folder, n=160, **sections):
    sample = make_sample(folder / "data", n=n, snr=1.0)
    config = settings(**{"data": {"held_out": 0.05}, **sections})
    return train(sample.particles, sample.model, config, folder / "run", interpretation=KNOWN)


def maps_run(folder, n=240, **sections):
    sample = make_sample(folder / "data", n=n, snr=1.0)
    return train(sample.particles, None, settings(**MAPS, **sections), folder / "run", interpretation=KNOWN)


def copied(run, folder):
    """The same run elsewhere, without what was trained again from it."""
    shutil.copytree(run.path, folder, ignore=shutil.ignore_patterns("validation"))
    return Run.open(folder)


def few_candidates(monkeypatch):
    """Compare images with six structures, not two dozen."""
    for module in ("nulls", "retrained_calibration", "two_states"):
        monkeypatch.setattr(f"cryoscape.analysis.validation.{module}.CANDIDATES", 6)


def forbid_training(monkeypatch):
    """Whoever trains now fails."""

    def fail(*args, **kwargs):
        raise AssertionError("trained again")

    monkeypatch.setattr("cryoscape.analysis.validation.retraining.train", fail)
