"""Basins of a mixture, against densities whose maxima are known."""

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import multivariate_normal

from cryoscape.analysis.prior_fitting.states import find_basins
from cryoscape.priors.base import PriorStates


def states(weight, mean, sd=1.0, d=2):
    mean = np.atleast_2d(np.asarray(mean, dtype=float))
    if mean.shape[1] < d:
        mean = np.pad(mean, ((0, 0), (0, d - mean.shape[1])))
    k = len(mean)
    sd = np.broadcast_to(np.asarray(sd, dtype=float), (k,))
    covariance = np.eye(d) * sd[:, None, None] ** 2
    return PriorStates(np.asarray(weight), mean, covariance, tuple(f"component {i + 1}" for i in range(k)))


@pytest.mark.parametrize(("gap", "n"), [(1.5, 1), (1.9, 1), (4.0, 2)])
def test_two_equal_gaussians_have_two_maxima_from_two_sd_on(gap, n):
    found = find_basins(states([0.5, 0.5], [[0.0], [gap]]))
    assert len(found.share) == n


def test_a_shallow_dip_joins_and_a_deep_one_does_not():
    """The dip between two equal Gaussians at distance 2 a: log of the density at a peak and halfway."""
    for gap in (2.4, 2.8, 3.2, 3.6):
        p = states([0.5, 0.5], [[0.0], [gap]], d=1)

        def density(x, gap=gap):
            return 0.5 * (np.exp(-0.5 * x**2) + np.exp(-0.5 * (x - gap) ** 2))

        peak = density(minimize(lambda x: -density(x[0]), [0.0]).x[0])
        dip = np.log(peak / density(gap / 2))
        assert len(find_basins(p).share) == (1 if dip < 0.5 else 2)


def test_a_chain_of_components_is_one_state_and_shares_add_up():
    chain = [[x] for x in np.arange(0, 10, 1.2)]
    n = len(chain)
    weight = np.r_[np.full(n, 0.7 / n), 0.25, 0.05]
    found = find_basins(states(weight, [*chain, [30.0], [50.0]]))
    np.testing.assert_allclose(found.share, [0.7, 0.25, 0.05])
    assert [len(m) for m in found.members] == [n, 1, 1]
    assert found.label.tolist() == [0] * n + [1, 2]
    assert found.members[2] == (f"component {n + 2}",)


def test_the_order_of_the_parts_does_not_matter():
    rng = np.random.default_rng(0)
    mean, weight = rng.normal(size=(12, 3)) * 3, rng.dirichlet(np.ones(12))
    order = rng.permutation(12)
    one = find_basins(states(weight, mean, d=3))
    two = find_basins(states(weight[order], mean[order], d=3))
    np.testing.assert_allclose(one.share, two.share)
    assert {frozenset(m) for m in _named(one.label)} == {frozenset(order[list(m)]) for m in _named(two.label)}


def _named(label):
    return [np.flatnonzero(label == b) for b in np.unique(label)]


def test_a_negligible_part_makes_no_state():
    found = find_basins(states([0.6, 0.3995, 0.0005], [[0.0], [10.0], [4.0]], sd=[1.0, 1.0, 0.1]))
    assert len(found.share) == 2
    assert found.share.sum() == pytest.approx(1.0)


def test_configurations_without_width_are_all_different():
    p = PriorStates(np.full(4, 0.25), np.eye(4), np.zeros((4, 4, 4)), tuple("abcd"))
    assert find_basins(p).label.tolist() == [0, 1, 2, 3]


def test_maxima_are_those_of_a_direct_search():
    """A mixture of unlike Gaussians: as many basins as distinct maxima found by an optimiser."""
    mean = np.array([[0, 0], [0.8, 0.3], [6, 0], [0, 7], [6.5, 1.0]], dtype=float)
    covariance = np.stack([np.diag(v) for v in ([1, 2], [2, 1], [0.5, 0.5], [1, 1], [1, 3])]).astype(float)
    weight = np.array([0.3, 0.2, 0.2, 0.2, 0.1])
    parts = [multivariate_normal(m, c) for m, c in zip(mean, covariance)]

    def minus_log(x):
        return -np.log(sum(w * part.pdf(x) for w, part in zip(weight, parts)))

    ends = np.array([minimize(minus_log, m, options={"gtol": 1e-8}).x for m in mean])
    distinct = []
    for end in ends:
        if not any(np.linalg.norm(end - other) < 1e-3 for other in distinct):
            distinct.append(end)
    found = find_basins(PriorStates(weight, mean, covariance, tuple("abcde")))
    # Two of them are hardly apart: at most one more than the basins is a maximum in its own right.
    assert len(found.share) <= len(distinct)
    assert len(found.share) == 3
