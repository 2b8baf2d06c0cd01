from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cryoscape.conventions import (
    corner_to_centre,
    rotation_from_cryosparc,
    rotation_from_relion,
    rotation_to_cryosparc,
    rotation_to_relion,
    shift_from_relion,
    shift_to_relion,
)

angle = st.floats(-180, 180)


def rz(degrees):
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])


def ry(degrees):
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])


def test_relion_matrix_is_the_transpose_of_three_written_out_rotations():
    for rot, tilt, psi in [(10, 20, 30), (-170, 95, 61), (45, 180, -3), (12, 0, 9), (3, -40, 8)]:
        expected = (rz(rot) @ ry(tilt) @ rz(psi)).T
        np.testing.assert_allclose(rotation_from_relion(rot, tilt, psi)[0], expected, atol=1e-14)


def test_one_off_axis_point_lands_where_the_angles_say():
    # rot 90 about z takes the view's frame by a quarter turn: model x becomes view -y.
    view = rotation_from_relion([90.0], [0.0], [0.0])[0] @ np.array([10.0, 0.0, 3.0])
    np.testing.assert_allclose(view, [0.0, -10.0, 3.0], atol=1e-12)
    # tilt 90: the viewing direction is model +x, so a point on x has only depth.
    view = rotation_from_relion([0.0], [90.0], [0.0])[0] @ np.array([10.0, 2.0, 3.0])
    np.testing.assert_allclose(view, [-3.0, 2.0, 10.0], atol=1e-12)


def test_cryosparc_vector_turns_the_frame_not_the_object():
    view = rotation_from_cryosparc([[0.0, 0.0, np.pi / 2]])[0] @ np.array([10.0, 0.0, 3.0])
    np.testing.assert_allclose(view, [0.0, -10.0, 3.0], atol=1e-12)


@given(angle, angle, angle)
@settings(max_examples=200, deadline=None)
def test_relion_round_trip(rot, tilt, psi):
    matrix = rotation_from_relion([rot], [tilt], [psi])
    np.testing.assert_allclose(matrix[0] @ matrix[0].T, np.eye(3), atol=1e-12)
    back = rotation_to_relion(matrix)
    assert 0 <= back[1][0] <= 180
    np.testing.assert_allclose(rotation_from_relion(*back), matrix, atol=1e-12)


@pytest.mark.parametrize("tilt", [0.0, 180.0, 1e-9, 1e-6, 180 - 1e-9])
def test_relion_round_trip_at_the_poles(tilt):
    matrix = rotation_from_relion([33.0], [tilt], [71.0])
    np.testing.assert_allclose(rotation_from_relion(*rotation_to_relion(matrix)), matrix, atol=1e-14)


@given(st.tuples(*[st.floats(-1.7, 1.7)] * 3))
@settings(max_examples=100, deadline=None)
def test_cryosparc_round_trip(vector):
    back = rotation_to_cryosparc(rotation_from_cryosparc([vector]))
    np.testing.assert_allclose(back[0], vector, atol=1e-9)


@given(angle, angle, angle)
@settings(max_examples=50, deadline=None)
def test_both_programs_name_the_same_matrix(rot, tilt, psi):
    matrix = rotation_from_relion([rot], [tilt], [psi])
    np.testing.assert_allclose(rotation_from_cryosparc(rotation_to_cryosparc(matrix)), matrix, atol=1e-9)


def test_shift_is_minus_the_origin():
    np.testing.assert_array_equal(shift_from_relion([3.0, 0.0], [-4.0, 1.0]), [[-3.0, 4.0], [0.0, -1.0]])
    x, y = shift_to_relion([[-3.0, 4.0]])
    assert (x[0], y[0]) == (3.0, -4.0)
    assert not np.signbit(shift_from_relion([0.0], [0.0])).any()


@pytest.mark.parametrize(("box", "offset"), [(64, 32 * 1.5), (65, 32 * 1.5), (1, 0.0)])
def test_centre_is_the_voxel_half_the_box_rounded_down(box, offset):
    assert corner_to_centre(box, 1.5) == offset
