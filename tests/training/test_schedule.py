import math

import pytest

from cryoscape.training.config import ObjectiveConfig, TrainingConfig
from cryoscape.training.schedule import kl_weight, learning_rate, total_steps


def test_kl_weight_is_held_then_rises_in_a_line_then_stays():
    objective = ObjectiveConfig(beta=1.0, beta_start=0.2, hold=0.5, ramp=0.75)
    weights = [kl_weight(s, 1000, objective) for s in (0, 250, 500, 625, 750, 900, 1000, 5000)]
    assert weights == pytest.approx([0.2, 0.2, 0.2, 0.6, 1.0, 1.0, 1.0, 1.0])


def test_kl_weight_never_falls():
    objective = ObjectiveConfig(beta=2.0, beta_start=0.0, hold=0.1, ramp=0.9)
    weights = [kl_weight(s, 333, objective) for s in range(334)]
    assert weights == sorted(weights)
    assert (weights[0], weights[-1]) == (0.0, 2.0)


@pytest.mark.parametrize("at", [0.0, 0.5, 1.0])
def test_a_ramp_of_no_length_is_a_step(at):
    objective = ObjectiveConfig(beta=1.0, beta_start=0.1, hold=at, ramp=at)
    assert {kl_weight(s, 100, objective) for s in range(101)} <= {0.1, 1.0}
    assert kl_weight(100, 100, objective) == (0.1 if at == 1.0 else 1.0)


def test_one_cycle_of_the_learning_rate():
    training = TrainingConfig(lr=1e-3)
    rates = [learning_rate(s, 1000, training) for s in range(1001)]
    assert rates[0] == pytest.approx(1e-3 / 25)
    assert rates[150] == pytest.approx(1e-3 * (1 + 1 / 25) / 2)
    assert rates[300] == pytest.approx(1e-3)
    assert rates[650] == pytest.approx(1e-3 / 2, rel=1e-4)
    assert 0 < rates[1000] < 1e-7
    assert rates[:301] == sorted(rates[:301])
    assert rates[300:] == sorted(rates[300:], reverse=True)


def test_a_constant_rate_is_constant():
    training = TrainingConfig(lr=1e-3, schedule="constant")
    assert {learning_rate(s, 50, training) for s in range(60)} == {1e-3}


@pytest.mark.parametrize("total", [1, 2, 3])
def test_the_shortest_runs_have_a_positive_rate(total):
    for step in range(total):
        rate = learning_rate(step, total, TrainingConfig())
        assert rate > 0
        assert math.isfinite(rate)


def test_length_of_a_run():
    assert total_steps(TrainingConfig(steps=7), 10_000) == 7
    assert total_steps(TrainingConfig(steps=7, epochs=3), 10_000) == 7
    assert total_steps(TrainingConfig(epochs=3, batch=64), 1000) == 48
    assert total_steps(TrainingConfig(epochs=0.001, batch=64), 1000) == 1
    assert total_steps(TrainingConfig(), 100) == 2000
    assert total_steps(TrainingConfig(), 64_000) == 30_000
