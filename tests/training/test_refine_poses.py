"""Poses that are learnt with the model."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from cryoscape.data.particles import Particles
from cryoscape.physics.rotations import small_rotation
from cryoscape.training.run import Run
from cryoscape.training.train import train
from tests.training.builders import KNOWN, make_sample, settings


@pytest.fixture(scope="module")
def errors(tmp_path_factory):
    """Angles (degrees) and distances (A) from the true poses, before and after training on wrong ones."""
    sample = make_sample(tmp_path_factory.mktemp("moved"), n=300, snr=2.0, share=1.0)
    true = sample.particles
    g = torch.Generator().manual_seed(7)
    turn = small_rotation(torch.randn(300, 3, generator=g, dtype=torch.float64) * np.radians(4.0)).numpy()
    wrong = replace(
        true,
        rotations=turn @ true.rotations,
        shifts=true.shifts + torch.randn(300, 2, generator=g, dtype=torch.float64).numpy() * 2.0,
    )
    out = tmp_path_factory.mktemp("refined") / "run"
    config = settings(
        training={"steps": 600, "batch": 32},
        poses={"refine": True, "rotation_sd": 4.0, "shift_sd": 2.0},
        data={"held_out": 0.0},
    )
    train(wrong, sample.model, config, out, interpretation=KNOWN, embedding=False)
    return true, wrong, Run.open(out)


def angle(a, b):
    trace = np.einsum("nij,nij->n", a, b)
    return np.degrees(np.arccos(np.clip((trace - 1) / 2, -1, 1)))


def test_poses_come_right(errors):
    true, wrong, run = errors
    table = Particles.read(run.path / "particles" / "refined_poses.star")
    before, after = (np.median(angle(p.rotations, true.rotations)) for p in (wrong, table))
    # Thirty residues at 8 A say little of their orientation, and more of their place.
    assert after < 0.92 * before
    moved = [np.median(np.linalg.norm(p.shifts - true.shifts, axis=1)) for p in (wrong, table)]
    assert moved[1] < 0.85 * moved[0]


def test_images_far_from_the_truth_cost_nothing_when_poses_stay(errors):
    """The corrections are small: their prior holds them to a few standard deviations."""
    _, wrong, run = errors
    table = Particles.read(run.path / "particles" / "refined_poses.star")
    assert float(angle(table.rotations, wrong.rotations).max()) < 4 * 4.0 * 3**0.5
