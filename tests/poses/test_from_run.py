"""The command on a small run: perturbed poses come nearer, and the rest of the table is the user's."""

import numpy as np
import pytest
import torch

from cryoscape.cli.main import main
from cryoscape.data.particles import Particles
from cryoscape.data.poses import write_with_poses
from cryoscape.physics.rotations import geodesic_angle
from cryoscape.training.train import train
from tests.poses.scene import turned
from tests.training.builders import KNOWN, make_sample, settings


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    """A run trained on good poses, and a table of the same particles with poses off by 8 degrees and 4 A."""
    folder = tmp_path_factory.mktemp("poses")
    made = make_sample(folder, n=100, snr=2.0, share=1.0)
    train(made.particles, made.model, settings(), folder / "run", interpretation=KNOWN)
    good = made.particles
    off = turned(torch.from_numpy(good.rotations), 8).numpy()
    write_with_poses(good, folder / "bad.star", off, good.shifts + np.array([4.0, 0.0]))
    return folder


def errors(folder, name):
    good, other = Particles.read(folder / "particles.star"), Particles.read(folder / name)
    angle = geodesic_angle(torch.from_numpy(other.rotations), torch.from_numpy(good.rotations)).rad2deg()
    return float(angle.median()), float(np.median(np.linalg.norm(other.shifts - good.shifts, axis=1)))


def test_poses_come_nearer(sample, capsys):
    words = [sample / "run", sample / "bad.star", "-o", sample / "new.star", "--range", "10", "--passes", "1"]
    assert main(["pose-search", *map(str, words)]) == 0
    assert "have a better pose" in capsys.readouterr().out
    angle, distance = errors(sample, "new.star")
    assert angle < 4
    assert distance < 1.5
    with np.load(sample / "new.npz", allow_pickle=False) as stored:
        assert stored["gain"].mean() > 5
        assert stored["moved"].sum() > 90


def test_the_halves_teach_each_other(sample, capsys):
    words = ["-o", sample / "halves.star", "--rounds", "2", "--range", "10", "--resolution", "9"]
    assert main(["pose-search", *map(str, [sample / "run", sample / "bad.star", *words])]) == 0
    assert "round 2" in capsys.readouterr().out
    assert errors(sample, "halves.star")[1] < 2.5


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--range", "120"], "--global"),
        (["--resolution", "-1"], "resolution"),
        (["--shift-range", "-2"], "shift range"),
        (["--passes", "0"], "--passes"),
        (["-o", "poses.txt"], ".star or .cs"),
    ],
)
def test_bad_options_are_refused(sample, capsys, words, said):
    assert main(["pose-search", str(sample / "run"), *words]) == 2
    assert said in capsys.readouterr().err
