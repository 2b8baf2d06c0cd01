"""Agreement of halves: formulas against models whose correlation is known."""

from dataclasses import replace

import numpy as np
import pytest

from cryoscape.analysis.validation import halves
from cryoscape.analysis.validation.halves import (
    bootstrap_correlation,
    correlation_of_displacements,
    half_set_check,
    reliability,
)
from cryoscape.analysis.validation.results import Status
from cryoscape.analysis.validation.split import Split
from cryoscape.analysis.validation.two_states import MainMotion, Population
from tests.analysis.fakes import fake_map_run, fake_run

SIGNAL, NOISE = 2.0, 1.5


def two_measurements(n=4000, places=5, seed=0):
    """Displacements with a common part and errors of their own; the last place does not move."""
    rng = np.random.default_rng(seed)
    common = SIGNAL * rng.standard_normal((n, places, 3))
    a, b = (common + NOISE * rng.standard_normal((n, places, 3)) for _ in range(2))
    offset = rng.standard_normal((places, 3)) * 50
    a[:, -1] = b[:, -1] = 0.0
    return a + offset, b - offset, common


def test_correlation_is_the_share_of_the_common_variance():
    a, b, _ = two_measurements()
    expected = SIGNAL**2 / (SIGNAL**2 + NOISE**2)
    found = correlation_of_displacements(a, b)
    np.testing.assert_allclose(found[:-1], expected, atol=0.02)
    assert found[-1] == 0


def test_reliability_is_that_of_the_mean_of_both():
    """Spearman-Brown: the squared correlation of the mean of two measurements with the truth."""
    a, b, common = two_measurements()
    mean = (0.5 * (a + b))[:, :-1]
    with_truth = correlation_of_displacements(mean, common[:, :-1])
    found = reliability(correlation_of_displacements(a, b))[:-1]
    np.testing.assert_allclose(found, with_truth**2, atol=0.02)
    assert reliability(-0.3) == 0.0


def test_bootstrap_holds_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(1)
    inside = 0
    for trial in range(100):
        common = rng.standard_normal((120, 1, 1))
        a, b = (common + rng.standard_normal((120, 1, 1)) for _ in range(2))
        _, (low, high) = bootstrap_correlation(a, b, None, trial)
        inside += low <= 0.5 <= high
    # 95 of 100 with a standard error of 2.2; a percentile interval of 120 points is a little narrow.
    assert 87 <= inside <= 99


def test_bootstrap_by_micrograph_sees_that_images_repeat():
    rng = np.random.default_rng(2)
    a = np.repeat(rng.standard_normal((40, 1, 1)), 25, axis=0)
    b = np.repeat(rng.standard_normal((40, 1, 1)), 25, axis=0)
    groups = np.repeat(np.arange(40), 25)
    alone, together = (bootstrap_correlation(a, b, g, 0)[1] for g in (None, groups))
    ratio = (together[1] - together[0]) / (alone[1] - alone[0])
    assert ratio == pytest.approx(5.0, rel=0.25)


class FakeParticles:
    def __init__(self, n):
        self.micrograph = np.arange(n)

    def __len__(self):
        return len(self.micrograph)


def half_sets(run, z_a, z_b, sd=0.1):
    run.prior = type("Prior", (), {"support": "real"})()
    n = len(z_a)
    split = Split(np.arange(n, dtype=np.uint64), np.zeros(n, np.int8), True)
    widths = np.full_like(z_a, sd)
    return halves.HalfSets(split, run, run, FakeParticles(n), z_a, z_b, widths, widths)


def atoms(tmp_path, error, amplitude=3.0, n=1500):
    rng = np.random.default_rng(3)
    z = np.zeros((n, 3), np.float32)
    z[:, 0] = rng.standard_normal(n)
    run = fake_run(tmp_path, z=z, amplitude=amplitude)
    seen = []
    for _ in range(2):
        one = z.copy()
        one[:, 0] += error * rng.standard_normal(n)
        seen.append(one.astype(np.float32))
    axis = run.modes[0].ravel() / np.linalg.norm(run.modes[0])
    motion = MainMotion(run.structure.coords.astype(float).ravel(), axis, True)
    return half_sets(run, *seen, sd=error), motion


def test_a_motion_that_both_see_passes(tmp_path):
    """Errors of half the motion's size: C = 1 / 1.25, and the halves differ by error times amplitude."""
    sets, motion = atoms(tmp_path, 0.5)
    populations = (
        Population(0.5, np.linspace(0.4, 0.6, 201)),
        Population(0.52, np.linspace(0.42, 0.62, 201)),
    )
    check = half_set_check(sets, motion, populations)
    v = check.values
    assert check.status is Status.PASSED
    assert v["correlation"] == pytest.approx(0.8, abs=0.03)
    assert v["reliability"] == pytest.approx(2 * 0.8 / 1.8, abs=0.03)
    still = sets.run_a.structure.chain_id == "A"
    assert (v["residue_correlation"][still] == 0).all()
    np.testing.assert_allclose(v["residue_correlation"][~still][1:], 0.8, atol=0.03)
    # rms over chain B is 3 A times z, over both chains 3 / sqrt(2).
    np.testing.assert_allclose(v["rms_motion"], 3 / np.sqrt(2) * np.sqrt(1.25), rtol=0.05)
    assert v["rms_disagreement"] == pytest.approx(0.5 * np.sqrt(2) * 3 / np.sqrt(2), rel=0.05)
    assert v["population_change"]["agree"]
    # Errors of their own, of the width that the posteriors have.
    assert v["z_score_variance"] == pytest.approx(1.0, abs=0.12)
    assert "0.5" in check.text
    assert "52 %" in check.text


def test_motions_of_their_own_fail(tmp_path):
    sets, motion = atoms(tmp_path, 20.0)
    check = half_set_check(sets, motion, None)
    assert check.status is Status.FAILED
    assert check.values["correlation"] < 0.1


def test_where_nothing_moves_there_is_nothing_to_judge(tmp_path):
    sets, motion = atoms(tmp_path, 0.5, amplitude=0.01)
    check = half_set_check(sets, replace(motion, moves=False), None)
    assert check.status is Status.REPORTED
    assert "z_score_variance" not in check.values


def test_maps_are_compared_by_their_differences_from_the_mean(tmp_path):
    """A negligible error of the codes leaves maps that correlate to one; a code of noise leaves none."""
    rng = np.random.default_rng(4)
    z = rng.standard_normal((60, 2)).astype(np.float32)
    run = fake_map_run(tmp_path, z=np.c_[z, z[:, :1]])
    run.occupancy = lambda z: None
    motion = MainMotion(np.zeros(24**3), np.zeros(24**3), False)
    same = half_set_check(half_sets(run, z, z + np.float32(1e-3)), motion, None)
    assert same.status is Status.PASSED
    assert same.values["correlation"] > 0.999
    assert same.values["particle_correlation"][0] > 0.99
    other = rng.standard_normal((60, 2)).astype(np.float32)
    different = half_set_check(half_sets(run, z, other), motion, None)
    assert different.status is Status.FAILED
