import numpy as np
import pytest

from cryoscape.analysis.interpolation import interpolate


def curve(z):
    return np.column_stack([np.sin(1.5 * z[:, 0]), z[:, 0] * z[:, 1]])


def test_a_smooth_function_is_carried_over():
    rng = np.random.default_rng(0)
    z = rng.standard_normal((3000, 3)) * [1, 1, 0]  # a direction without variance does no harm
    predicted, share = interpolate(z[:400], curve(z[:400]), z[400:])
    truth = curve(z[400:])
    found = 1 - ((predicted - truth) ** 2).sum() / ((truth - truth.mean(0)) ** 2).sum()
    assert found > 0.98
    assert share == pytest.approx(found, abs=0.02)


def test_what_codes_do_not_tell_is_said():
    rng = np.random.default_rng(0)
    z = rng.standard_normal((300, 2))
    _, share = interpolate(z, rng.standard_normal((300, 1)), z)
    assert share < 0.2


def test_values_that_do_not_vary():
    z = np.random.default_rng(0).standard_normal((20, 2))
    predicted, share = interpolate(z, np.full((20, 2), 3.0), z[:4])
    np.testing.assert_array_equal(predicted, np.full((4, 2), 3.0))
    assert share == 1.0
