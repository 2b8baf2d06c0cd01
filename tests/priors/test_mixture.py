import numpy as np
import pytest
import torch
from sklearn.mixture import GaussianMixture

from cryoscape.priors.expectation_maximisation import improve, split_heaviest, start_mixture
from cryoscape.priors.fitting import PosteriorSamples
from cryoscape.priors.gaussians import CovarianceFactors
from cryoscape.priors.mixture import MixturePrior

WEIGHT = np.array([0.6, 0.37, 0.03])
MEAN = np.array([[0.0, 0.0, 0.0], [2.0, 1.0, 0.0], [-1.0, 2.5, 1.0]])
FACTOR = np.array([[0.3, 0, 0], [0.2, 0.2, 0], [0, 0.1, 0.4]])


def three_states(n, seed=0):
    """Points of three states with covariance FACTOR FACTOR', and their states."""
    rng = np.random.default_rng(seed)
    state = rng.choice(3, n, p=WEIGHT)
    return MEAN[state] + rng.standard_normal((n, 3)) @ FACTOR.T, state


def in_order(states):
    """Rows of fitted states in the order of MEAN."""
    return np.linalg.norm(states.mean - MEAN[:, None], axis=2).argmin(1)


def test_fit_finds_weights_means_and_covariances():
    z, state = three_states(6000)
    prior = MixturePrior(3, 3)
    report = prior.fit(z, steps=60)
    found = prior.states()
    k = in_order(found)
    np.testing.assert_allclose(found.weight[k], np.bincount(state) / len(state), atol=0.004)
    np.testing.assert_allclose(found.mean[k], MEAN, atol=0.08)
    np.testing.assert_allclose(found.covariance[k[:2]], np.tile(FACTOR @ FACTOR.T, (2, 1, 1)), atol=0.02)
    label = prior.responsibilities(torch.from_numpy(z).float()).argmax(1).numpy()
    assert (k[state] == label).mean() > 0.995
    assert report.warnings == ()
    assert report.log_prob == pytest.approx(
        GaussianMixture(3, random_state=0).fit(z).score(three_states(4000, 1)[0]), abs=0.15
    )


def test_log_density_is_that_of_scikit_learn():
    z, _ = three_states(500)
    model = GaussianMixture(4, random_state=0).fit(z)
    prior = MixturePrior(3, 4, floor=1e-4).double()
    with torch.no_grad():
        prior.logits.copy_(torch.from_numpy(np.log(model.weights_)))
        prior.gaussians.set(model.means_, model.covariances_)
    np.testing.assert_allclose(prior.log_prob(z).detach(), model.score_samples(z), atol=1e-6)


def test_covariances_are_kept_and_never_below_the_floor():
    rng = np.random.default_rng(3)
    root = rng.standard_normal((5, 4, 4))
    wanted = torch.from_numpy(root @ root.transpose(0, 2, 1) + 0.1 * np.eye(4))
    wanted[4] = torch.diag(torch.tensor([1.0, 1.0, 1.0, 1e-9]))
    factors = CovarianceFactors(5, 4, 0.05).double().requires_grad_(False)
    factors.set(wanted)
    torch.testing.assert_close(factors.matrices()[:4], wanted[:4], rtol=1e-9, atol=1e-9)
    assert factors.narrow().tolist() == [False, False, False, False, True]
    factors.log_diagonal.fill_(-30.0)
    assert float(torch.linalg.eigvalsh(factors.matrices()).min()) >= 0.05**2 - 1e-12


def test_rounds_of_improvement_do_not_lose_likelihood():
    z, _ = three_states(1500)
    points = torch.from_numpy(z)
    start = start_mixture(points, 6, 0.01, torch.Generator().manual_seed(0))

    def score(mixture):
        prior = MixturePrior(3, 6, floor=1e-3).double()
        prior._take(mixture)
        return float(prior.log_prob(points).mean())

    better = improve(points, start, 1e-3, iterations=25, tolerance=0.0, pseudo=0.0)
    assert score(better) >= score(start) - 1e-4
    reference = GaussianMixture(
        6, reg_covar=1e-6, max_iter=25, tol=0, weights_init=start.weight, means_init=start.mean,
        precisions_init=np.linalg.inv(start.covariance),
    )  # fmt: skip
    with pytest.warns(UserWarning, match="converge"):
        reference.fit(z)
    assert score(better) == pytest.approx(reference.score(z), abs=2e-3)


def test_splitting_keeps_the_moments():
    z, _ = three_states(400)
    few = start_mixture(torch.from_numpy(z), 3, 0.01, torch.Generator().manual_seed(0))
    many = split_heaviest(few, 7)
    assert len(many.weight) == 7
    for mixture in (few, many):
        mean = mixture.weight @ mixture.mean
        np.testing.assert_allclose(mean, few.weight @ few.mean, atol=1e-12)
        centred = mixture.mean - mean
        total = (
            np.einsum("k,kij->ij", mixture.weight, mixture.covariance)
            + (centred.T * mixture.weight) @ centred
        )
        np.testing.assert_allclose(total, np.cov(z.T, bias=True) + 1e-4 * np.eye(3), atol=2e-5)


def test_few_particles_get_a_mixture_all_the_same():
    prior = MixturePrior(3, 16)
    report = prior.fit(three_states(40)[0], steps=5)
    assert np.isfinite(report.log_prob)
    assert bool(torch.isfinite(prior.sample(10)).all())


def test_dead_components_are_named():
    prior = MixturePrior(3, 4)
    with torch.no_grad():
        prior.logits[1:3] = -20.0
    assert prior.faults() == ("2 of the 4 components of the mixture are dead (no weight)",)


def test_points_on_a_line_are_named():
    t = np.random.default_rng(0).standard_normal((500, 1))
    prior = MixturePrior(3, 2)
    assert "as narrow as the floor" in prior.fit(t * [1.0, 2.0, -1.0], steps=0).warnings[0]


def posteriors(n, sd, seed=0):
    """Posteriors under N(0, I) of particles measured with errors `sd` (3,), and their states."""
    true, state = three_states(n, seed)
    rng = np.random.default_rng(seed + 1)
    variance = np.square(sd) * rng.uniform(0.7, 1.4, (n, 3))
    value = 0.6 * true + np.sqrt(variance) * rng.standard_normal((n, 3))
    shrink = 1 / (1 + variance)
    return torch.tensor(value * shrink).float(), torch.tensor(np.sqrt(variance * shrink)).float(), state


def test_deconvolution_finds_the_law_behind_blurred_and_shrunken_posteriors():
    mean, sd, state = posteriors(5000, [0.25, 0.25, 0.25])
    data = PosteriorSamples.of_gaussians(mean, sd, samples=4)
    blurred, sharp = MixturePrior(3, 3), MixturePrior(3, 3)
    blurred.fit(data)
    report = sharp.fit(data, "deconvolved")
    found = sharp.states()
    k = in_order(type(found)(found.weight, found.mean / 0.6, found.covariance, found.names))
    np.testing.assert_allclose(found.weight[k], np.bincount(state) / len(state), atol=0.01)
    np.testing.assert_allclose(found.mean[k[:2]] / 0.6, MEAN[:2], atol=0.05)
    np.testing.assert_allclose(
        found.covariance[k[:2]] / 0.36, np.tile(FACTOR @ FACTOR.T, (2, 1, 1)), atol=0.04
    )
    assert report.steps == 0
    wide = blurred.states()
    assert wide.covariance[wide.weight.argmax(), 0, 0] > 1.5 * found.covariance[k[0], 0, 0]


def test_directions_without_measurement_stay_standard_normal():
    mean, sd, _ = posteriors(800, [0.25, 0.25, 1e4])
    prior = MixturePrior(3, 2)
    prior.fit(PosteriorSamples.of_gaussians(mean, sd, samples=2), "deconvolved")
    states = prior.states()
    np.testing.assert_allclose(states.mean[:, 2], 0.0, atol=1e-5)
    np.testing.assert_allclose(states.covariance[:, 2], np.tile([0.0, 0.0, 1.0], (2, 1)), atol=1e-5)
