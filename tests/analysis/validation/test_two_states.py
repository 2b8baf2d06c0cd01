"""The main motion and the population on its far side, against mixtures whose populations are known."""

from types import SimpleNamespace

import numpy as np
import pytest

from cryoscape.analysis.populations.ensemble_weights import resampling_groups
from cryoscape.analysis.validation import two_states
from cryoscape.analysis.validation.two_states import (
    Population,
    length_unit,
    main_motion,
    upper_population,
)
from tests.analysis.fakes import fake_map_run, fake_run


def test_the_main_motion_is_the_one_that_moves_most(tmp_path):
    run = fake_run(tmp_path, n=500)
    motion = main_motion(run)
    expected = run.modes[0].ravel() / np.linalg.norm(run.modes[0])
    assert motion.moves
    assert abs(motion.axis @ expected) > 0.99
    # 3 A rms over one of two chains of equal length for a code of 1.
    codes = np.array([[1, 0, 0], [0, 0, 0]], np.float32)
    step = np.ptp(motion.scores(run, codes))
    assert step == pytest.approx(3 / np.sqrt(2), rel=0.02)


def test_a_given_axis_is_normalised(tmp_path):
    run = fake_run(tmp_path, n=300)
    motion = main_motion(run, 7 * run.modes[1])
    assert np.linalg.norm(motion.axis) == pytest.approx(1.0)
    scores = motion.scores(run, np.array([[0, 1, 0], [0, 0, 0]], np.float32))
    assert np.ptp(scores) == pytest.approx(0.6 / np.sqrt(2), rel=1e-3)
    with pytest.raises(ValueError, match="has 5 numbers"):
        main_motion(run, np.ones(5))


def test_a_collapsed_run_does_not_move(tmp_path):
    assert not main_motion(fake_run(tmp_path, amplitude=0.01)).moves
    assert not main_motion(fake_run(tmp_path, n=50), np.zeros(120)).moves


def test_maps_move_in_units_of_their_mean(tmp_path):
    run = fake_map_run(tmp_path, n=100)
    motion = main_motion(run)
    assert motion.moves
    assert length_unit(run, motion.centre) == pytest.approx(np.linalg.norm(motion.centre))
    codes = np.array([[1, 0, 0], [0, 0, 0]], np.float32)
    maps = run.decode_maps(codes).reshape(2, -1)
    expected = abs((maps[0] - maps[1]) @ motion.axis) / np.linalg.norm(motion.centre)
    assert np.ptp(motion.scores(run, codes)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("share", [0.3, 0.9])
def test_the_population_of_a_known_mixture(share, monkeypatch, tmp_path):
    """Images that each say where they lie with an error of a third of the way between two places.

    Intervals are as wide as the estimates of sets of images drawn anew scatter.
    """
    rng = np.random.default_rng(5)
    n, level = 600, np.linspace(-1.5, 1.5, 6)
    codes = np.c_[level, np.zeros((6, 2))].astype(np.float32)
    run = fake_run(tmp_path, n=50)
    run.images = lambda: _Images(n)
    run.particles = SimpleNamespace(micrograph=np.zeros(n, np.int64))
    run.image_model = SimpleNamespace(decoder=lambda z: None, likelihood=None)
    motion = two_states.MainMotion(
        run.structure.coords.astype(float).ravel(), run.modes[0].ravel() / np.linalg.norm(run.modes[0]), True
    )
    monkeypatch.setattr(two_states, "candidate_codes", lambda run, count, seed: codes)

    def find(resamples):
        place = np.where(rng.random(n) < share, 1.0, -1.0)
        seen = place + 0.66 * rng.standard_normal(n)
        table = -0.5 * np.square((seen[:, None] - level) / 0.66)
        monkeypatch.setattr(two_states, "image_table", lambda *args, **kwargs: table)
        return upper_population(run, motion, resamples=resamples)

    scatter = np.array([find(1).upper for _ in range(80)])
    assert scatter.mean() == pytest.approx(share, abs=0.02)
    found = [find(50) for _ in range(8)]
    assert sum(one.covers(share, 0.95) for one in found) >= 6
    if share == 0.3:
        # Widths vary from set to set: by 15 % here, by far more near 0 and 1, where eight sets say little
        # (over 40 sets the mean is 1.00 times the scatter at 0.3, and 1.08 times at 0.9).
        width = np.sqrt(np.mean([one.resampled.var(ddof=1) for one in found]))
        assert width == pytest.approx(scatter.std(ddof=1), rel=0.25)


class _Images:
    def __init__(self, n):
        self.n, self.batch = n, None

    def __len__(self):
        return self.n


def test_intervals_of_a_change():
    rng = np.random.default_rng(6)
    first = Population(0.40, 0.40 + 0.03 * rng.standard_normal(2000))
    second = Population(0.50, 0.50 + 0.04 * rng.standard_normal(2000))
    change, low, high = first.change_to(second)
    assert change == pytest.approx(0.1)
    np.testing.assert_allclose([low, high], [0.1 - 1.96 * 0.05, 0.1 + 1.96 * 0.05], atol=0.006)
    # With itself it is as wide as with an independent one of the same width.
    _, low, high = first.change_to(first)
    assert high - low == pytest.approx(2 * 1.96 * 0.03 * np.sqrt(2), rel=0.05)
    assert second.covers(0.57, 0.95)
    assert not second.covers(0.57, 0.5)


def test_few_micrographs_are_no_groups():
    assert resampling_groups(np.zeros(100, np.int64)) is None
    assert resampling_groups(np.arange(100)) is not None
