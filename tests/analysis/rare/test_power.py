"""Images needed for a rare state, against simulation; lists of particles at a false discovery rate."""

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from cryoscape.analysis.rare.power import (
    images_for_interval,
    images_to_detect,
    rare_statistics,
    retrieve,
)
from cryoscape.analysis.rare.selection import compare, fit_half


def ratios(population, nats, n, rng):
    """Log ratios of n images, shape (n,)."""
    rare = rng.random(n) < population
    return np.where(rare, nats, -nats) + np.sqrt(2 * nats) * rng.standard_normal(n)


@pytest.mark.parametrize(("p", "d"), [(0.05, 2.3), (0.01, 7.0), (0.3, 0.5)])
def test_expectations_are_those_of_quadrature(p, d):
    def density(x):
        sd = np.sqrt(2 * d)
        return (1 - p) * norm.pdf(x, -d, sd) + p * norm.pdf(x, d, sd)

    def mean(f):
        return quad(
            lambda x: density(x) * f(x), -d - 12 * np.sqrt(2 * d), d + 12 * np.sqrt(2 * d), limit=400
        )[0]

    found = rare_statistics(p, d)
    gain = mean(lambda x: np.log(1 - p + p * np.exp(x)))
    assert found.gain == pytest.approx(gain, rel=1e-5)
    assert found.variance == pytest.approx(
        mean(lambda x: (np.log(1 - p + p * np.exp(x)) - gain) ** 2), rel=1e-5
    )
    information = mean(lambda x: ((np.exp(x) - 1) / (1 - p + p * np.exp(x))) ** 2)
    assert found.information == pytest.approx(information, rel=1e-5)


@pytest.mark.parametrize(("p", "d"), [(0.05, 2.3), (0.1, 1.0), (0.02, 3.0)])
def test_so_many_images_detect_as_promised(p, d):
    """Fit on one half, test on the other: nine times in ten, a little more because gains are skewed."""
    rng, n = np.random.default_rng(0), int(np.ceil(images_to_detect(p, d)))
    hits = {1: 0, 8: 0}
    for fewer in hits:
        for _ in range(200):
            table = np.stack([np.zeros(n // fewer), ratios(p, d, n // fewer, rng)], axis=1)
            fitted = np.arange(len(table)) % 2 == 0
            both = ([0, 1], fit_half(table, fitted))
            hits[fewer] += compare(table, ~fitted, both, ([0], np.ones(1))).holds
    assert 0.85 <= hits[1] / 200 <= 0.99
    # An eighth of them seldom does.
    assert hits[8] / 200 < 0.5


def test_so_many_images_give_the_interval():
    p, d, half_width = 0.05, 3.0, 0.012
    rng, n = np.random.default_rng(1), int(np.ceil(images_for_interval(p, d, half_width)))
    found = []
    for _ in range(200):
        table = np.stack([np.zeros(n), ratios(p, d, n, rng)], axis=1)
        found.append(fit_half(table, np.ones(n, dtype=bool))[1])
    assert 1.96 * np.std(found) == pytest.approx(half_width, rel=0.15)
    assert images_for_interval(p, d, half_width / 2) == pytest.approx(
        4 * images_for_interval(p, d, half_width)
    )


def test_lists_hold_the_rate():
    """Probabilities that are right: the share of wrong particles is the rate."""
    p, d, n = 0.05, 5.0, 200_000
    rng = np.random.default_rng(2)
    rare = rng.random(n) < p
    log_ratio = np.where(rare, d, -d) + np.sqrt(2 * d) * rng.standard_normal(n)
    probability = 1 / (1 + (1 - p) / p * np.exp(-log_ratio))
    rows = retrieve(probability, 0.05)
    assert len(rows) > 5000
    assert np.mean(~rare[rows]) == pytest.approx(0.05, abs=0.01)
    assert np.all(np.diff(probability[rows]) <= 0)
    # One more would be too many.
    more = np.argsort(-probability, kind="stable")[: len(rows) + 1]
    assert np.mean(1 - probability[more]) > 0.05
    assert len(retrieve(np.full(10, 0.5), 0.05)) == 0


def test_lists_end_before_particles_that_belong_elsewhere():
    """A hundred sure ones leave room for five wrong ones at 5 %; none that surely is wrong comes in."""
    probability = np.concatenate([np.ones(100), [0.6], np.zeros(500)])
    np.testing.assert_array_equal(retrieve(probability, 0.05), np.arange(101))
