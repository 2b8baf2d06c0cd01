"""Drawn tables against simulated images, coverage of intervals that are right and of some that are not."""

import numpy as np
import pytest
import torch

from cryoscape.analysis.populations.likelihood_table import image_table
from cryoscape.analysis.validation.calibration import (
    LEVELS,
    calibration_check,
    coverage_of,
    population_coverage,
    projection_products,
)
from cryoscape.analysis.validation.results import Status
from cryoscape.analysis.validation.simulated_images import SimulatedImages
from cryoscape.errors import InputError
from cryoscape.models.likelihoods import CorrelationLikelihood
from tests.analysis.validation.imaging import BOX, CUTOFF, PIXEL, likelihood_of, particles, scenes

FOUR = scenes(0.0, 8.0, 17.0, 25.0)


@pytest.fixture(scope="module")
def products():
    like = likelihood_of(FOUR[0], 40.0)
    return like, projection_products(like, FOUR, particles(300), torch.arange(300))


def test_drawn_tables_are_those_of_simulated_images(products):
    """Means and covariances of one image's row over the noise, less the row's mean."""
    like, found = products
    one = particles(300)
    n, row, structure = 3000, 7, 2
    repeated = type(one)(
        one.rotations[row : row + 1].expand(n, 3, 3), one.transfer[row : row + 1].expand(n, -1, -1)
    )
    images = SimulatedImages(repeated, like, FOUR, torch.full((n,), structure))
    table = image_table(like, FOUR, images, torch.arange(n))
    want = table - table.mean(axis=1, keepdims=True)
    rng = np.random.default_rng(0)
    drawn = np.stack([found.draw(np.full(300, structure), rng)[row] for _ in range(n)])
    drawn -= drawn.mean(axis=1, keepdims=True)
    error = want.std(axis=0) / np.sqrt(n)
    assert (np.abs(want.mean(0) - drawn.mean(0)) < 5 * np.sqrt(2) * error).all()
    scale = np.outer(want.std(0), want.std(0))
    np.testing.assert_allclose(np.cov(drawn.T) / scale, np.cov(want.T) / scale, atol=0.12)


def test_roots_are_roots(products):
    _, found = products
    squares = found.root @ found.root.swapaxes(1, 2)
    np.testing.assert_allclose(squares, found.gram, atol=1e-8 * found.gram.max())


def test_intervals_of_the_fit_cover(products):
    """Two states of a motion that the images resolve: the chances that the levels say, and no bias."""
    _, found = products
    member = np.array([[1, 0], [1, 0], [0, 1], [0, 1]], dtype=float)
    weight = np.array([0.3, 0.3, 0.2, 0.2])
    populations, energies = population_coverage(found, weight, member, repeats=60, resamples=60, seed=1)
    np.testing.assert_allclose(populations.truth, [0.6, 0.4])
    assert energies.truth == pytest.approx([np.log(0.6 / 0.4)])
    for one in (populations, energies):
        assert (np.abs(one.covered - LEVELS) < 3 * one.covered_error).all()
        assert (np.abs(one.bias) < 4 * one.bias_error).all()
    np.testing.assert_allclose(populations.covered_error[0], np.sqrt([0.25 / 60, 0.09 / 60, 0.0475 / 60]))
    check = calibration_check(populations, energies, 300)
    assert check.status is Status.PASSED
    assert check.number == 11
    assert "60 sets of 300 images" in check.text
    again, _ = population_coverage(found, weight, member, repeats=3, resamples=5, seed=1)
    twice, _ = population_coverage(found, weight, member, repeats=3, resamples=5, seed=1)
    np.testing.assert_array_equal(again.bias, twice.bias)


def normal_sets(width, bias, repeats=200):
    rng = np.random.default_rng(0)
    truth = np.array([0.4, 0.6])
    estimates = truth + bias + 0.05 * rng.standard_normal((repeats, 2))
    return truth, estimates, estimates[:, None] + width * rng.standard_normal((repeats, 400, 2))


def test_coverage_of_normal_intervals():
    found = coverage_of(*normal_sets(0.05, 0.0))
    np.testing.assert_allclose(found.covered, np.tile(LEVELS, (2, 1)), atol=0.08)
    assert (found.chance > 0.01).all()
    np.testing.assert_allclose(found.width, 2 * 1.96 * 0.05, rtol=0.03)


@pytest.mark.parametrize(("width", "bias"), [(0.03, 0.0), (0.05, 0.06)])
def test_narrow_or_biased_intervals_fail(width, bias):
    found = coverage_of(*normal_sets(width, bias))
    assert (found.chance < 1e-4).all()
    assert found.bias == pytest.approx([bias] * 2, abs=0.012)
    assert calibration_check(found, None, 100).status is Status.FAILED


def test_an_empty_state_has_no_free_energy(products):
    _, found = products
    member = np.eye(4)[:, :2]
    populations, energies = population_coverage(
        found, np.array([1.0, 0, 0, 0]), member, repeats=2, resamples=4
    )
    assert energies is None
    assert populations.truth[1] == 0


def test_without_nats_it_refuses():
    with pytest.raises(InputError, match="nats"):
        projection_products(CorrelationLikelihood(BOX, PIXEL, CUTOFF), FOUR, particles(3), torch.arange(3))
