"""Conditions: what is inside, what weighs how much, and how they are read."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import norm

from cryoscape.analysis.guidance.latent_labels import fit_classifier, state_probability
from cryoscape.analysis.variables.collective_variables import CollectiveVariable
from cryoscape.analysis.variables.condition_syntax import parse_condition
from cryoscape.analysis.variables.conditions import (
    Conditions,
    FitCondition,
    FunctionCondition,
    IntervalCondition,
    MeasurementCondition,
)
from cryoscape.analysis.variables.decoded_latents import Decoded
from cryoscape.errors import InputError
from cryoscape.priors.mixture import MixturePrior
from tests.analysis.fakes import fake_run


class Coordinate(CollectiveVariable):
    """A coordinate of points."""

    def __init__(self, k=0, scale=0.5, period=None):
        super().__init__(f"coordinate {k}")
        self.k, self.scale, self.period = k, scale, period

    def __call__(self, objects, present=None):
        return objects[:, self.k]


def values(*numbers):
    return torch.tensor(numbers, dtype=torch.float64)


@pytest.fixture
def run(tmp_path):
    made = fake_run(tmp_path / "run")
    made.prior = MixturePrior(3, 2)
    return made


def test_walls_are_half_harmonic_outside():
    wall = IntervalCondition("x", Coordinate(), 1.0, 3.0)
    x = values(-0.5, 1.0, 2.0, 3.0, 3.25)
    assert wall.holds(x).tolist() == [False, True, True, True, False]
    np.testing.assert_allclose(wall.log_weight(x), [-4.5, 0, 0, 0, -0.125])


@pytest.mark.parametrize(
    ("low", "high", "misses"),
    [
        (170.0, -170.0, {180.0: 0, -175.0: 0, 160.0: 10, -165.0: 5, 0.0: 170}),
        (170.0, 190.0, {180.0: 0, -175.0: 0, 160.0: 10, -165.0: 5, 0.0: 170}),
        (-10.0, 30.0, {-10.0: 0, 29.0: 0, -20.0: 10, 40.0: 10, 179.0: 149, -179.0: 151}),
        (-math.inf, 20.0, {-180.0: 0, 20.0: 0, 50.0: 30, 170.0: 10}),
        (90.0, math.inf, {100.0: 0, 80.0: 10, -175.0: 5}),
    ],
)
def test_intervals_on_a_circle(low, high, misses):
    wall = IntervalCondition("dihedral", Coordinate(period=360.0), low, high)
    np.testing.assert_allclose(wall.excess(values(*misses)), list(misses.values()), atol=1e-9)


def test_measurements_are_gaussian_also_across_the_seam():
    measured = MeasurementCondition("x", Coordinate(), 20.0, 1.5)
    x = values(17.0, 20.0, 22.0)
    expected = norm.logpdf(x, 20, 1.5) - norm.logpdf(20, 20, 1.5)
    np.testing.assert_allclose(measured.log_weight(x), expected)
    assert measured.holds(values(16.9, 17.1, 23.1)).tolist() == [False, True, False]
    turned = MeasurementCondition("x", Coordinate(period=360.0), 179.0, 2.0)
    np.testing.assert_allclose(turned.log_weight(values(-179.0)), [-0.5])


def test_several_conditions_and_their_gradient():
    conditions = Conditions(
        [
            IntervalCondition("x", Coordinate(0), -math.inf, 1.0),
            IntervalCondition("y", Coordinate(1), 0.0, math.inf),
            MeasurementCondition("y", Coordinate(1), 2.0, 0.5),
        ],
        Decoded,
        chunk=2,
    )
    z = torch.tensor([[0.0, 1.0], [2.0, -1.0], [3.0, 2.0]])
    found = conditions(z)
    assert found.inside.tolist() == [True, False, False]
    np.testing.assert_allclose(found.wall, [0, -4, -8])
    np.testing.assert_allclose(found.weight, [-2, -18, 0])
    again, gradient = conditions.with_gradient(z, 1.0, 10.0)
    np.testing.assert_allclose(again.wall, found.wall)
    np.testing.assert_allclose(gradient, [[0, 4], [-40, 12 + 40], [-80, 0]])
    np.testing.assert_allclose(conditions.values(z), [[0, 1, 1], [2, -1, -1], [3, 2, 2]])


def test_functions_without_gradient_have_one_of_zero_and_are_told_from_others():
    conditions = Conditions([FunctionCondition("f", lambda x: -x.detach().square().sum(1))], Decoded)
    found, gradient = conditions.with_gradient(torch.ones(3, 2), 1.0, 1.0)
    np.testing.assert_allclose(found.weight, -2)
    assert not gradient.any()
    with pytest.raises(InputError, match="`f` has no gradient"):
        conditions.need_gradient(torch.ones(1, 2))


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: x, "not a tensor of shape"),
        (lambda x: 3.0, "returns float"),
        (lambda x: x[:, 0] * math.nan, "not numbers"),
        (lambda x: x[:, 0] + math.inf, "not numbers"),
        (lambda x: x.far(), "the function fails: AttributeError"),
    ],
)
def test_functions_that_do_not_work_are_refused(function, message):
    with pytest.raises(InputError, match=message):
        Conditions([FunctionCondition("f", function)], Decoded)(torch.zeros(4, 2))


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [
        ("distance A:1 B:20 < 20", -math.inf, 20),
        ("distance A:1 B:20<=20.5", -math.inf, 20.5),
        ("distance A:1 B:20 > 1e1", 10, math.inf),
        ("distance A:1 B:20 between 5 and 10", 5, 10),
        ("distance A:1 B:20 between 5 10", 5, 10),
        ("distance A:1 B:20 5..10", 5, 10),
        ("distance A:1 B:20 in 5 .. 10", 5, 10),
        ("distance A:1-20 B:20 -5..10", -5, 10),
    ],
)
def test_walls_are_read(run, text, low, high):
    condition = parse_condition(run, text)
    assert isinstance(condition, IntervalCondition)
    assert (condition.low, condition.high, condition.unit, condition.text) == (low, high, "A", text)
    decoded = torch.as_tensor(run.structure.coords)[None]
    assert float(condition.variable(decoded)) > 0


@pytest.mark.parametrize("sign", ["+-", "+/-", "±"])
def test_measurements_are_read(run, sign):
    condition = parse_condition(run, f"dihedral A:1 A:5 B:5 B:1 = -60{sign}2.5")
    assert isinstance(condition, MeasurementCondition)
    assert (condition.target, condition.sd, condition.unit) == (-60, 2.5, "degrees")


def test_functions_are_read_and_run(run, tmp_path):
    path = tmp_path / "scores.py"
    path.write_text("def far(coords):\n    return -coords.square().sum((1, 2))\n\nLEVEL = 3\n")
    condition = parse_condition(run, f"{path}:far")
    x = torch.ones(2, 4, 3)
    assert condition.log_weight(condition.value(x, Decoded(x))).tolist() == [-12, -12]
    with pytest.raises(InputError, match="no function 'near'") as caught:
        parse_condition(run, f"{path}:near")
    assert "far" in caught.value.remedy
    with pytest.raises(InputError, match="no such file"):
        parse_condition(run, "nothere.py:far")
    path.write_text("def far(:\n")
    with pytest.raises(InputError, match="cannot be run: SyntaxError"):
        parse_condition(run, f"{path}:far")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("distance A:1 A:2", "says no limits"),
        ("distance A:1 A:2 < far", "`< far` cannot be read"),
        ("distance A:1 A:2 = 20", "`= 20` cannot be read"),
        ("distance A:1 A:2 20..10", "nothing lies between 20 and 10"),
        ("distance A:1 A:2 = 20 +- 0", "must be positive"),
        ("distance A:1 C:2 < 20", "no chain 'C'"),
        ("closeness A:1 A:2 < 20", "no collective variable"),
        ("open", "is no condition"),
        ("", "is no condition"),
        ("state 3", "no state 3"),
        ("cluster 1", "no analysis"),
    ],
)
def test_conditions_that_cannot_be_read(run, text, message):
    with pytest.raises(InputError, match=message):
        parse_condition(run, text)


def test_fits_weigh_by_a_temperature():
    condition = FitCondition("fit", Coordinate(), 0.02)
    np.testing.assert_allclose(condition.log_weight(values(0.9, 1.0)), [-5, 0])


def test_states_are_those_of_the_prior():
    prior = MixturePrior(2, 3)
    covariance = np.tile(0.01 * np.eye(2), (3, 1, 1))
    with torch.no_grad():
        prior.logits.copy_(torch.log(torch.tensor([0.2, 0.5, 0.3])))
        prior.gaussians.set(np.array([[-3.0, 0], [3.0, 0], [3.0, 0.02]]), covariance)
    prior.requires_grad_(False)
    # The last two are one basin, and the larger one.
    z = torch.tensor([[3.0, 0.1], [-3.0, 0.0]])
    np.testing.assert_allclose(state_probability(prior, 1)(z).exp(), [1, 0], atol=1e-6)
    np.testing.assert_allclose(state_probability(prior, 2)(z).exp(), [0, 1], atol=1e-6)


def test_the_classifier_has_the_probabilities_of_the_mixture_behind_the_labels():
    rng = np.random.default_rng(0)
    share, mean, sd = np.array([0.6, 0.3, 0.1]), np.array([[0.0, 0], [2, 1], [-1, 3]]), [1.0, 0.7, 0.5]
    label = rng.choice(3, 20_000, p=share)
    z = mean[label] + np.array(sd)[label, None] * rng.normal(size=(20_000, 2))
    classifier = fit_classifier(z, label)
    at = z[:500]
    joint = np.stack([a * norm.pdf(at, m, s).prod(1) for a, m, s in zip(share, mean, sd)], axis=1)
    found = classifier(torch.as_tensor(at)).exp().numpy()
    error = np.abs(found - joint / joint.sum(1, keepdims=True))
    assert error.mean() < 0.01
    assert np.quantile(error, 0.99) < 0.06
    best = (joint.argmax(1) == label[:500]).mean()
    assert classifier.accuracy == pytest.approx(best, abs=0.04)
    two = fit_classifier(z[label < 2], label[label < 2])
    assert float(two(torch.as_tensor(mean[:1]))[0, 0].exp()) > 0.9
