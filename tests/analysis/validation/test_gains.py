"""Gain of a motion on held-out images, against formulas for Gaussian images."""

import numpy as np
import pytest

from cryoscape.analysis.populations.ensemble_weights import FEWEST_GROUPS
from cryoscape.analysis.validation.gains import (
    Mean,
    explain,
    fit_populations,
    log_evidence,
    mean_over_images,
)

SINGLE_FILE = np.arange(4000)  # every image from a micrograph of its own


def tables(images, centres, sd=1.0):
    """Log likelihood of numbers (n,) under normal laws about centres (K,)."""
    return -0.5 * np.square((images[:, None] - np.asarray(centres)) / sd)


def test_gain_is_that_of_the_true_mixture_over_the_best_alternative():
    rng = np.random.default_rng(0)
    x = rng.choice([-1.5, 1.5], 8000) + rng.standard_normal(8000)
    full, without = tables(x, [-1.5, 1.5]), tables(x, [0.0, 0.0])
    found = explain(full[:4000], without[:4000], full[4000:], without[4000:], SINGLE_FILE)
    # Expected log ratio of the two laws, by quadrature over the truth.
    grid = np.linspace(-9, 9, 20001)
    mixture = 0.5 * (np.exp(tables(grid, [-1.5])) + np.exp(tables(grid, [1.5])))[:, 0] / np.sqrt(2 * np.pi)
    single = np.exp(tables(grid, [0.0]))[:, 0] / np.sqrt(2 * np.pi)
    expected = np.trapezoid(mixture * np.log(mixture / single), grid)
    assert abs(found.gain.value - expected) < 4 * found.gain.error
    assert found.gain.sigmas > 20
    np.testing.assert_allclose(found.weight, 0.5, atol=0.04)


def test_images_of_one_object_gain_nothing():
    rng = np.random.default_rng(1)
    gains = []
    for _ in range(40):
        x = rng.standard_normal(1000)
        full, without = tables(x, [-0.5, 0.0, 0.5]), tables(x, [0.0, 0.0, 0.0])
        found = explain(full[:500], without[:500], full[500:], without[500:], SINGLE_FILE[:500])
        gains.append(found.gain.value / max(found.gain.error, 1e-12))
    assert np.mean(gains) < 0.3
    assert np.mean(np.array(gains) > 3) <= 0.025


def test_a_mixture_without_the_motion_is_an_alternative_too():
    """What another motion explains is not credited to this one."""
    rng = np.random.default_rng(2)
    x = rng.choice([-2.0, 2.0], 2000) + rng.standard_normal(2000)
    full = tables(x, [-2.0, 2.0])
    found = explain(full[:1000], full[:1000], full[1000:], full[1000:], SINGLE_FILE[:1000])
    assert not found.single
    assert found.gain.value == pytest.approx(0, abs=1e-9)


def test_error_counts_micrographs_where_there_are_enough():
    rng = np.random.default_rng(3)
    shared = np.repeat(rng.standard_normal(200), 50)
    group = np.repeat(np.arange(200), 50)
    found = mean_over_images(shared, group)
    assert found.error == pytest.approx(shared[::50].std(ddof=1) / np.sqrt(200), rel=1e-9)
    few = mean_over_images(shared, group % (FEWEST_GROUPS - 1))
    assert few.error == pytest.approx(shared.std(ddof=1) / np.sqrt(len(shared)), rel=1e-9)


def test_difference_of_means_adds_variances():
    assert Mean(3.0, 0.3).less(Mean(1.0, 0.4)) == Mean(2.0, pytest.approx(0.5))
    assert Mean(1.0, 0.0).sigmas == 0


def test_evidence_of_certain_population_is_its_likelihood():
    table = np.random.default_rng(4).standard_normal((5, 3))
    np.testing.assert_allclose(log_evidence(table, np.array([0.0, 1.0, 0.0])), table[:, 1])
    assert fit_populations(np.array([[0.0, 50.0]] * 10)) == pytest.approx([0, 1], abs=1e-6)
