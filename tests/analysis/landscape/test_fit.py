"""Populations of a continuous motion: the right maximum, and intervals that cover a truth that is known."""

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import norm

from cryoscape.analysis.landscape import fit
from cryoscape.analysis.landscape.fit import fit_populations, log_volumes
from cryoscape.analysis.landscape.profile import Axis, interval, make_profile
from cryoscape.analysis.populations.farthest_points import farthest_points

X = np.linspace(0, 30, 1501)
EDGES = np.linspace(2, 28, 14)
ERROR, FEW, MANY = 2.5, 24, 200


def density():
    """Double well of 2.5 kT, one side a little deeper, on X."""
    u = (X / 30 - 0.5) / 0.3
    p = np.exp(-2.5 * (u**2 - 1) ** 2 - 0.3 * u)
    return p / p.sum()


def places(seed):
    """Places of structures along the motion, chosen as those of a run are."""
    pool = np.random.default_rng(seed).uniform(-1, 31, 1000)
    return pool[farthest_points(pool[:, None], MANY)]


def measured(true, n, error, at, seed):
    """Log densities (n, K) of blurred draws about places, and the draws without the blur."""
    rng = np.random.default_rng(seed)
    return norm(at, error).logpdf(true[:, None] + error * rng.standard_normal(n)[:, None])


def fitted(seed, n=1000, resamples=60):
    at = places(seed)
    true = np.random.default_rng(1000 + seed).choice(X, n, p=density())
    table = measured(true, n, ERROR, at[:FEW], seed)
    return at, table, fit_populations(table, np.abs(at[:, None] - at), resamples=resamples, seed=seed)


def test_bands_and_populations_cover_the_truth():
    """95 % intervals over 40 sets: of every bin within 4 kT, and of the left well; counting fails."""
    bins, counted, well = [], [], []
    truth = np.histogram(X, EDGES, weights=density())[0]
    left = density()[X < 15].sum()
    for seed in range(40):
        at, table, found = fitted(seed)
        axis = Axis("x", "A", None, EDGES)
        profile = make_profile([axis], at[None], found.fine, found.resampled, len(table))
        energy = -np.log(truth / profile.population.max())
        seen = energy - energy.min() < 4
        bins.append(((profile.low <= energy) & (energy <= profile.high))[seen])
        low, high = interval(found.resampled[:, at < 15].sum(axis=1))
        well.append(low <= left <= high)
        share = np.histogram(at[table.argmax(axis=1)], EDGES)[0] / len(table)
        counted.append((np.abs(share - truth) <= 1.96 * np.sqrt(share * (1 - share) / len(table)))[seen])
    assert 0.90 <= np.mean(bins) <= 0.98
    assert 0.90 <= np.mean(well) <= 1.0
    assert np.mean(counted) < 0.4


def test_isolated_states_are_not_smeared():
    """Three states, the last far off and of 5 %: the shares that were drawn, with the errors of counts."""
    at, centres, share = places(0), np.array([6.0, 12.0, 27.0]), np.array([0.6, 0.35, 0.05])
    state = np.array([at < 9, (at >= 9) & (at < 20), at >= 20]).T
    widths = []
    for seed in range(6):
        true = np.random.default_rng(seed).choice(centres, 800, p=share)
        table = measured(true, 800, 1.5, at[:FEW], seed)
        found = fit_populations(table, np.abs(at[:, None] - at), resamples=100, seed=seed)
        drawn = (true[:, None] == centres).mean(axis=0)
        np.testing.assert_allclose(found.fine @ state, drawn, atol=0.015)
        assert found.fine[(at > 17) & (at < 23)].sum() < 0.01
        low, high = interval(found.resampled @ state)
        widths.append((high - low) / (2 * 1.96 * np.sqrt(drawn * (1 - drawn) / 800)))
    np.testing.assert_allclose(np.mean(widths, axis=0), 1, atol=0.15)


def test_the_fit_is_the_maximum_of_evidence_and_prior(monkeypatch):
    """With one length and amplitude, against a general optimiser over the log density."""
    monkeypatch.setattr(fit, "LENGTHS", (3.0,))
    monkeypatch.setattr(fit, "AMPLITUDES", (2.0,))
    at = places(3)[:60]
    table = measured(np.random.default_rng(5).choice(X, 300, p=density()), 300, ERROR, at[:8], 5)
    distance = np.abs(at[:, None] - at)
    found = fit_populations(table, distance, resamples=0)
    near = distance[:8, :8]
    spacing = np.sort(near, axis=1)[:, 1].mean()
    scaled = np.sqrt(5) * near / (3 * spacing)
    covariance = 4 * ((1 + scaled + scaled**2 / 3) * np.exp(-scaled) + 1e-6 * np.eye(8))
    volume = -np.log(np.exp(-0.5 * (near / spacing) ** 2).sum(axis=1))
    np.testing.assert_allclose(log_volumes(near), volume)

    def loss(f):
        logits = f + volume
        log_w = logits - np.logaddexp.reduce(logits)
        fit = np.logaddexp.reduce(table + log_w, axis=1).sum()
        return 0.5 * f @ np.linalg.solve(covariance, f) - fit

    best = minimize(loss, np.zeros(8), method="BFGS", options={"gtol": 1e-5}).x + volume
    np.testing.assert_allclose(found.weight, np.exp(best - np.logaddexp.reduce(best)), atol=2e-4)
    np.testing.assert_allclose(found.shared.sum(axis=1), 1, atol=1e-12)
    np.testing.assert_allclose(found.fine, found.weight @ found.shared, atol=1e-12)
    evidence = np.logaddexp.reduce(table + np.log(found.weight), axis=1).mean()
    assert found.evidence == pytest.approx(evidence, abs=1e-10)


def test_where_the_images_say_nothing_the_density_is_even_and_the_band_is_that_of_the_prior(monkeypatch):
    monkeypatch.setattr(fit, "LENGTHS", (1.0,))
    monkeypatch.setattr(fit, "AMPLITUDES", (1.5,))
    at = places(1)[:10]
    found = fit_populations(np.zeros((200, 10)), np.abs(at[:, None] - at), resamples=400)
    per_volume = found.weight / np.exp(log_volumes(np.abs(at[:, None] - at)))
    np.testing.assert_allclose(per_volume / per_volume.mean(), 1, atol=1e-6)
    # The two ends hardly know of one another.
    drawn = found.resampled[:, [at.argmin(), at.argmax()]]
    assert np.log(drawn[:, 0] / drawn[:, 1]).std() == pytest.approx(1.5 * np.sqrt(2), rel=0.12)


def test_constants_seeds_and_groups():
    at, table, first = fitted(2, n=300, resamples=5)
    distance = np.abs(at[:, None] - at)
    shifted = table + np.random.default_rng(0).normal(scale=300, size=(300, 1))
    second = fit_populations(shifted, distance, resamples=5, seed=2)
    np.testing.assert_allclose(first.resampled, second.resampled, atol=1e-8)
    other = fit_populations(table, distance, resamples=5, seed=3)
    assert not np.allclose(first.resampled, other.resampled)
    np.testing.assert_allclose(first.fine, other.fine, atol=1e-12)
    # Images in 30 groups that are copies of one another hold as much as 30 images.
    few = np.repeat(table[:30], 20, axis=0)
    alone = fit_populations(few, distance, resamples=30, seed=1)
    grouped = fit_populations(few, distance, groups=np.repeat(np.arange(30), 20), resamples=30, seed=1)
    left = at < 15
    assert grouped.resampled[:, left].sum(1).std() > 2 * alone.resampled[:, left].sum(1).std()
