"""Most probable points under conditions, against closed forms."""

import math

import numpy as np
import pytest
import torch

from cryoscape.analysis.guidance.optimisation import optimise
from cryoscape.analysis.variables.conditions import (
    Conditions,
    FunctionCondition,
    IntervalCondition,
    MeasurementCondition,
)
from cryoscape.analysis.variables.decoded_latents import Decoded
from cryoscape.errors import InputError
from cryoscape.priors.machines.kinds import independent_bits
from cryoscape.priors.mixture import MixturePrior
from cryoscape.priors.normal import NormalPrior
from tests.analysis.variables.test_conditions import Coordinate


def starts(prior, n=6):
    return prior.sample(n, torch.Generator().manual_seed(0))


def test_measurement_under_a_normal_law():
    conditions = Conditions([MeasurementCondition("x", Coordinate(0), 2.0, 0.5)], Decoded)
    prior = NormalPrior(3)
    found = optimise(prior, conditions, starts(prior))
    # (x - 2) / 0.25 + x = 0
    np.testing.assert_allclose(found.z, np.tile([1.6, 0, 0], (6, 1)), atol=0.01)
    assert found.log_prob[0] == pytest.approx(-0.5 * 1.6**2 - 1.5 * math.log(2 * math.pi), abs=1e-3)
    assert found.log_weight[0] == pytest.approx(-0.5 * (0.4 / 0.5) ** 2, abs=0.02)
    assert bool(found.met.all())
    assert float(found.slope.max()) < 0.1


def test_walls_are_reached_to_a_hair():
    conditions = Conditions([IntervalCondition("x", Coordinate(0), 2.0, math.inf)], Decoded)
    prior = NormalPrior(3)
    found = optimise(prior, conditions, starts(prior))
    np.testing.assert_allclose(found.z, np.tile([2.0, 0, 0], (6, 1)), atol=0.01)
    assert bool(found.met.all())


def test_the_best_of_several_optima_comes_first():
    prior = MixturePrior(2, 2)
    with torch.no_grad():
        prior.logits.copy_(torch.log(torch.tensor([0.8, 0.2])))
        prior.gaussians.set(np.array([[-3.0, 0], [3.0, 0]]), np.tile(0.04 * np.eye(2), (2, 1, 1)))
    prior.requires_grad_(False)
    conditions = Conditions([FunctionCondition("f", lambda x: 2 * x[:, 0].tanh())], Decoded)
    found = optimise(prior, conditions, torch.tensor([[-3.1, 0.2], [3.1, 0.1], [-2.5, 0.0]]))
    # 2 nats for the right one are worth more than ln 4 for the left ones.
    assert np.sign(found.z[:, 0]).tolist() == [1, -1, -1]
    assert bool((found.log_prob + found.log_weight).diff().le(1e-4).all())


def test_what_cannot_be_met_is_not_said_to_be():
    conditions = Conditions(
        [IntervalCondition("x", Coordinate(0), 2.0, math.inf)], lambda z: Decoded(z.tanh())
    )
    prior = NormalPrior(2)
    assert not bool(optimise(prior, conditions, starts(prior, 3)).met.any())


def test_bits_and_flat_functions_are_refused():
    conditions = Conditions([FunctionCondition("f", lambda x: x.detach()[:, 0])], Decoded)
    with pytest.raises(InputError, match="`f` has no gradient"):
        optimise(NormalPrior(2), conditions, torch.zeros(1, 2))
    with pytest.raises(InputError, match="are bits"):
        optimise(independent_bits(2), conditions, torch.zeros(1, 2))
