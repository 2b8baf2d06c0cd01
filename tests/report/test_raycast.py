import numpy as np
import pytest

from cryoscape.report.map_view import MapView, view_of
from cryoscape.report.raycast import draw_surface
from tests.analysis.fakes import blob

AXIS = (np.arange(32) - 16) * 2.0


def facing_z(shape=32):
    """From the +z side: x to the right, y up."""
    axes = np.array([[0.0, 0, 1], [0, 1, 0], [1, 0, 0]])
    half = np.full(3, 30.0)
    return MapView(np.zeros(3, int), np.full(3, shape), axes, -half, half, 2.0)


def drawn(picture):
    """Rows and columns of what is not white."""
    return np.nonzero(picture.min(axis=2) < 0.98)


def test_a_ball_is_drawn_where_it_is():
    """Radius where a Gaussian of sigma 5 A falls to a half: 5.9 A, in elements of 1 A."""
    picture = draw_surface(blob(AXIS, (12.0, -8.0, 0.0), 5.0), 0.5, facing_z(), 1.0)
    assert picture.shape == (60, 60, 3)
    rows, columns = drawn(picture)
    # The middle of the cut-out is half a voxel, 1 A, above voxel 16.
    assert columns.mean() - 29.5 == pytest.approx(12.0 + 1.0, abs=0.7)
    assert 29.5 - rows.mean() == pytest.approx(-8.0 + 1.0, abs=0.7)
    # Elements on the rim are partly covered.
    assert len(rows) == pytest.approx(np.pi * (5.9 + 0.5) ** 2, rel=0.15)


def test_what_is_nearer_hides_what_is_behind():
    near, far = blob(AXIS, (0, 0, 14), 5.0), blob(AXIS, (0, 0, -14), 5.0)
    tint = np.where(AXIS > 0, 1.0, 0.0)[:, None, None] * np.ones((32, 32, 32))
    picture = draw_surface(near + far, 0.5, facing_z(), 1.0, tint=tint)
    middle = picture[28:32, 28:32].mean(axis=(0, 1))
    assert middle[0] > 1.5 * middle[2]  # red: the near one


def test_light_comes_from_above_and_a_ball_has_an_outline():
    picture = draw_surface(blob(AXIS, (-1, -1, -1), 9.0), 0.5, facing_z(), 0.5).mean(axis=2)
    rows, _ = drawn(np.repeat(picture[..., None], 3, axis=2))
    middle = (rows.min() + rows.max()) // 2
    column = picture.shape[1] // 2
    assert picture[middle - 12, column] > picture[middle + 12, column] + 0.05
    assert picture[rows.min() + 1, column] < 0.8 * picture[middle, column]


def test_the_hand_is_kept():
    """Seen from the eye, across x up must point at the eye, in both views."""
    rng = np.random.default_rng(0)
    maps = sum(blob(AXIS, rng.uniform(-18, 18, 3), 4.0) for _ in range(5))[None]
    for view in (view_of(maps, 0.5, 2.0), view_of(maps, 0.5, 2.0).turned):
        eye, up, across = view.axes
        np.testing.assert_allclose(np.cross(across, up), eye, atol=1e-9)


def test_the_view_holds_the_density_and_lays_it_down():
    bar = sum(blob(AXIS, (0, y, 0), 4.0) for y in range(-20, 21, 4))[None]
    view = view_of(bar, 0.5, 2.0)
    assert abs(view.axes[2] @ [0, 1, 0]) > 0.99
    assert (view.high - view.low)[2] > 1.5 * (view.high - view.low)[1]
    cut = view.cut(bar[0])
    assert (cut > 0.5).sum() == (bar[0] > 0.5).sum()
    fine, voxel = view.fine(bar[0], 2 * max(cut.shape) - 1)
    assert voxel == 1.0
    np.testing.assert_allclose(fine[::2, ::2, ::2], cut, atol=1e-5)


def test_the_side_view_shows_what_the_front_hides():
    view = facing_z().turned
    picture = draw_surface(blob(AXIS, (0, 0, 14), 5.0), 0.5, view, 1.0)
    _, columns = drawn(picture)
    assert columns.mean() < 29.5 - 10  # what was near lies to the left, seen from the right


def test_a_map_below_the_level_is_white():
    view = view_of(np.zeros((2, 8, 8, 8)), 1.0, 2.0)
    assert draw_surface(np.zeros((8, 8, 8)), 1.0, view, 1.0).min() == 1.0
