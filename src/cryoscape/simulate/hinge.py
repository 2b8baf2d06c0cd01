"""A two-domain protein made by formula, so that everything can be tried without a file.

The backbone is built atom by atom from its torsion angles with the bond lengths and angles of Engh and
Huber (Acta Cryst. A47, 392, 1991): alpha helices, turns, and a linker. Two bundles of four helices hang
on the linker; turning the psi angle of one linker residue swings the second domain as a rigid body about
that residue's CA-C bond. Bond lengths and angles are therefore exact in every state, and so are all
distances within a domain.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from cryoscape.simulate.atoms import Atoms, build_atoms
from cryoscape.simulate.paths import rotate_about

Array = NDArray[np.float64]
Torsions = tuple[tuple[float, float], ...]

HELIX = (-57.8, -47.0)
"""phi and psi of an alpha helix, degrees."""

# Angstrom and degrees.
_N_CA, _CA_C, _C_N, _C_O, _CA_CB = 1.458, 1.525, 1.329, 1.231, 1.530
_N_CA_C, _CA_C_N, _C_N_CA, _CA_C_O, _C_CA_CB = 111.2, 116.2, 121.7, 120.8, 110.1
_N_C_CA_CB = 122.6


def place(a: Array, b: Array, c: Array, length: float, angle: float, torsion: float) -> Array:
    """Position of an atom from internal coordinates (natural extension reference frame).

    Parameters
    ----------
    a, b, c : ndarray, shape (3,)
        The three atoms before it in the chain, Angstrom.
    length : float
        Distance to `c`, Angstrom.
    angle : float
        At `c` between `b` and the new atom, degrees.
    torsion : float
        About `b`-`c`, degrees, IUPAC sign.

    Returns
    -------
    ndarray, shape (3,)
    """
    along = (c - b) / np.linalg.norm(c - b)
    normal = np.cross(b - a, along)
    normal /= np.linalg.norm(normal)
    theta, chi = np.deg2rad(angle), np.deg2rad(torsion)
    local = np.array([-np.cos(theta), np.sin(theta) * np.cos(chi), np.sin(theta) * np.sin(chi)])
    return c + length * (np.stack([along, np.cross(normal, along), normal], axis=1) @ local)


def backbone(torsions: Sequence[tuple[float, float]]) -> Array:
    """Backbone and CB atoms of a chain of trans peptides.

    Parameters
    ----------
    torsions : sequence of (phi, psi)
        Degrees, one pair a residue.

    Returns
    -------
    ndarray, shape (R, 5, 3)
        N, CA, C, O and CB of each residue, Angstrom.
    """
    out = np.empty((len(torsions), 5, 3))
    n, ca = np.zeros(3), np.array([_N_CA, 0.0, 0.0])
    angle = np.deg2rad(180 - _N_CA_C)
    c = ca + _CA_C * np.array([np.cos(angle), np.sin(angle), 0.0])
    for r, (_, psi) in enumerate(torsions):
        o = place(n, ca, c, _C_O, _CA_C_O, psi + 180)
        cb = place(n, c, ca, _CA_CB, _C_CA_CB, _N_C_CA_CB)
        out[r] = n, ca, c, o, cb
        if r + 1 < len(torsions):
            n_next = place(n, ca, c, _C_N, _CA_C_N, psi)
            ca_next = place(ca, c, n_next, _N_CA, _C_N_CA, 180.0)
            c = place(c, n_next, ca_next, _CA_C, _N_CA_C, torsions[r + 1][0])
            n, ca = n_next, ca_next
    return out


# The torsion angles of the turns and linkers below came out of a random search for compact bundles
# without clashes; the helices between them are ideal.
_TURNS_FIRST: tuple[Torsions, ...] = (
    ((61, 45), (-122, 159), (-106, 22), (-54, 147)),
    ((-150, 141), (-114, 14), (-118, 119), (62, 36)),
    ((-68, 162), (-65, 117), (-38, 144), (-122, 163)),
)
_TURNS_SECOND: tuple[Torsions, ...] = (
    ((54, 41), (-100, -25), (44, 51), (-126, 156)),
    ((67, 40), (-60, 138), (-118, -16), (-76, 134)),
    ((64, 63), (-133, 143), (-57, -32), (-96, 3)),
)
_HINGE_LINKER: Torsions = ((-57, -22), (-109, 150), (-72, -57), (-92, 149), (-87, 167), (-82, 149))
_ARM_LINKER: Torsions = ((-85, 1), (-74, 145), (-84, 1), (-65, -52), (-130, 128), (-72, 160))

_HELIX_LENGTH = 17
_HELIX_SEQUENCE = "SAEELLKKLEEALKKAG"
_SECOND_HELIX_SEQUENCE = "TPEEVAKRVQELLREMG"
_TURN_SEQUENCE = "GNDS"
_LINKER_SEQUENCE = "GTSGSG"
_NAMES = {
    "A": "ALA", "D": "ASP", "E": "GLU", "G": "GLY", "K": "LYS", "L": "LEU", "M": "MET", "N": "ASN",
    "P": "PRO", "Q": "GLN", "R": "ARG", "S": "SER", "T": "THR", "V": "VAL",
}  # fmt: skip

DOMAIN_LENGTH = 4 * _HELIX_LENGTH + 3 * len(_TURN_SEQUENCE)
"""Residues of each of the two domains."""

LINKER_LENGTH = len(_LINKER_SEQUENCE)
"""Residues between them."""

HINGE_RESIDUE = DOMAIN_LENGTH + LINKER_LENGTH // 2
"""Index of the residue whose psi angle turns."""

HINGE_ANGLE = 50.0
"""Range of the hinge motion, degrees."""


def hinge_protein(angle: float) -> Atoms:
    """The two-domain protein with its hinge opened.

    Parameters
    ----------
    angle : float
        0 is closed, `HINGE_ANGLE` open, degrees.

    Returns
    -------
    Atoms
        166 residues of chain A with N, CA, C, O and (but for glycine) CB; the first domain is the same in
        every state.
    """
    return _opened(_protein(_HINGE_LINKER), angle)


def arm_protein(angle: float) -> Atoms:
    """The same domains on a linker that lets the second one swing all the way round.

    Parameters
    ----------
    angle : float
        0 to 360 degrees.

    Returns
    -------
    Atoms
        As `hinge_protein`.
    """
    return _opened(_protein(_ARM_LINKER), angle)


def _opened(closed: Atoms, angle: float) -> Atoms:
    """Add `angle` degrees to the psi angle of the hinge residue."""
    at_hinge = closed.residue == HINGE_RESIDUE
    ca, c = (closed.coords[at_hinge & (closed.atom_name == name)][0] for name in ("CA", "C"))
    moves = (closed.residue > HINGE_RESIDUE) | (at_hinge & (closed.atom_name == "O"))
    coords = closed.coords.copy()
    coords[moves] = rotate_about(coords[moves], c, c - ca, np.deg2rad(angle))
    return closed.with_coords(coords)


@cache
def _protein(linker: Torsions) -> Atoms:
    torsions = [*_bundle(_TURNS_FIRST), *linker, *_bundle(_TURNS_SECOND)]
    sequence = _TURN_SEQUENCE.join([_HELIX_SEQUENCE] * 4) + _LINKER_SEQUENCE
    sequence += _TURN_SEQUENCE.join([_SECOND_HELIX_SEQUENCE] * 4)
    rows = []
    for r, (letter, atoms) in enumerate(zip(sequence, backbone(torsions))):
        for name, z, xyz in zip(("N", "CA", "C", "O", "CB"), (7, 6, 6, 8, 6), atoms):
            if not (name == "CB" and letter == "G"):
                rows.append(("A", r + 1, "", _NAMES[letter], name, name[0], z, *xyz))
    return build_atoms(rows)


def _bundle(turns: tuple[Torsions, ...]) -> list[tuple[float, float]]:
    torsions = [HELIX] * _HELIX_LENGTH
    for turn in turns:
        torsions += [*turn, *[HELIX] * _HELIX_LENGTH]
    return torsions
