import numpy as np
import pytest

from cryoscape.analysis.contour import contour_level
from tests.analysis.fakes import blob


def test_two_classes_are_parted_between_their_values():
    """A ball of density 3 in noisy solvent: the level lies between them and encloses the ball."""
    axis = np.arange(32) - 16
    ball = axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2 <= 7**2
    volume = 3.0 * ball + np.random.default_rng(0).normal(0, 0.3, ball.shape)
    level = contour_level(volume)
    assert 0.8 < level < 2.4
    assert np.mean((volume > level) == ball) > 0.999


def test_the_level_goes_with_the_scale_of_the_map():
    volume = blob((np.arange(24) - 12.0), (0, 0, 0), 4.0)
    level = contour_level(volume)
    assert contour_level(50 * volume - 7) == pytest.approx(50 * level - 7, rel=1e-6)


def test_a_flat_map_has_a_level_too():
    assert contour_level(np.full((8, 8, 8), 2.5)) == 2.5
