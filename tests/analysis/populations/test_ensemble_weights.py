"""Populations from likelihoods, against laws that are known."""

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import norm

from cryoscape.analysis.populations.ensemble_weights import draw_counts, fit_weights, maximise_evidence

PLACES, TRUE = np.array([-1.0, 0.5, 2.0]), np.array([0.6, 0.35, 0.05])


def measured(n, sd, seed=0):
    """Log densities (n, 3) of points about three places, drawn with the true populations."""
    rng = np.random.default_rng(seed)
    x = PLACES[rng.choice(3, n, p=TRUE)] + sd * rng.standard_normal(n)
    return norm(PLACES, sd).logpdf(x[:, None])


def test_it_is_the_maximum_of_the_evidence():
    """Against a general optimiser over softmax weights."""
    table = measured(400, 0.9)

    def loss(theta):
        log_w = np.append(theta, 0.0) - np.logaddexp.reduce(np.append(theta, 0.0))
        return -np.logaddexp.reduce(table + log_w, axis=1).mean()

    best = minimize(loss, np.zeros(2), tol=1e-12)
    found = fit_weights(table, resamples=0)
    assert found.evidence == pytest.approx(-best.fun, abs=1e-8)
    want = np.exp(np.append(best.x, 0.0))
    np.testing.assert_allclose(found.weight, want / want.sum(), atol=2e-4)


def test_counts_are_copies():
    table = np.exp(measured(60, 0.7))
    counts = np.random.default_rng(1).integers(0, 4, 60).astype(float)
    weighted, repeated = (
        maximise_evidence(table, counts)[0],
        maximise_evidence(np.repeat(table, counts.astype(int), axis=0), np.ones(int(counts.sum())))[0],
    )
    np.testing.assert_allclose(weighted, repeated, atol=1e-6)


def test_intervals_cover_the_truth():
    """95 % intervals of three populations in 60 sets: at least 9 in 10, and counting is far worse."""
    inside = by_counting = 0
    for seed in range(60):
        table = measured(1500, 0.8, seed)
        found = fit_weights(table, resamples=100, seed=seed)
        low, high = np.percentile(found.resampled, [2.5, 97.5], axis=0)
        inside += ((low <= TRUE) & (high >= TRUE)).sum()
        counted = np.bincount(table.argmax(axis=1), minlength=3) / len(table)
        error = 1.96 * np.sqrt(counted * (1 - counted) / len(table))
        by_counting += (np.abs(counted - TRUE) <= error).sum()
    assert 0.9 <= inside / 180 <= 0.99
    assert by_counting / 180 < 0.5


def test_responsibilities_are_bayes_rule():
    table = measured(50, 0.8)
    found = fit_weights(table, resamples=0)
    joint = np.exp(table) * found.weight
    np.testing.assert_allclose(found.responsibilities(table), joint / joint.sum(1, keepdims=True), atol=1e-12)
    # At the maximum the mean responsibility of what is populated is its population.
    np.testing.assert_allclose(found.responsibilities(table).mean(0), found.weight, atol=1e-4)


def test_groups_stay_together():
    groups = np.repeat(np.arange(20), 5)
    counts = draw_counts(groups, 100, np.random.default_rng(0)).reshape(20, 5)
    assert (counts == counts[:, :1]).all()
    assert counts[:, 0].sum() == 20
    alone = draw_counts(None, 100, np.random.default_rng(0))
    assert alone.sum() == 100


def test_a_constant_for_each_image_does_not_matter():
    table = measured(200, 0.8)
    shift = np.random.default_rng(2).normal(scale=500, size=(200, 1))
    first, second = (fit_weights(t, resamples=3) for t in (table, table + shift))
    np.testing.assert_allclose(first.weight, second.weight, atol=1e-9)
    np.testing.assert_allclose(first.resampled, second.resampled, atol=1e-9)
    assert second.evidence - first.evidence == pytest.approx(shift.mean())
