"""Superposition, cores, matching and elastic paths."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from cryoscape.errors import InputError
from cryoscape.simulate.hinge import DOMAIN_LENGTH, HINGE_ANGLE, hinge_protein
from cryoscape.simulate.paths import (
    common_frame,
    elastic_path,
    least_moving_core,
    match_atoms,
    rotate_about,
    superpose,
)


@pytest.fixture(scope="module")
def ends():
    keep = np.flatnonzero(np.isin(hinge_protein(0).atom_name, ("CA", "C")))
    return tuple(hinge_protein(a).take(keep) for a in (0.0, HINGE_ANGLE))


def test_superpose_undoes_a_rigid_motion():
    points = np.random.default_rng(1).normal(size=(20, 3))
    turn = Rotation.from_rotvec([0.3, -1.2, 0.5])
    moved = turn.apply(points) + np.array([1.0, 2.0, 3.0])
    rotation, translation = superpose(moved, points)
    np.testing.assert_allclose(moved @ rotation.T + translation, points, atol=1e-12)


def test_rotate_about_agrees_with_scipy_and_keeps_the_axis():
    points = np.random.default_rng(2).normal(size=(5, 3))
    origin, axis = np.array([1.0, -2.0, 0.5]), np.array([0.0, 0.0, 2.0])
    expected = (points - origin) @ np.array([[0, 1, 0], [-1, 0, 0], [0, 0, 1]]) + origin
    np.testing.assert_allclose(rotate_about(points, origin, axis, np.pi / 2), expected, atol=1e-12)


def test_core_is_one_of_the_two_domains(ends):
    a, b = ends
    turn = Rotation.from_rotvec([0.5, 0.2, -0.4])
    core = least_moving_core(a.bead_coords, turn.apply(b.bead_coords) + 20)
    assert core.sum() >= DOMAIN_LENGTH - 2
    assert core[:DOMAIN_LENGTH].all() or core[-DOMAIN_LENGTH:].all()


def test_models_in_one_frame_are_left_there_and_others_are_superposed(ends):
    a, b = ends
    assert common_frame(a, b) is b.coords
    moved = b.with_coords(Rotation.from_rotvec([0.0, 1.0, 0.0]).apply(b.coords) + 30)
    distance = np.linalg.norm((common_frame(a, moved) - a.coords)[a.bead], axis=1)
    assert np.sort(distance)[: DOMAIN_LENGTH - 2].max() < 0.1


def test_path_keeps_its_ends_its_bonds_and_its_order(ends):
    a, b = ends
    states = elastic_path(a, b, 5)
    np.testing.assert_array_equal(states[0], a.coords)
    np.testing.assert_array_equal(states[-1], b.coords)
    beads = np.stack([s[a.bead] for s in states])
    bonds = np.linalg.norm(np.diff(beads, axis=1), axis=-1)
    assert np.abs(bonds - 3.80).max() < 0.1
    from_first = np.sqrt(((beads - beads[0]) ** 2).sum(-1).mean(-1))
    assert (np.diff(from_first) > 1).all()
    # A straight line between the ends squeezes the moving domain; the network does not.
    straight = 0.5 * (beads[0] + beads[-1])
    span = [np.linalg.norm(x[-DOMAIN_LENGTH] - x[-1]) for x in (beads[0], beads[2], straight)]
    assert abs(span[1] - span[0]) < 0.3 * abs(span[2] - span[0])


def test_matching_reports_what_is_missing(ends):
    a, b = ends
    matched = match_atoms(a, b.take(np.arange(4, len(b))))
    assert matched.unmatched == 4
    assert matched.a.atom_keys() == matched.b.atom_keys()
    np.testing.assert_array_equal(matched.b.coords, b.coords[4:])


def test_other_molecules_are_refused(ends):
    a, b = ends
    with pytest.raises(InputError, match="only 10 of 166"):
        match_atoms(a, b.take(np.arange(20)))
    names = b.residue_name.copy()
    names[7] = "TRP"
    with pytest.raises(InputError, match="TRP in the other"):
        match_atoms(a, replace(b, residue_name=names))
