import numpy as np
import pytest
from scipy.stats import multivariate_normal

from cryoscape.priors.deconvolution import DeconvolvedMixture, fit_deconvolved, measurements
from cryoscape.priors.expectation_maximisation import MixtureEstimate


def sample(n=3000, seed=0):
    """Three narrow states of 60, 35 and 5 %, measured with errors of up to a third of their distances."""
    rng = np.random.default_rng(seed)
    state = rng.choice(3, n, p=[0.6, 0.35, 0.05])
    true = np.array([-1.5, 1.0, 4.0])[state] + 0.1 * rng.standard_normal(n)
    variance = rng.uniform(0.05, 0.6, (n, 1))
    value = true[:, None] + np.sqrt(variance) * rng.standard_normal((n, 1))
    return value, variance, state


def test_shares_means_and_widths_behind_the_errors():
    value, variance, state = sample(20_000)
    start = np.digitize(value[:, 0], [0.0, 2.5])
    found = fit_deconvolved(value, variance, start)
    np.testing.assert_allclose(found.weight, np.bincount(state) / len(state), atol=0.005)
    np.testing.assert_allclose(found.mean[:, 0], [-1.5, 1.0, 4.0], atol=0.05)
    # The truth is 0.1, and the errors are two to eight times that.
    assert np.sqrt(found.covariance[:, 0, 0]).max() < 0.18
    r = found.responsibilities(value, variance)
    np.testing.assert_allclose(r.sum(axis=1), 1.0)
    # A probability must come true as often as it says.
    unsure = (r[:, 0] > 0.2) & (r[:, 0] < 0.8)
    assert abs((state[unsure] == 0).mean() - r[unsure, 0].mean()) < 0.06


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


def test_several_dimensions_and_many_components_agree_with_the_definition():
    """Log joint densities in three dimensions against scipy, particle by particle."""
    rng = np.random.default_rng(3)
    value, variance = rng.standard_normal((30, 3)), rng.uniform(0.05, 2.0, (30, 3))
    root = rng.standard_normal((4, 3, 3))
    mixture = DeconvolvedMixture(
        rng.dirichlet(np.ones(4)), rng.standard_normal((4, 3)), root @ root.transpose(0, 2, 1), 0.0, 30
    )
    joint = mixture.log_joint(value, variance)
    for i in range(30):
        for k in range(4):
            total = mixture.covariance[k] + np.diag(variance[i])
            want = np.log(mixture.weight[k]) + multivariate_normal(mixture.mean[k], total).logpdf(value[i])
            assert abs(joint[i, k] - want) < 1e-9


def test_one_round_equals_the_posterior_moments_by_linear_algebra():
    """Means and covariances of the error-free codes given the measurements, one particle at a time."""
    rng = np.random.default_rng(4)
    value, variance = rng.standard_normal((40, 2)) * 2, rng.uniform(0.1, 0.5, (40, 2))
    start = fit_deconvolved(value, variance, np.arange(40) % 2, iterations=0)
    found = fit_deconvolved(value, variance, np.arange(40) % 2, iterations=1)
    r = start.responsibilities(value, variance)
    for k in range(2):
        s, mu = start.covariance[k], start.mean[k]
        gain = [s @ np.linalg.inv(s + np.diag(v)) for v in variance]
        code = np.array([mu + g @ (y - mu) for g, y in zip(gain, value, strict=True)])
        mean = r[:, k] @ code / r[:, k].sum()
        left = [s - g @ s + np.outer(b - mean, b - mean) for g, b in zip(gain, code, strict=True)]
        np.testing.assert_allclose(found.mean[k], mean, rtol=1e-7)
        covariance = np.tensordot(r[:, k], left, axes=1) / r[:, k].sum()
        np.testing.assert_allclose(found.covariance[k], covariance, rtol=1e-6, atol=1e-8)


def test_one_component_has_the_variance_in_excess_of_the_errors():
    """Far below the errors: a floor that is added in every round would pile up."""
    rng = np.random.default_rng(5)
    value = np.sqrt(1.05) * rng.standard_normal((4000, 1))
    start, errors = np.zeros(4000, dtype=int), np.ones((4000, 1))
    found = fit_deconvolved(value, errors, start, iterations=3000, tolerance=0.0)
    np.testing.assert_allclose(found.covariance[0, 0, 0], value.var() - 1, atol=0.002)


def test_constraints_are_kept_in_every_round():
    value, variance, _ = sample(500)

    def equal(mixture):
        shared = np.einsum("k,kij->ij", mixture.weight, mixture.covariance)
        return MixtureEstimate(mixture.weight, mixture.mean, np.tile(shared, (len(mixture.weight), 1, 1)))

    steps = [
        fit_deconvolved(value, variance, np.digitize(value[:, 0], [0.0, 2.5]), iterations=i, tie=equal)
        for i in (1, 4, 12)
    ]
    assert all(np.ptp(step.covariance) == 0.0 for step in steps)
    assert np.all(np.diff([step.log_likelihood for step in steps]) > 0)
