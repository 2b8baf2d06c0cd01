import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cryoscape.analysis.collapse import detect_collapse, information


def channel(correlation, n=20000, d=2, seed=0):
    """Posteriors of z ~ N(0, 1) seen through Gaussian noise: mean = rho^2-shrunk, variance 1 - rho^2."""
    mean = np.random.default_rng(seed).standard_normal((n, d)) * correlation
    return mean, np.full((n, d), np.sqrt(1 - correlation**2))


@pytest.mark.parametrize("correlation", [0.1, 0.5, 0.9, 0.99])
def test_information_of_a_gaussian_channel(correlation):
    expected = -0.5 * 2 * np.log(1 - correlation**2)
    assert information(*channel(correlation)) == pytest.approx(expected, abs=0.03)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 5), st.floats(0.01, 3), st.floats(-50, 50))
def test_information_is_positive_and_blind_to_an_offset(d, width, offset):
    rng = np.random.default_rng(d)
    z, sd = rng.standard_normal((80, d)), width * np.exp(0.3 * rng.standard_normal((80, d)))
    value = information(z, sd)
    assert value >= 0
    assert information(z + offset, sd) == pytest.approx(value, abs=1e-6)


def test_a_posterior_that_never_moves_has_collapsed():
    z, sd = np.full((200, 4), 1.7), np.full((200, 4), 0.3)
    found = detect_collapse(z, sd, kl=8.0, spread=2.0)
    assert found.verdict == "collapsed"
    assert found.active == ()
    assert found.nats == pytest.approx(0, abs=1e-6)
    assert any("dimension" in reason for reason in found.reasons)


def test_codes_that_move_nothing_have_collapsed():
    z, sd = channel(0.9)
    found = detect_collapse(z, sd, spread=0.01)
    assert found.verdict == "collapsed"
    assert "decoded structures" in found.reasons[0]


def test_active_dimensions_are_counted():
    z, sd = channel(0.9, d=5)
    z[:, [1, 3]] *= 0.01
    found = detect_collapse(z, sd, spread=2.0)
    assert found.active == (0, 2, 4)
    assert found.dimensions == 5
    assert found.verdict == "informative"


def test_a_gain_within_its_error_is_weak():
    z, sd = channel(0.95)
    gain = np.random.default_rng(1).normal(0, 5, len(z))
    found = detect_collapse(z, sd, gain=gain, spread=2.0)
    assert found.verdict == "weak"
    assert detect_collapse(z, sd, gain=gain + 5, spread=2.0).verdict == "informative"


def test_held_out_particles_decide_about_the_gain():
    """Trained particles gain by over-fitting; the held-out ones do not."""
    z, sd = channel(0.95, n=2000)
    held_out = np.arange(2000) % 10 == 0
    gain = np.where(held_out, -1.0, 6.0) + np.random.default_rng(2).normal(0, 1, 2000)
    found = detect_collapse(z, sd, gain=gain, held_out=held_out, spread=2.0)
    assert found.verdict == "weak"
    assert found.gain == pytest.approx(-1, abs=0.3)
    assert "held-out" in found.reasons[-1]


def test_little_information_is_weak():
    found = detect_collapse(*channel(0.5), spread=1.0)
    assert found.verdict == "weak"
    assert found.nats == pytest.approx(0.29, abs=0.03)
