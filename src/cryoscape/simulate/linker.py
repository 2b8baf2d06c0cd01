"""A domain on a flexible linker: random orientations about its hinge that do not clash."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cryoscape.errors import InputError
from cryoscape.simulate.atoms import Atoms
from cryoscape.simulate.domains import CLASH, Arm

Array = NDArray[np.float64]

TRIES = 200
"""Orientations tried for each that is wanted."""


def random_orientations(atoms: Atoms, arm: Arm, n: int, limit: float, rng: np.random.Generator) -> Array:
    """Rotations of an arm about its pivot: none, and n - 1 random ones.

    Uniform on the rotations by at most `limit`, of which those are kept that bring no bead of the arm closer
    than 4 A to the rest than they are in the model as given.

    Parameters
    ----------
    atoms : Atoms
    arm : Arm
    n : int
        How many, with the identity first.
    limit : float
        Largest angle of rotation, radians; pi is any orientation.
    rng : numpy.random.Generator

    Returns
    -------
    ndarray, shape (n, 3, 3)

    Raises
    ------
    InputError
        If too few orientations are free of clashes.
    """
    from scipy.spatial import cKDTree

    beads = atoms.bead_coords
    body, moving = cKDTree(beads[~arm.residues]), beads[arm.residues] - arm.pivot

    def clashes(rotation: Array) -> int:
        return int(body.query_ball_point(moving @ rotation.T + arm.pivot, CLASH, return_length=True).sum())

    found = [np.eye(3)]
    allowed = clashes(found[0])
    for _ in range(TRIES * n):
        if len(found) == n:
            break
        rotation = _random_rotation(limit, rng)
        if clashes(rotation) <= allowed:
            found.append(rotation)
    if len(found) == n:
        return np.stack(found)
    raise InputError(
        f"only {len(found)} of {n} orientations of the arm are free of clashes",
        file=atoms.path,
        remedy="Ask for fewer --states, or name another part with --moving.",
    )


def _random_rotation(limit: float, rng: np.random.Generator) -> Array:
    """Uniform among the rotations by at most `limit`: the angle has the density 1 - cos, the axis none."""
    from scipy.spatial.transform import Rotation

    grid = np.linspace(0, limit, 2001)
    angle = np.interp(rng.random() * (limit - np.sin(limit)), grid - np.sin(grid), grid)
    axis = rng.standard_normal(3)
    return Rotation.from_rotvec(angle * axis / np.linalg.norm(axis)).as_matrix()


def oriented(atoms: Atoms, arm: Arm, rotation: Array) -> Array:
    """All atoms (n, 3) with the arm rotated about its pivot by a matrix (3, 3)."""
    moves = arm.residues[atoms.residue]
    coords = atoms.coords.copy()
    coords[moves] = (coords[moves] - arm.pivot) @ rotation.T + arm.pivot
    return coords


def arm_coordinates(atoms: Atoms, arm: Arm, rotations: Array) -> tuple[Array, Array]:
    """Where the arm is: two coordinates of every orientation.

    Parameters
    ----------
    atoms : Atoms
    arm : Arm
    rotations : ndarray, shape (S, 3, 3)

    Returns
    -------
    distance : ndarray, shape (S,)
        Between the centroids of the arm's beads and of the others, Angstrom.
    dihedral : ndarray, shape (S,)
        Turn of the arm's centroid about the line from the body's centroid through the pivot, from where it
        is in the model as given, degrees from -180 to 180.
    """
    beads = atoms.bead_coords
    lever = beads[arm.residues].mean(axis=0) - arm.pivot
    levers = rotations @ lever
    distance = np.linalg.norm(levers + arm.pivot - beads[~arm.residues].mean(axis=0), axis=1)
    across = lever - (lever @ arm.to_body) * arm.to_body
    along = np.cross(arm.to_body, across)
    return distance, np.rad2deg(np.arctan2(levers @ along, levers @ across))
