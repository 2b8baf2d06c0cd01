"""The generated protein: geometry against textbook numbers."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from scipy.spatial.transform import Rotation

from cryoscape.simulate.hinge import (
    DOMAIN_LENGTH,
    HELIX,
    HINGE_ANGLE,
    LINKER_LENGTH,
    arm_protein,
    backbone,
    hinge_protein,
    place,
)

FIRST, SECOND = slice(0, DOMAIN_LENGTH), slice(DOMAIN_LENGTH + LINKER_LENGTH, None)


def dihedral(a, b, c, d):
    n1, n2 = np.cross(b - a, c - b), np.cross(c - b, d - c)
    along = (c - b) / np.linalg.norm(c - b)
    return np.rad2deg(np.arctan2(np.cross(n1, n2) @ along, n1 @ n2))


def test_place_has_the_internal_coordinates_asked_for():
    a, b, c = np.random.default_rng(0).normal(size=(3, 3))
    d = place(a, b, c, 1.4, 105.0, -73.0)
    u, v = b - c, d - c
    assert np.linalg.norm(v) == pytest.approx(1.4)
    assert np.rad2deg(np.arccos(u @ v / np.linalg.norm(u) / np.linalg.norm(v))) == pytest.approx(105.0)
    assert dihedral(a, b, c, d) == pytest.approx(-73.0)


def test_helix_rises_by_one_and_a_half_angstrom_a_residue_with_3_6_residues_a_turn():
    ca = backbone([HELIX] * 37)[:, 1]
    assert np.linalg.norm(ca[36] - ca[0]) / 36 == pytest.approx(1.5, abs=0.06)
    # Residues 18 apart are five turns apart, so they face the same way.
    side = np.cross(np.diff(ca, axis=0)[:-1], np.diff(ca, axis=0)[1:])
    assert side[0] @ side[18] > 0.95 * np.linalg.norm(side[0]) * np.linalg.norm(side[18])


def test_residues_are_left_handed():
    n, ca, c, _, cb = backbone([HELIX] * 3)[1]
    # CORN rule: seen from the hydrogen, CO, R, N run clockwise.
    assert np.cross(c - ca, cb - ca) @ (n - ca) > 0


@pytest.mark.parametrize("make", [hinge_protein, arm_protein])
def test_chain_is_regular_and_free_of_clashes(make):
    for angle in np.linspace(0, HINGE_ANGLE, 4) if make is hinge_protein else (0, 90, 180, 270):
        atoms = make(angle)
        ca = atoms.bead_coords
        assert np.abs(np.linalg.norm(np.diff(ca, axis=0), axis=1) - 3.8).max() < 0.01
        apart = np.abs(np.subtract.outer(atoms.residue, atoms.residue))
        assert cdist(atoms.coords, atoms.coords)[apart >= 4].min() > 2.6
        between = np.abs(np.subtract.outer(np.arange(len(ca)), np.arange(len(ca)))) >= 2
        assert cdist(ca, ca)[between].min() > 4.0


def test_names_are_those_of_a_protein():
    atoms = hinge_protein(0)
    assert 120 <= len(atoms.bead) <= 200
    assert set(atoms.atom_name) == {"N", "CA", "C", "O", "CB"}
    assert not np.any((atoms.residue_name == "GLY") & (atoms.atom_name == "CB"))
    assert (atoms.atom_name[atoms.bead] == "CA").all()


def test_domains_are_rigid_and_turn_by_the_angle():
    closed, opened = hinge_protein(0).bead_coords, hinge_protein(HINGE_ANGLE).bead_coords
    assert HINGE_ANGLE >= 45
    np.testing.assert_array_equal(opened[FIRST], closed[FIRST])
    np.testing.assert_allclose(
        cdist(opened[SECOND], opened[SECOND]), cdist(closed[SECOND], closed[SECOND]), atol=1e-9
    )
    a, b = (x[SECOND] - x[SECOND].mean(0) for x in (opened, closed))
    turn, _ = Rotation.align_vectors(a, b)
    assert np.rad2deg(turn.magnitude()) == pytest.approx(HINGE_ANGLE, abs=1e-6)


def test_trivial_predictor_is_more_than_four_angstrom_off():
    states = np.stack([hinge_protein(a).bead_coords for a in np.linspace(0, HINGE_ANGLE, 11)])
    rmsd = np.sqrt(((states - states[0]) ** 2).sum(-1).mean(-1))
    assert rmsd.mean() > 4.0
    assert (np.diff(rmsd) > 0).all()
    gap = np.linalg.norm(states[:, FIRST].mean(1) - states[:, SECOND].mean(1), axis=-1)
    assert (np.diff(gap) > 0).all()


def test_arm_comes_back_after_a_full_turn():
    np.testing.assert_allclose(arm_protein(360).coords, arm_protein(0).coords, atol=1e-9)
    assert np.abs(arm_protein(180).coords - arm_protein(0).coords).max() > 10
