"""Nulls: gains and floors against what they must be, and trainings on simulated images from end to end."""

import numpy as np
import pytest
from scipy.stats import chi2, norm

from cryoscape.analysis.validation import nulls
from cryoscape.analysis.validation.nulls import (
    Gain,
    best_scene,
    fluctuation,
    fluctuation_floor,
    held_out_gain,
    homogeneous_check,
    mixture_gain,
    noise_check,
    standard_error,
)
from cryoscape.analysis.validation.results import Status
from cryoscape.analysis.validation.retraining import Retraining
from cryoscape.training.run import Run
from tests.analysis.fakes import fake_map_run, fake_run
from tests.analysis.validation.small_runs import (
    atoms_run,
    copied,
    few_candidates,
    forbid_training,
    maps_run,
)


def table_of(x, centres, sd):
    return norm.logpdf(x[:, None], centres, sd)


def mixture(n, rng, apart, sd):
    return np.where(rng.random(n) < 0.3, apart, 0.0) + sd * rng.standard_normal(n)


def test_the_gain_of_two_states_is_the_divergence_of_the_mixture_from_the_better_one():
    rng = np.random.default_rng(7)
    centres, sd = np.array([0.0, 2.0]), 1.0
    shown, hidden = (table_of(mixture(n, rng, 2.0, sd), centres, sd) for n in (10_000, 40_000))
    gain = mixture_gain(shown, hidden)
    x = np.linspace(-8, 12, 20_001)
    density = 0.7 * norm.pdf(x, 0, sd) + 0.3 * norm.pdf(x, 2, sd)
    expected = np.trapezoid(density * (np.log(density) - norm.logpdf(x, 0, sd)), x)
    assert gain.mean == pytest.approx(expected, abs=4 * gain.error)
    assert gain.error < 0.05 * expected
    assert not gain.vanishes


def test_the_gain_of_one_state_vanishes_nearly_always():
    rng = np.random.default_rng(8)
    centres = np.linspace(-1, 1, 5)
    gains = []
    for _ in range(40):
        tables = [table_of(rng.standard_normal(n), centres, 1.0) for n in (300, 200)]
        gains.append(mixture_gain(*tables))
    assert sum(not gain.vanishes for gain in gains) <= 3
    assert gains[0].n == 200


def test_round_off_is_no_gain():
    assert Gain(3e-8, 1e-8, 300).vanishes
    assert Gain(0.003, 0.001, 300).vanishes
    assert not Gain(0.004, 0.001, 300).vanishes
    assert Gain(0.004, 0.0021, 300).vanishes


def test_images_of_one_micrograph_count_as_one():
    rng = np.random.default_rng(9)
    values = rng.standard_normal(50)
    groups = np.repeat(np.arange(50), 8)
    together = standard_error(np.repeat(values, 8), groups)
    assert together == pytest.approx(values.std(ddof=1) / np.sqrt(50))
    assert standard_error(values, None) == pytest.approx(together)
    assert standard_error(np.repeat(values, 8), None) < 0.4 * together


def test_the_floor_is_the_quantile_of_a_mean_square(tmp_path):
    """A residue that moves along a line by a normal amount: n <u^2> is a chi-squared number."""
    n = 400
    run = fake_run(tmp_path, n=n, amplitude=2.0)
    z = run.embedding.z
    found, floor = fluctuation(run, z), fluctuation_floor(run, z)
    direct = run.decode(z).astype(np.float64)
    expected = np.sqrt(np.square(direct - direct.mean(axis=0)).sum(-1).mean(axis=0))
    np.testing.assert_allclose(found, expected, atol=1e-4)
    moving = expected > 0.1
    factor = np.sqrt(chi2.ppf(0.99, n - 1) / (n - 1))
    np.testing.assert_allclose(floor[moving] / expected[moving], factor, atol=0.03)


def test_maps_have_one_number(tmp_path):
    run = fake_map_run(tmp_path, n=60)
    z = run.embedding.z
    found, floor = fluctuation(run, z), fluctuation_floor(run, z)
    maps = run.decode_maps(z).reshape(60, -1).astype(np.float64)
    mean = maps.mean(axis=0)
    expected = np.sqrt(np.square(maps - mean).sum(axis=1).mean()) / np.linalg.norm(mean)
    assert found == pytest.approx(np.array([expected]), rel=1e-5)
    assert floor.shape == (1,)
    assert found[0] < floor[0] < 1.5 * found[0]


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    few_candidates(monkeypatch)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return atoms_run(tmp_path_factory.mktemp("atoms"))


def test_the_best_scene_is_the_one_that_explains_most(run, monkeypatch):
    scenes = nulls.candidate_scenes(run)
    monkeypatch.setattr(nulls, "candidate_scenes", lambda run, seed: [scenes[3], scenes[0], scenes[1]])
    chosen = best_scene(run)
    sums = [run.image_model.scene_log_likelihood(s, run.images().batch(_all(run))).sum() for s in scenes[:4]]
    best = max((sums[3], scenes[3]), (sums[0], scenes[0]), (sums[1], scenes[1]), key=lambda p: float(p[0]))[1]
    assert chosen is best


def _all(run):
    import torch

    return torch.arange(len(run.particles))


def test_gain_of_a_run_is_of_its_held_out_images(run):
    assert held_out_gain(run).n == int(run.embedding.held_out.sum()) == 8


@pytest.mark.parametrize("check", [noise_check, homogeneous_check])
def test_a_null_is_trained_once(check, run, tmp_path, monkeypatch):
    mine = copied(run, tmp_path / "run")
    first = check(Retraining(mine, steps=10))
    v = first.values
    assert (first.number, v["images"], v["steps"]) == ((2 if check is noise_check else 3), 16, 10)
    assert v["rmsf"].shape == v["floor"].shape == v["run_rmsf"].shape == (30,)
    assert (v["floor"] >= v["rmsf"]).all()
    np.testing.assert_array_equal(v["above_floor"], (v["run_rmsf"] > v["floor"]) & (v["run_rmsf"] > 0.1))
    assert (first.status is Status.PASSED) == (v["gain"] <= max(2 * v["gain_error"], 1 / 16))
    assert not list(mine.path.glob("validation/**/*.mrcs"))
    forbid_training(monkeypatch)
    again = check(Retraining(Run.open(mine.path), steps=10))
    assert again.text == first.text
    np.testing.assert_array_equal(again.values["rmsf"], v["rmsf"])


def test_an_error_of_the_poses_is_another_null(run, tmp_path, monkeypatch):
    mine = copied(run, tmp_path / "run")
    homogeneous_check(Retraining(mine, steps=1))
    forbid_training(monkeypatch)
    with pytest.raises(AssertionError, match="trained again"):
        homogeneous_check(Retraining(mine, steps=1), rotation_sd=2.0)


def test_maps_are_not_trained_on_noise(tmp_path):
    mine = maps_run(tmp_path)
    check = noise_check(Retraining(mine, steps=2))
    assert (check.status, check.values) == (Status.PASSED, {"refused": True})
    assert "refuses" in check.text
    found = homogeneous_check(Retraining(mine, steps=2))
    assert found.values["floor"].shape == (1,)
    assert "% of their rms" in found.text
