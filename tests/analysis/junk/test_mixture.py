"""Shares, strengths and posteriors on images drawn from the mixture itself."""

import numpy as np
import pytest
import torch

from cryoscape.analysis.junk.false_discovery import call_junk
from cryoscape.analysis.junk.mixture import CLASSES, fit_mixture
from cryoscape.analysis.junk.scan import Scan

N, DIM, MEAN, SD, RHO = 6000, 24, 1.2, 0.15, 1.5
SHARE = np.array([0.75, 0.15, 0.0, 0.10])
STRUCTURES = np.array([0.6, 0.3, 0.1])


@pytest.fixture(scope="module")
def drawn():
    """Real vectors of unit noise: templates, random signals, nothing; the scan and the true classes."""
    rng = np.random.default_rng(5)
    template = rng.normal(size=(3, DIM)) * 0.62
    label = rng.choice(4, N, p=SHARE)
    structure = rng.choice(3, N, p=STRUCTURES)
    signal = (MEAN + SD * rng.normal(size=N))[:, None] * template[structure]
    signal[label == 1] = np.sqrt(RHO) * rng.normal(size=((label == 1).sum(), DIM))
    signal[label == 3] = 0
    x = signal + rng.normal(size=(N, DIM))
    power = np.square(template).sum(axis=1)
    contaminants = [
        0.5 * np.square(x).sum(axis=1) * rho / (1 + rho) - 0.5 * DIM * np.log(1 + rho)
        for rho in (RHO, 4 * RHO)
    ]
    scan = Scan(x @ template.T, np.tile(power, (N, 1)), np.stack(contaminants, axis=1))
    return scan, label


@pytest.fixture(scope="module")
def fitted(drawn):
    return fit_mixture(drawn[0], resamples=50)


def test_shares_and_strength_come_out(drawn, fitted):
    true = np.bincount(drawn[1], minlength=4) / N
    np.testing.assert_allclose(fitted.share, true, atol=0.02)
    np.testing.assert_allclose(fitted.structure_share, STRUCTURES, atol=0.03)
    assert fitted.mean == pytest.approx(MEAN, abs=0.02)
    assert fitted.variance**0.5 == pytest.approx(SD, abs=0.06)
    low, high = np.quantile(fitted.resampled[:, 0], (0.025, 0.975))
    assert low < SHARE[0] < high
    assert high - low < 0.05


def test_posteriors_are_those_of_bayes_with_the_true_numbers(drawn, fitted):
    scan, _ = drawn
    precision = 1 / SD**2
    # The strength integrated out by completing the square, another way than the package's.
    a = scan.power + precision
    good = (
        0.5 * (scan.linear + MEAN * precision) ** 2 / a
        - 0.5 * MEAN**2 * precision
        - 0.5 * np.log(a / precision)
    )
    columns = [
        np.logaddexp.reduce(good + np.log(STRUCTURES), axis=1) + np.log(SHARE[0]),
        scan.contaminant[:, 0] + np.log(SHARE[1]),
        np.full(N, np.log(SHARE[3])),
    ]
    junk = np.exp(np.logaddexp(*columns[1:]) - np.logaddexp.reduce(columns))
    found = fitted.posterior[:, 1:].sum(axis=1)
    assert np.abs(found - junk).mean() < 0.015
    np.testing.assert_allclose(fitted.posterior.sum(axis=1), 1)
    assert (fitted.posterior[:, CLASSES.index("displaced")] == 0).all()


def test_probabilities_are_frequencies(drawn, fitted):
    junk, probability = drawn[1] != 0, fitted.posterior[:, 1:].sum(axis=1)
    for low, high in ((0.02, 0.2), (0.2, 0.5), (0.5, 0.8), (0.8, 0.98)):
        here = (probability > low) & (probability < high)
        error = np.sqrt((probability[here] * (1 - probability[here])).sum())
        assert here.sum() > 50
        assert abs(junk[here].sum() - probability[here].sum()) < 3.5 * error


def test_the_false_discovery_rate_is_what_was_asked_for(drawn, fitted):
    for rate in (0.02, 0.05, 0.2):
        called = call_junk(fitted.posterior[:, 0], rate)
        good = (drawn[1][called] == 0).mean()
        assert good == pytest.approx(rate, abs=4 * np.sqrt(rate * (1 - rate) / called.sum()))


def test_the_best_structure_and_what_the_others_add(drawn, fitted):
    scan, _ = drawn
    rows = np.arange(N)
    linear, power = scan.linear[rows, fitted.best], scan.power[rows, fitted.best]
    v = fitted.variance
    expected = (linear + fitted.mean / v) / (power + 1 / v)
    np.testing.assert_allclose(fitted.amplitude, expected, rtol=1e-9)
    alone = 0.5 * expected**2 * (power + 1 / v) - 0.5 * fitted.mean**2 / v - 0.5 * np.log1p(v * power)
    np.testing.assert_allclose(fitted.evidence[:, 0] - fitted.alternatives, alone, atol=1e-8)
    # The first structure is the commonest.
    value = fit_mixture(Scan(scan.linear[:, :1], scan.power[:, :1], scan.contaminant), resamples=20)
    assert np.corrcoef(fitted.single, value.single)[0, 1] > 0.99


def test_displaced_ones_are_a_class_of_their_own(drawn):
    scan, label = drawn
    displaced = np.where(label == 3, 6.0, -6.0) + np.random.default_rng(0).normal(size=N)
    found = fit_mixture(scan, displaced, resamples=20)
    assert found.share[CLASSES.index("displaced")] == pytest.approx(SHARE[3], abs=0.02)
    assert found.share[CLASSES.index("noise")] < 0.02


def test_more_contaminants_belong_to_their_class(drawn):
    scan, _ = drawn
    without = Scan(scan.linear, scan.power, scan.contaminant[:, 1:])
    found = fit_mixture(without, None, scan.contaminant[:, :1], resamples=20)
    again = fit_mixture(scan, resamples=20)
    np.testing.assert_allclose(found.posterior, again.posterior, atol=1e-3)


def test_nothing_but_good_particles():
    rng = np.random.default_rng(1)
    linear = 100 + 10 * rng.normal(size=(500, 1))
    found = fit_mixture(Scan(linear, np.full((500, 1), 100.0), np.full((500, 2), 5.0)), resamples=20)
    assert found.share[0] == pytest.approx(1, abs=1e-3)
    assert np.isfinite(found.evidence[:, [0, 1, 3]]).all()
    assert not call_junk(found.posterior[:, 0], 0.05).any()


def test_the_same_again(drawn, fitted):
    torch.manual_seed(123)
    again = fit_mixture(drawn[0], resamples=50)
    np.testing.assert_array_equal(again.resampled, fitted.resampled)
    np.testing.assert_array_equal(again.posterior, fitted.posterior)
