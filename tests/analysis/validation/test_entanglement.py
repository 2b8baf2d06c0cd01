"""Populations by view: maxima and errors against general optimisers, chances against simulations, and the two
runs that must be told apart: information that follows the view, and a state that does."""

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.stats import beta, kstest

from cryoscape.analysis.validation.entanglement import (
    ENTANGLED_SHARE,
    cell_populations,
    defocus_cells,
    entanglement_check,
    view_cells,
    view_weights,
    weighted_population,
)
from cryoscape.analysis.validation.results import Status
from cryoscape.analysis.validation.view_information import mutual_information, view_information


def views(n, rng, towards=None, strength=3.0):
    """Uniform directions, or some that crowd around one."""
    found = rng.standard_normal((n, 3)) + (0.0 if towards is None else strength * np.asarray(towards))
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def evidence(state, nats, rng):
    """Log evidence (n,) of low and high for images of a state, `nats` apart on average: normal of variance
    2 nats, as of two structures in Gaussian noise."""
    ratio = np.where(state, nats, -nats) + np.sqrt(2 * nats) * rng.standard_normal(len(state))
    base = 30 * rng.standard_normal(len(state))
    return base, base + ratio


def view_nats(directions, scale):
    """Nats that depend on the view: none along z, most across."""
    return scale * (1 - directions[:, 2] ** 2) + 1e-3


def test_population_and_error_are_those_of_the_likelihood():
    rng = np.random.default_rng(0)
    cell = rng.integers(0, 3, 900)
    state = rng.random(900) < np.array([0.2, 0.5, 0.8])[cell]
    low, high = evidence(state, np.full(900, 1.5), rng)
    found = cell_populations(low, high, cell)
    for c in range(3):
        d = (high - low)[cell == c]

        def loss(p, d=d):
            return -np.log(1 - p + p * np.exp(d)).sum()

        best = minimize_scalar(loss, bounds=(1e-6, 1 - 1e-6), method="bounded", options={"xatol": 1e-9}).x
        assert found.population[c] == pytest.approx(best, abs=1e-6)
        bend = (loss(best + 1e-3) - 2 * loss(best) + loss(best - 1e-3)) / 1e-6
        assert found.error[c] == pytest.approx(bend**-0.5, rel=1e-3)
    both = cell_populations(low, high, np.zeros(900, dtype=int))
    assert found.shared == pytest.approx(both.population[0])
    np.testing.assert_array_equal(found.count, np.bincount(cell))
    assert both.p_value == 1
    assert both.share == 0


def test_no_image_is_too_sure():
    low = np.array([0.0, 0, 0, 0])
    high = np.array([900.0, 900, 900, -900])
    found = cell_populations(low, high, np.zeros(4, dtype=int))
    assert found.shared == pytest.approx(0.75)
    assert found.shared_error == pytest.approx(np.sqrt(0.75 * 0.25 / 4))
    empty = cell_populations(high, high - 900, np.array([0, 0, 1, 1]))
    assert empty.shared == pytest.approx(0, abs=1e-9)
    assert empty.share < ENTANGLED_SHARE


def test_chances_are_chances():
    """With equal populations and information that follows the view p-values are even."""
    found = []
    for seed in range(150):
        rng = np.random.default_rng(seed)
        directions = views(800, rng)
        low, high = evidence(rng.random(800) < 0.4, view_nats(directions, 3.0), rng)
        found.append(cell_populations(low, high, view_cells(directions)).p_value)
    assert kstest(found, "uniform").pvalue > 0.01
    assert np.mean(np.array(found) < 0.05) <= 0.1


def test_share_of_beta_populations_is_found():
    """Against the Beta law that populations were drawn from, and zero where they are equal."""
    law = beta(0.4 * 15, 0.6 * 15)
    want, found = law.std() / np.sqrt(0.4 * 0.6), []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        cell = np.repeat(np.arange(12), 250)
        state = rng.random(3000) < law.rvs(12, random_state=rng)[cell]
        found.append(cell_populations(*evidence(state, np.full(3000, 2.0), rng), cell).share)
    # With a free mean a maximum of the likelihood over twelve cells is a twenty-fourth too low.
    assert np.mean(found) == pytest.approx(want, rel=0.12)
    assert cell_populations(*evidence(rng.random(3000) < 0.4, np.full(3000, 2.0), rng), cell).share < 0.06


def real_motion(seed, n=3000, share=0.4, scale=2.0, **crowded):
    rng = np.random.default_rng(seed)
    directions = views(n, rng, **crowded)
    low, high = evidence(rng.random(n) < share, view_nats(directions, scale), rng)
    return low, high, directions, rng.uniform(8000, 20000, n)


def test_a_real_motion_is_not_entangled_although_its_code_follows_the_view():
    low, high, directions, defocus = real_motion(0)
    posterior = 1 / (1 + np.exp(-(high - low + np.log(0.4 / 0.6))))
    check, entangled = entanglement_check(low, high, directions, defocus, code=posterior)
    assert not entangled
    assert check.status is Status.PASSED
    assert check.values["information"]["p_value"] <= 0.01
    assert check.values["information"]["nats"] > 0.02
    assert check.values["view"]["shared"] == pytest.approx(0.4, abs=0.05)


def test_what_follows_the_view_is_entangled():
    """Every image shows the view, and none the molecule: the state is high where x is positive."""
    rng = np.random.default_rng(1)
    directions = views(3000, rng)
    low, high = evidence(directions[:, 0] > 0, np.full(3000, 1.0), rng)
    check, entangled = entanglement_check(low, high, directions, rng.uniform(8000, 20000, 3000))
    assert entangled
    assert check.status is Status.FAILED
    assert check.values["view"]["share"] > 0.6
    assert not check.values["defocus"]["entangled"]


def test_what_follows_the_defocus_is_entangled():
    rng = np.random.default_rng(2)
    defocus = rng.uniform(8000, 20000, 2000)
    low, high = evidence(rng.random(2000) < (defocus - 8000) / 12000, np.full(2000, 2.0), rng)
    check, entangled = entanglement_check(low, high, views(2000, rng), defocus)
    assert entangled
    assert not check.values["view"]["entangled"]


def test_small_differences_of_very_many_images_are_not():
    rng = np.random.default_rng(3)
    directions = views(40_000, rng)
    state = rng.random(40_000) < 0.5 + 0.03 * np.sign(directions[:, 0])
    found = cell_populations(*evidence(state, np.full(40_000, 3.0), rng), view_cells(directions))
    assert found.p_value < 1e-6
    assert found.between == pytest.approx(0.03, rel=0.4)
    assert not found.entangled


def test_octants_or_cells_of_crowded_views():
    rng = np.random.default_rng(4)
    even = views(1000, rng)
    label = view_cells(even)
    assert (np.unique(np.c_[label, even > 0], axis=0)[:, 0] == np.arange(8)).all()
    crowded = view_cells(views(1000, rng, towards=(0, 0, 1.0)))
    count = np.bincount(crowded)
    assert len(count) == 8
    assert count.min() > 40
    assert len(np.unique(view_cells(even[:90]))) == 1


def test_tertiles():
    label = defocus_cells(np.random.default_rng(0).uniform(1, 2, 900))
    np.testing.assert_array_equal(np.bincount(label), [300, 300, 300])
    assert defocus_cells(np.full(20, 1e4)).max() == 0


def test_rare_views_count_as_much_as_frequent_ones():
    """Views of density (1 + 0.8 z) / 4 pi, and a population of 0.5 - 0.4 z that is 0.5 over the sphere."""
    rng = np.random.default_rng(5)
    directions = views(12_000, rng)
    directions = directions[rng.random(12_000) < (1 + 0.8 * directions[:, 2]) / 1.8]
    state = rng.random(len(directions)) < 0.5 - 0.4 * directions[:, 2]
    low, high = evidence(state, np.full(len(state), 4.0), rng)
    weight = view_weights(directions)
    assert weight.mean() == pytest.approx(1)
    value, error = weighted_population(low, high, weight)
    plain, plain_error = weighted_population(low, high, np.ones(len(state)))
    assert plain == pytest.approx(0.5 - 0.4 * 0.8 / 3, abs=0.02)
    assert value == pytest.approx(0.5, abs=0.025)
    assert error > plain_error


def test_error_of_a_weighted_population():
    """The spread over repeats."""
    rng = np.random.default_rng(6)
    weight = rng.gamma(1.0, size=600)
    sets = (evidence(rng.random(600) < 0.3, np.full(600, 2.0), rng) for _ in range(150))
    found = np.array([weighted_population(low, high, weight) for low, high in sets])
    assert found[:, 0].std() == pytest.approx(found[:, 1].mean(), rel=0.15)
    assert found[:, 0].mean() == pytest.approx(0.3, abs=0.01)


@pytest.mark.parametrize("rho", [0.0, 0.6, 0.9])
def test_mutual_information_of_normal_variables(rho):
    rng = np.random.default_rng(7)
    x = rng.standard_normal((3000, 1))
    y = rho * x + np.sqrt(1 - rho**2) * rng.standard_normal((3000, 1))
    assert mutual_information(x, y) == pytest.approx(-0.5 * np.log(1 - rho**2), abs=0.06)


def test_information_on_the_view():
    rng = np.random.default_rng(8)
    directions = views(1500, rng)
    none = view_information(rng.standard_normal((1500, 2)), directions, permutations=49)
    assert abs(none.nats) < 4 * none.null_sd
    some = view_information(directions[:, 0] + 0.5 * rng.standard_normal(1500), directions, permutations=49)
    assert some.nats > 0.3
    assert some.p_value == pytest.approx(0.02)
    again = view_information(directions[:, 0] ** 2, directions, permutations=9, seed=3)
    assert again == view_information(directions[:, 0] ** 2, directions, permutations=9, seed=3)
