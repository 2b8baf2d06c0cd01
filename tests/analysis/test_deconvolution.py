import numpy as np
import pytest

from cryoscape.analysis.deconvolution import fit_deconvolved, measurements


def sample(n=3000, seed=0):
    """Three narrow states of 60, 35 and 5 %, measured with errors of up to a third of their distances."""
    rng = np.random.default_rng(seed)
    state = rng.choice(3, n, p=[0.6, 0.35, 0.05])
    true = np.array([-1.5, 1.0, 4.0])[state] + 0.1 * rng.standard_normal(n)
    variance = rng.uniform(0.05, 0.6, (n, 1))
    value = true[:, None] + np.sqrt(variance) * rng.standard_normal((n, 1))
    return value, variance, state


def test_shares_means_and_widths_behind_the_errors():
    value, variance, state = sample()
    start = np.digitize(value[:, 0], [0.0, 2.5])
    found = fit_deconvolved(value, variance, start)
    np.testing.assert_allclose(found.weight, np.bincount(state) / len(state), atol=0.01)
    np.testing.assert_allclose(found.mean[:, 0], [-1.5, 1.0, 4.0], atol=0.1)
    assert np.sqrt(found.covariance[:, 0, 0]).max() < 0.3
    r = found.responsibilities(value, variance)
    np.testing.assert_allclose(r.sum(axis=1), 1.0)
    # A probability must come true as often as it says.
    unsure = (r[:, 0] > 0.2) & (r[:, 0] < 0.8)
    assert abs((state[unsure] == 0).mean() - r[unsure, 0].mean()) < 0.1


def test_the_criterion_counts_the_states_and_not_their_errors():
    value, variance, _ = sample()
    starts = [np.digitize(value[:, 0], edges) for edges in ([], [0.0], [0.0, 2.5], [-1.5, 0.0, 2.5])]
    bic = [fit_deconvolved(value, variance, start).bic for start in starts]
    assert int(np.argmin(bic)) == 2


def test_likelihood_equals_the_definition():
    value, variance, _ = sample(40)
    mixture = fit_deconvolved(value, variance, np.digitize(value[:, 0], [0.0]), iterations=2)
    total = mixture.covariance[:, 0, 0] + variance
    density = mixture.weight * np.exp(-((value - mixture.mean[:, 0]) ** 2) / (2 * total))
    np.testing.assert_allclose(
        mixture.log_joint(value, variance), np.log(density / np.sqrt(2 * np.pi * total)), rtol=1e-9
    )


def test_the_prior_is_divided_out_and_idle_directions_are_left_out():
    rng = np.random.default_rng(1)
    y, v = 3.0 + rng.standard_normal(500), 0.25
    # Posterior of a standard normal prior and a measurement y of variance v.
    z = np.stack([y / (1 + v), 0.01 * rng.standard_normal(500)], axis=1)
    sd = np.stack([np.full(500, np.sqrt(v / (1 + v))), np.full(500, 0.999)], axis=1)
    found = measurements(z, sd)
    assert found.active.tolist() == [True, False]
    np.testing.assert_allclose(found.value[:, 0], y, rtol=1e-6)
    np.testing.assert_allclose(found.variance, v, rtol=1e-6)


def test_a_collapsed_code_keeps_one_direction():
    z = np.random.default_rng(2).standard_normal((50, 3)) * [0.001, 0.02, 0.001]
    assert measurements(z, np.ones((50, 3))).active.tolist() == [False, True, False]


@pytest.mark.parametrize("k", [1, 3])
def test_likelihood_never_falls(k):
    value, variance, _ = sample(300)
    start = np.arange(300) % k
    steps = [fit_deconvolved(value, variance, start, iterations=i).log_likelihood for i in (1, 3, 8, 20)]
    assert np.all(np.diff(steps) > -1e-3)
