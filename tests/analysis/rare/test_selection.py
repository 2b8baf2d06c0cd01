"""Growing mixtures of points whose likelihoods are known."""

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from cryoscape.analysis.rare.bridges import dips
from cryoscape.analysis.rare.selection import (
    fit_half,
    link,
    log_mixture,
    select_structures,
    single_gains,
    without,
)


def gaussian_table(x, points):
    """Log likelihood of positions x under unit Gaussians about points, up to a constant."""
    return -0.5 * np.square(x[:, None] - points)


def drawn(centres, weights, n, seed):
    rng = np.random.default_rng(seed)
    return rng.choice(centres, n, p=weights) + rng.standard_normal(n)


GRID = np.linspace(-4, 10, 29)


def test_a_rare_state_is_found_and_its_population():
    x = drawn([0.0, 5.0], [0.96, 0.04], 3000, 0)
    table = gaussian_table(x, GRID)
    fitted = np.arange(len(x)) % 2 == 0
    found = select_structures(table, fitted)
    place = GRID[list(found.columns)]
    label = link(np.square(place[:, None] - place) / 2, 2.0)
    rare = label == label[np.abs(place - 5).argmin()]
    assert np.abs(np.average(place[rare], weights=found.weight[rare]) - 5) < 0.5
    assert found.weight[rare].sum() == pytest.approx(0.04, abs=0.012)
    lost = without(table, fitted, found.columns, {c for c, r in zip(found.columns, rare) if r})
    assert lost.holds
    assert lost.gain > 50


@pytest.mark.parametrize("centres", [[0.0], [0.0, 5.0]])
def test_nothing_rare_is_found_where_there_is_nothing(centres):
    """Ten seeds: what is added lies on what is there, never apart with a few per cent."""
    wrong = 0
    for seed in range(10):
        x = drawn(centres, np.full(len(centres), 1 / len(centres)), 2000, seed)
        found = select_structures(gaussian_table(x, GRID), np.arange(2000) % 2 == 0)
        place = GRID[list(found.columns)]
        nearest = np.abs(place[:, None] - np.array(centres)).min(axis=1)
        wrong += bool((nearest > 2.0).any())
    assert wrong <= 1


def test_gain_of_adding_one_is_the_concave_maximum():
    rng = np.random.default_rng(3)
    log_ratio = rng.normal(-0.5, 1.2, (300, 4)) + np.array([0.0, 0.3, 0.6, -2.0])
    for k, found in enumerate(single_gains(log_ratio)):
        e = np.exp(log_ratio[:, k])
        best = minimize_scalar(
            lambda w, e=e: -np.log1p(w * (e - 1)).sum(),
            bounds=(0, 1),
            method="bounded",
            options={"xatol": 1e-10},
        )
        assert found == pytest.approx(max(0.0, -best.fun), abs=1e-4)


def test_mixtures_and_weights():
    x = drawn([0.0, 3.0], [0.7, 0.3], 4000, 4)
    table = gaussian_table(x, np.array([0.0, 3.0]))
    weight = fit_half(table, np.ones(4000, dtype=bool))
    np.testing.assert_allclose(weight, [0.7, 0.3], atol=0.03)
    # The likelihood equation at the maximum: mean responsibilities are the weights.
    joint = np.exp(table - log_mixture(table, weight)[:, None]) * weight
    np.testing.assert_allclose(joint.sum(axis=1), 1)
    np.testing.assert_allclose(joint.mean(axis=0), weight, atol=1e-4)


def test_links_are_chains():
    place = np.array([0.0, 1.0, 2.0, 8.0])
    label = link(np.square(place[:, None] - place) / 2, 1.0)
    assert label[0] == label[1] == label[2] != label[3]


@pytest.mark.parametrize(("spread", "want"), [(0.0, True), (8.0, False)])
def test_the_end_of_a_continuous_motion_is_no_state(spread, want):
    """Between 0 and 8: empty, or as populated as the end."""
    rng = np.random.default_rng(5)
    rare = rng.random(4000) < 0.2
    x = np.where(rare, 8.0 - spread * rng.random(4000), 0.0) + rng.standard_normal(4000)
    table = gaussian_table(x, np.array([0.0, 8.0, 2.0, 4.0, 6.0]))
    assert dips(table, np.array([False, True]), 3) is want
