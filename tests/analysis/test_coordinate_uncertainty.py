"""Coordinate uncertainty against exact covariance propagation through linear decoders."""

import numpy as np
import pytest

from cryoscape.analysis.coordinate_uncertainty import (
    b_factors,
    member_displacement,
    posterior_displacement,
    state_displacement,
    unit_draws,
    widths_of_codes,
)
from cryoscape.training.config import Config
from tests.analysis.fakes import fake_run


def test_b_factor_of_one_axis():
    """An isotropic displacement of sd s along each axis has <|u|^2> = 3 s^2 and B = 8 pi^2 s^2."""
    assert b_factors(3 * 0.5**2) == pytest.approx(8 * np.pi**2 * 0.25)


@pytest.mark.parametrize(("d", "count"), [(3, 16), (8, 16), (12, 16), (1, 2)])
def test_draws_have_exact_moments(d, count):
    draws = unit_draws(d, count, 0)
    assert len(draws) >= count
    np.testing.assert_allclose(draws.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(draws.T @ draws / len(draws), np.eye(d), atol=1e-12)


def test_linear_decoder_is_exact(tmp_path):
    """Cov(r_n) = J_n diag(sd^2) J_n^T, and <|u_n|^2> is its trace."""
    run = fake_run(tmp_path)
    sd = np.array([[0.3, 0.1, 2.0], [1.0, 0.0, 0.5]])
    jacobian = run.modes.transpose(1, 2, 0)
    covariance = np.einsum("nid,sd,njd->snij", jacobian, sd**2, jacobian)
    found = posterior_displacement(run, np.array([[0.5, -1.0, 0.0], [0.0, 2.0, 1.0]]), sd)
    np.testing.assert_allclose(found, np.trace(covariance, axis1=2, axis2=3), rtol=1e-4, atol=1e-5)


def test_states_have_the_spread_of_their_particles(tmp_path):
    """Law of total variance: between the means of the particles, and within each posterior."""
    rng = np.random.default_rng(0)
    group = np.arange(4000) % 2
    z = np.stack(
        [3.0 * group + 0.4 * rng.standard_normal(4000), rng.standard_normal(4000), np.zeros(4000)], 1
    )
    run = fake_run(tmp_path, z=z)
    sd = np.full(z.shape, 0.3)
    weights = np.eye(2)[group]
    found = state_displacement(run, z, sd, weights, draws=2000)
    variance = np.array([0.4**2 + 0.3**2, 1.0 + 0.3**2, 0.3**2])
    want = np.einsum("dni,d->n", run.modes**2, variance)
    np.testing.assert_allclose(found, [want, want], rtol=0.1, atol=1e-4)
    nobody = state_displacement(run, z, sd, np.zeros((4000, 1)))
    np.testing.assert_array_equal(nobody, 0)


def test_bits_are_drawn_as_bits(tmp_path):
    """Of a bit with probability q the variance is q (1 - q), whatever its width is said to be."""
    run = fake_run(tmp_path)
    run.config = Config(prior={"kind": "bernoulli"})
    q = np.array([[0.2, 1.0, 0.0]])
    found = posterior_displacement(run, q, np.full((1, 3), 9.0), draws=4000)
    np.testing.assert_allclose(found[0], 0.16 * np.square(run.modes[0]).sum(-1), rtol=0.1, atol=1e-4)


def test_members_about_their_mean():
    rng = np.random.default_rng(1)
    coords, weight = rng.standard_normal((5, 7, 3)), rng.random(5)
    share = weight / weight.sum()
    mean = sum(w * c for w, c in zip(share, coords))
    want = sum(w * np.square(c - mean).sum(-1) for w, c in zip(share, coords))
    np.testing.assert_allclose(member_displacement(coords, weight), want)
    np.testing.assert_allclose(member_displacement(coords[:1], weight[:1]), 0, atol=1e-12)


def test_other_codes_have_the_width_of_the_nearest_particle(tmp_path):
    run = fake_run(tmp_path, n=50)
    run.embedding.z_sd[:] = np.arange(150).reshape(50, 3)
    np.testing.assert_array_equal(
        widths_of_codes(run, run.embedding.z[[7, 30]] + 1e-4), run.embedding.z_sd[[7, 30]]
    )
    run.embedding = None
    assert widths_of_codes(run, np.zeros((2, 3))) is None
