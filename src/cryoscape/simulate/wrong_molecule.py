"""Another molecule of the size of the one that is simulated: chains of helices with turns drawn at random."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from cryoscape.simulate.atoms import Atoms
from cryoscape.simulate.hinge import HELIX, backbone

Array = NDArray[np.float64]

LONGEST_CHAIN = 200
"""Residues of a chain at most; larger molecules have several."""

_DRAWS = 10
_HELIX_LENGTHS = (9, 24)
_TURN_LENGTH = 4
# phi and psi of the basins that turns are drawn from, degrees, and the spread about them.
_BASINS = np.array([(-65.0, -40.0), (-120.0, 130.0), (-70.0, 150.0), (60.0, 45.0)])
_SPREAD = 15.0
# A that beads of distant residues, and those of two chains, are apart at least.
_CLASH, _GAP = 4.5, 6.0
_STEP = 2.0
_ELECTRONS = np.array([7.0, 6.0, 6.0, 8.0, 6.0])


def wrong_molecule(atoms: Atoms, rng: np.random.Generator) -> tuple[Array, Array]:
    """Draw a molecule with the residues, the electrons and about the radius of gyration of another.

    Chains grow helix by helix; of a few turns drawn each time that is taken which clashes least and keeps
    the density. No part of it is a copy of the other molecule.

    Parameters
    ----------
    atoms : Atoms
        The molecule that it is mistaken for.
    rng : numpy.random.Generator

    Returns
    -------
    coords : ndarray, shape (n, 3)
        Centre of mass at the origin, Angstrom.
    weights : ndarray, shape (n,)
        Electrons; their sum is that of `atoms`.
    """
    residues = len(atoms.bead)
    chains = -(-residues // LONGEST_CHAIN)
    # Chains of equal density side by side: lengths go with the cube root of the number of residues.
    gyration = _gyration(atoms.bead_coords) / chains ** (1 / 3)
    parts: list[Array] = []
    for part in np.array_split(np.arange(residues), chains):
        fold = _fold(len(part), gyration, rng)
        parts.append(_beside(fold, parts, rng) if parts else fold)
    coords = np.concatenate(parts)
    weights = np.tile(_ELECTRONS, residues)
    weights *= atoms.weights.sum() / weights.sum()
    coords = coords.reshape(-1, 3)
    return coords - weights @ coords / weights.sum(), weights


def _fold(residues: int, gyration: float, rng: np.random.Generator) -> Array:
    """A chain, backbone and CB (R, 5, 3) about its centre, grown by the best of a few turns each time."""
    chain, last = backbone([HELIX] * int(rng.integers(*_HELIX_LENGTHS))), HELIX
    while len(chain) < residues:
        helix = [HELIX] * int(rng.integers(*_HELIX_LENGTHS))
        pieces = [backbone([last, *_turn(rng), *helix]) for _ in range(_DRAWS)]
        grown = [np.concatenate([chain, _attached(piece, chain[-1])])[:residues] for piece in pieces]
        # As dense at every length as the whole shall be.
        wanted = gyration * (len(grown[0]) / residues) ** (1 / 3)
        chain = min(grown, key=lambda one: _fault(one[:, 1], wanted))
    chain = chain[:residues]
    return chain - chain[:, 1].mean(axis=0)


def _attached(piece: Array, end: Array) -> Array:
    """A piece (n, 5, 3) moved so that its first residue is the end (5, 3) of a chain; the rest of it."""
    turn = _frame(end) @ _frame(piece[0]).T
    return (piece[1:] - piece[0, 1]) @ turn.T + end[1]


def _frame(residue: Array) -> Array:
    """Right-handed axes of N, CA and C, the columns of (3, 3)."""
    n, ca, c = residue[:3]
    x = (c - ca) / np.linalg.norm(c - ca)
    z = np.cross(x, n - ca)
    z /= np.linalg.norm(z)
    return np.stack([x, np.cross(z, x), z], axis=1)


def _turn(rng: np.random.Generator) -> list[tuple[float, float]]:
    chosen = _BASINS[rng.integers(len(_BASINS), size=_TURN_LENGTH)]
    return [(float(phi), float(psi)) for phi, psi in chosen + _SPREAD * rng.standard_normal(chosen.shape)]


def _fault(beads: Array, gyration: float) -> float:
    """How far from what is wanted, A: a clash counts as much as an A of radius of gyration."""
    return abs(_gyration(beads) - gyration) + _clashes(beads)


def _clashes(beads: Array) -> int:
    pairs = cKDTree(beads).query_pairs(_CLASH, output_type="ndarray")
    return int((np.abs(pairs[:, 0] - pairs[:, 1]) > 3).sum())


def _gyration(beads: Array) -> float:
    return float(np.sqrt(np.square(beads - beads.mean(axis=0)).sum(axis=1).mean()))


def _beside(fold: Array, there: list[Array], rng: np.random.Generator) -> Array:
    """Move a chain out along a random direction until it touches none of the others."""
    direction = rng.standard_normal(3)
    direction /= np.linalg.norm(direction)
    others = cKDTree(np.concatenate([part[:, 1] for part in there]))
    moved = fold
    while others.query(moved[:, 1])[0].min() < _GAP:
        moved = moved + _STEP * direction
    return moved
