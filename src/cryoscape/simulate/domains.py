"""Rigid motions of one domain of a given model: where to cut, about which line to turn."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cryoscape.errors import InputError
from cryoscape.simulate.atoms import Atoms
from cryoscape.simulate.paths import rotate_about

Array = NDArray[np.float64]

CONTACT = 10.0
"""Two residues touch when their beads are closer than this, Angstrom."""

CLASH = 4.0
"""Beads of different domains closer than this clash, Angstrom."""


@dataclass(frozen=True)
class Arm:
    """A domain that can turn against the rest.

    Attributes
    ----------
    residues : ndarray of bool, shape (R,)
        The residues that move.
    pivot : ndarray, shape (3,)
        Where it is attached, Angstrom.
    to_body, to_arm : ndarray, shape (3,)
        Unit vectors from the body's centre to the pivot, and from the pivot to the arm's centre.
    """

    residues: NDArray[np.bool_]
    pivot: Array
    to_body: Array
    to_arm: Array


def thinnest_cut(beads: Array) -> NDArray[np.bool_]:
    """The smaller side of the thinnest cut through the contacts of a model.

    Residues in contact form a graph; the cut is the best threshold on the second eigenvector of its
    normalised Laplacian by conductance (Shi and Malik, IEEE PAMI 22, 888, 2000).

    Parameters
    ----------
    beads : ndarray, shape (R, 3)
        Angstrom.

    Returns
    -------
    ndarray of bool, shape (R,)

    Raises
    ------
    InputError
        If there are fewer than 8 residues.
    """
    from scipy.sparse import coo_matrix, csr_matrix, diags
    from scipy.sparse.linalg import eigsh
    from scipy.spatial import cKDTree

    n = len(beads)
    if n < 8:
        raise InputError(f"a model of {n} residues has no domains", remedy="Give a larger model.")
    pairs = cKDTree(beads).query_pairs(CONTACT, output_type="ndarray")
    # A weak bond along the order of the file ties separate pieces together.
    pairs = np.concatenate([pairs, np.stack([np.arange(n - 1), np.arange(1, n)], axis=1)])
    weights = np.concatenate([np.ones(len(pairs) - n + 1), np.full(n - 1, 0.01)])
    graph: csr_matrix = coo_matrix((weights, pairs.T), shape=(n, n)).tocsr()
    graph = graph + graph.T
    degree = np.asarray(graph.sum(axis=1)).ravel()
    scale = diags(1 / np.sqrt(degree))
    laplacian = diags(np.ones(n)) - scale @ graph @ scale
    # The start is fixed, so that the same model gives the same cut.
    _, vectors = eigsh(laplacian.tocsc(), k=2, sigma=-1e-3, v0=np.cos(np.arange(n)))
    order = np.argsort(scale @ vectors[:, 1])
    rank = np.empty(n, dtype=int)
    rank[order] = np.arange(n)
    low, high = np.minimum(*rank[pairs.T]), np.maximum(*rank[pairs.T])
    # An edge is cut by every threshold between the ranks of its ends.
    cut = np.cumsum(np.bincount(low, weights, n + 1) - np.bincount(high, weights, n + 1))[: n - 1]
    volume = np.cumsum(degree[order])[: n - 1]
    conductance = cut / np.minimum(volume, degree.sum() - volume)
    best = int(np.argmin(conductance)) + 1
    arm = np.zeros(n, dtype=bool)
    arm[order[:best] if best <= n // 2 else order[best:]] = True
    return arm


def find_arm(atoms: Atoms, moving: NDArray[np.bool_] | None) -> Arm:
    """The moving domain and where it is attached.

    Parameters
    ----------
    atoms : Atoms
    moving : ndarray of bool, shape (R,), or None
        The residues that move; None finds them with `thinnest_cut`.

    Returns
    -------
    Arm

    Raises
    ------
    InputError
        If nothing moves, or everything.
    """
    from scipy.spatial import cKDTree

    beads = atoms.bead_coords
    mask = thinnest_cut(beads) if moving is None else moving
    if mask.all() or not mask.any():
        raise InputError(
            "the moving part is all or nothing", remedy="Name some residues, for example 'B:1-90'."
        )
    chain, number = atoms.chain_id[atoms.bead], atoms.residue_number[atoms.bead]
    bonded = (chain[1:] == chain[:-1]) & (np.diff(number) <= 1) & (mask[1:] != mask[:-1])
    crossing = np.flatnonzero(bonded)
    if len(crossing):
        # At the bonds that it cuts, a turn stretches them least.
        pivot = 0.5 * (beads[crossing] + beads[crossing + 1]).mean(axis=0)
    else:
        body, arm = beads[~mask], beads[mask]
        distance, nearest = cKDTree(body).query(arm)
        close = distance <= max(CONTACT, float(distance.min()))
        pivot = 0.5 * (arm[close] + body[nearest[close]]).mean(axis=0)
    to_body, to_arm = pivot - beads[~mask].mean(axis=0), beads[mask].mean(axis=0) - pivot
    return Arm(mask, pivot, to_body / np.linalg.norm(to_body), to_arm / np.linalg.norm(to_arm))


def turned(atoms: Atoms, arm: Arm, axis: Array, angle: float) -> Array:
    """All atoms (n, 3) with the arm turned by `angle` radians about a line through its pivot."""
    moves = arm.residues[atoms.residue]
    coords = atoms.coords.copy()
    coords[moves] = rotate_about(coords[moves], arm.pivot, axis, angle)
    return coords


def new_clashes(atoms: Atoms, arm: Arm, axis: Array, angles: Array) -> int:
    """Pairs of beads closer than 4 A, over all angles, that the model as given does not have."""
    from scipy.spatial import cKDTree

    beads = atoms.bead_coords
    body = cKDTree(beads[~arm.residues])

    def count(angle: float) -> int:
        points = rotate_about(beads[arm.residues], arm.pivot, axis, angle)
        return sum(len(near) for near in body.query_ball_point(points, CLASH))

    return sum(max(0, count(float(a)) - count(0.0)) for a in angles)


def turning_axis(atoms: Atoms, arm: Arm) -> Array:
    """Line about which the arm can turn all the way round.

    Of the directions between "body to pivot" (the arm sweeps the widest cone) and "pivot to arm" (it
    spins in place), the first that makes no clash, or that which makes the fewest.

    Parameters
    ----------
    atoms : Atoms
    arm : Arm

    Returns
    -------
    ndarray, shape (3,)
        Unit vector.
    """
    angles = np.linspace(0, 2 * np.pi, 25)[1:-1]
    candidates = [(1 - t) * arm.to_body + t * arm.to_arm for t in np.linspace(0, 1, 9)]
    usable = [c / np.linalg.norm(c) for c in candidates if np.linalg.norm(c) > 0.1]
    clashes = [new_clashes(atoms, arm, axis, angles) for axis in usable]
    return usable[int(np.argmin(clashes))]


def bending_axis(atoms: Atoms, arm: Arm, angle: float) -> Array:
    """Line about which the arm bends away from the body, in the plane of the two.

    Parameters
    ----------
    atoms : Atoms
    arm : Arm
    angle : float
        How far it is to bend, radians.

    Returns
    -------
    ndarray, shape (3,)
        Unit vector; the sense of turning is the one with fewer clashes.
    """
    normal = np.cross(arm.to_body, arm.to_arm)
    if np.linalg.norm(normal) < 0.1:
        normal = np.cross(arm.to_arm, np.eye(3)[np.argmin(np.abs(arm.to_arm))])
    normal = normal / np.linalg.norm(normal)
    angles = np.linspace(0, angle, 9)[1:]
    return min((normal, -normal), key=lambda axis: new_clashes(atoms, arm, axis, angles))
