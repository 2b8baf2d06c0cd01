import math

import numpy as np
import pytest
from scipy.stats import norm

from cryoscape.analysis.prior_fitting.metrics import (
    BINS,
    Judge,
    bin_edges,
    classifier_test,
    null_sd,
    principal_axes,
    sliced_wasserstein,
    total_variation,
    whitening,
)

RNG = np.random.default_rng(0)


def gaussian(n, d=3, seed=1):
    return np.random.default_rng(seed).normal(size=(n, d))


def test_total_variation_by_hand():
    edges = np.array([0.0, 1.0, 2.0])
    a, b = np.array([-5.0, 0.5, 0.5, 1.5]), np.array([0.5, 1.5, 1.5, 9.0])
    # Shares: below 1/4, 2/4, 1/4, above 0 against 0, 1/4, 2/4, 1/4.
    assert total_variation(a, b, edges) == 0.5
    assert total_variation(a, a[::-1], edges) == 0.0
    assert total_variation(a[:1], b[3:], edges) == 1.0


def test_bins_cover_all_but_a_thousandth():
    x = gaussian(100_000, 1)[:, 0]
    edges = bin_edges(x, 20)
    assert len(edges) == 21
    np.testing.assert_allclose(np.diff(edges), edges[1] - edges[0])
    np.testing.assert_allclose([(x < edges[0]).mean(), (x > edges[-1]).mean()], 0.0005, atol=2e-5)
    assert (np.diff(bin_edges(np.zeros(5), 4)) > 0).all()


def expected_variation(edges, n, m):
    """Mean total variation of two samples of N(0, 1): every bin differs by a normal variable."""
    p = np.diff(norm.cdf([-np.inf, *edges, np.inf]))
    return 0.5 * math.sqrt(2 / math.pi) * np.sqrt(p * (1 - p) * (1 / n + 1 / m)).sum()


@pytest.mark.parametrize("n", [1000, 400])
def test_the_floor_of_the_variation_is_that_of_theory(n):
    data = gaussian(2000, 1)
    judge = Judge(data[:1000], data[1000:], n=n)
    mean, sd = judge.floor
    for bins in BINS:
        want = expected_variation(judge.edges[bins], n, 1000)
        assert abs(mean.tvd[bins] - want) < 4 * sd.tvd[bins] / math.sqrt(20) + 0.02 * want


def test_principal_axes_are_those_of_the_singular_values():
    points = gaussian(500, 4) @ RNG.normal(size=(4, 4)) + 7.0
    want = np.linalg.svd(points - points.mean(axis=0), full_matrices=False)[2][:2]
    got = principal_axes(points)
    np.testing.assert_allclose(np.abs((got * want).sum(axis=1)), 1.0)
    assert (got[np.arange(2), np.abs(got).argmax(axis=1)] > 0).all()
    assert principal_axes(points[:, :1]).shape == (1, 1)


def test_whitened_points_have_unit_covariance():
    points = gaussian(500, 3) @ RNG.normal(size=(3, 3)) + 7.0
    mean, matrix = whitening(points)
    white = (points - mean) @ matrix
    np.testing.assert_allclose(np.cov(white.T), np.eye(3), atol=1e-9)
    flat = np.column_stack([points[:, 0], np.full(500, 2.0)])
    mean, matrix = whitening(flat)
    assert np.isfinite(matrix).all()
    # A thousandth of the spread in a direction that the data do not have counts as one deviation.
    step = np.array([0.0, 1e-3 * flat[:, 0].std(ddof=1)]) @ matrix
    assert abs(np.linalg.norm(step) - 1) < 1e-6


@pytest.mark.parametrize("d", [1, 5])
def test_sliced_wasserstein_of_a_shift(d):
    """W_2 along theta is |theta . delta|, so that its mean square is |delta|^2 / d."""
    a = gaussian(400, d)
    delta = RNG.normal(size=d)
    got = sliced_wasserstein(a, a + delta, directions=4000)
    assert abs(got / (np.linalg.norm(delta) / math.sqrt(d)) - 1) < 0.05
    assert sliced_wasserstein(a, RNG.permutation(a)) < 1e-12


def test_sliced_wasserstein_of_a_scale():
    """For N(0, 1) and N(0, s^2) W_2 is |s - 1| along every direction."""
    a = gaussian(4000)
    assert abs(sliced_wasserstein(a, 1.5 * a) - 0.5 * math.sqrt((a**2).mean())) < 0.02


def test_sliced_wasserstein_of_unequal_numbers():
    a, b = gaussian(3000, seed=1), gaussian(1000, seed=2) + np.array([1.0, 0.0, 0.0])
    equal = sliced_wasserstein(a[:1000], b)
    assert abs(sliced_wasserstein(a, b) - equal) < 0.05
    np.testing.assert_allclose(sliced_wasserstein(a, b), sliced_wasserstein(b, a))
    # Every point doubled is the same law.
    assert sliced_wasserstein(np.repeat(a[:500], 3, axis=0), a[:500]) < 0.05


def test_the_classifier_finds_a_shift_as_well_as_theory_allows():
    """Two Gaussians at a distance of delta: AUROC Phi(delta / sqrt 2), accuracy Phi(delta / 2)."""
    n, delta = 1000, 1.5
    auroc, accuracy = classifier_test(gaussian(n, seed=1) + np.array([delta, 0, 0]), gaussian(n, seed=2))
    assert abs(auroc - norm.cdf(delta / math.sqrt(2))) < 0.035
    assert abs(accuracy - norm.cdf(delta / 2)) < 0.035


def test_the_classifier_is_blind_to_nothing():
    n = 1000
    auroc, accuracy = classifier_test(gaussian(n, seed=1), gaussian(n, seed=2))
    auroc_sd, accuracy_sd = null_sd(n)
    assert abs(auroc - 0.5) < 4 * auroc_sd
    assert abs(accuracy - 0.5) < 4 * accuracy_sd
    # The same covariance and mean, other shape: linear classifiers see nothing.
    ring = gaussian(n, 2, seed=3)
    ring *= math.sqrt(2) / np.linalg.norm(ring, axis=1, keepdims=True)
    assert classifier_test(ring, gaussian(n, 2, seed=4))[0] > 0.7


def test_null_sd_is_that_of_shuffled_ranks():
    n = 50
    scores = [
        (np.argsort(np.argsort(RNG.random(2 * n)))[:n].sum() - n * (n - 1) / 2) / n**2 for _ in range(4000)
    ]
    assert abs(np.std(scores) / null_sd(n)[0] - 1) < 0.06


@pytest.fixture(scope="module")
def judge():
    return Judge(gaussian(800, 2, seed=1), gaussian(800, 2, seed=2))


def test_samples_of_the_law_are_at_the_floor(judge):
    scores = judge.score(gaussian(800, 2, seed=3))
    assert all(judge.at_floor(scores).values())
    assert set(judge.at_floor(scores)) == set(scores.values())


def test_samples_of_another_law_are_not(judge):
    scores = judge.score(gaussian(800, 2, seed=3) * 2.0 + 1.0)
    assert not any(judge.at_floor(scores).values())


def test_holes_are_where_no_data_are(judge):
    """A sample in a hole of the density counts, one on top of the data does not."""
    samples = gaussian(800, 2, seed=3)
    samples[:80] = [8.0, 0.0]
    scores = judge.score(samples)
    assert 0.1 <= scores.holes < 0.1 + 0.008
    # A tenth far out along one direction is ten per cent for the variation as well.
    assert abs(scores.tvd[20] - 0.1) < 4 * judge.floor[0].tvd[20]


def test_chance_holes_are_those_of_simulations(judge):
    """Samples beyond the r-th farthest of 3,000 points, both uniform, against the law that is claimed."""
    judge = Judge(gaussian(3000, 1), gaussian(3000, 1, seed=2), n=500)
    beyond = [(RNG.random(500) > np.sort(RNG.random(3000))[-3]).sum() for _ in range(4000)]
    mean, sd = judge.floor[0].holes * 500, judge.floor[1].holes * 500
    assert abs(np.mean(beyond) - mean) < 4 * sd / math.sqrt(4000)
    assert abs(np.std(beyond) / sd - 1) < 0.08


def test_a_missing_minor_state_is_seen():
    """A tenth of the data that samples never reach: seen by the variation, never by the holes."""
    data = gaussian(2000, 2, seed=1)
    data[RNG.random(2000) < 0.1] += [9.0, 0.0]
    judge = Judge(data[:1000], data[1000:])
    scores = judge.score(gaussian(1000, 2, seed=2))
    assert scores.holes < 0.005
    assert not judge.at_floor(scores)["tvd_20"]
    assert not judge.at_floor(scores)["sliced"]


def test_other_held_out_points_beside_the_same_floor(judge):
    other = judge.against(gaussian(800, 2, seed=4) + 3.0)
    assert other.floor is judge.floor
    good, bad = (each.score(gaussian(800, 2, seed=5) + 3.0) for each in (other, judge))
    assert good.sliced < 0.2 < bad.sliced
