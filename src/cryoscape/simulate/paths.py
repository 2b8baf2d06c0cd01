"""Paths between conformations: elastic-network interpolation and rigid turns of a domain."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryoscape.errors import InputError
from cryoscape.simulate.atoms import Atoms

Array = NDArray[np.float64]

SAME_FRAME = 2.0
"""A residue is at the same place in two models when it moves by no more than this, Angstrom."""

CORE_FRACTION = 0.25
"""Two models share a frame when at least this fraction of the residues is at the same place."""


def superpose(moving: Array, target: Array, weights: Array | None = None) -> tuple[Array, Array]:
    """Best rigid motion of one point set onto another (Kabsch, Acta Cryst. A32, 922, 1976).

    Parameters
    ----------
    moving, target : ndarray, shape (n, 3)
        Matched points, Angstrom.
    weights : ndarray, shape (n,), optional
        Weight of each pair.

    Returns
    -------
    rotation : ndarray, shape (3, 3)
    translation : ndarray, shape (3,)
        `moving @ rotation.T + translation` lies on `target`.
    """
    w = np.ones(len(moving)) if weights is None else weights
    w = w / w.sum()
    centre_m, centre_t = w @ moving, w @ target
    u, _, vt = np.linalg.svd(((moving - centre_m) * w[:, None]).T @ (target - centre_t))
    sign = np.sign(np.linalg.det(vt.T @ u.T))
    rotation = vt.T @ np.diag([1.0, 1.0, sign]) @ u.T
    return rotation, centre_t - rotation @ centre_m


def least_moving_core(a: Array, b: Array, scale: float = 1.0, rounds: int = 50) -> NDArray[np.bool_]:
    """The residues that a rigid motion can lay on top of each other.

    Iteratively re-weighted superposition with weights 1 / (1 + (d / scale)^2)^2, so that a domain
    that moves loses its say; the core is what then lies within twice the scale.

    Parameters
    ----------
    a, b : ndarray, shape (R, 3)
        Beads of the two conformations.
    scale : float
        Distance in Angstrom beyond which a residue counts as moved.
    rounds : int
        Iterations.

    Returns
    -------
    ndarray of bool, shape (R,)
        At least a quarter of the residues.
    """
    weights = np.ones(len(a))
    distance = np.zeros(len(a))
    for step in range(rounds):
        rotation, translation = superpose(b, a, weights)
        distance = np.linalg.norm(b @ rotation.T + translation - a, axis=1)
        # The scale shrinks from the typical distance, so that the first fit does not decide alone.
        width = max(scale, float(np.median(distance)) * 0.9**step)
        weights = 1.0 / (1.0 + (distance / width) ** 2) ** 2
    core = distance < max(2 * scale, float(np.quantile(distance, CORE_FRACTION)))
    return core


def common_frame(a: Atoms, b: Atoms) -> Array:
    """Coordinates of `b` (n, 3) in the frame of `a`.

    Where a quarter of the residues already lie within 2 A of each other the frames are kept: whoever
    superposed the models chose what to superpose. Else they are superposed by `least_moving_core`.

    Parameters
    ----------
    a, b : Atoms
        Same atoms in the same order.

    Returns
    -------
    ndarray, shape (n, 3)
    """
    moved = np.linalg.norm(b.bead_coords - a.bead_coords, axis=1)
    if (moved <= SAME_FRAME).mean() >= CORE_FRACTION:
        return b.coords
    core = a.bead[least_moving_core(a.bead_coords, b.bead_coords)]
    rotation, translation = superpose(b.coords[core], a.coords[core])
    return b.coords @ rotation.T + translation


@dataclass(frozen=True)
class Matched:
    """Two models reduced to the atoms that both have.

    Attributes
    ----------
    a, b : Atoms
        Same atoms in the same order.
    unmatched : int
        Atoms left out of either.
    """

    a: Atoms
    b: Atoms
    unmatched: int


def match_atoms(a: Atoms, b: Atoms) -> Matched:
    """Pair the atoms of two models by chain, residue number, insertion code and atom name.

    Where the models' chains are named differently but follow each other in the same order, chains are
    paired by order.

    Parameters
    ----------
    a, b : Atoms
        Models of the same molecule.

    Returns
    -------
    Matched

    Raises
    ------
    InputError
        If fewer than half of the residues of `a` are found in `b`, or matched residues differ in name.
    """
    rename = dict(zip(dict.fromkeys(b.chain_id), dict.fromkeys(a.chain_id)))
    if set(rename) == set(rename.values()):
        rename = {name: name for name in rename}
    keys_b = {(rename.get(k[0], k[0]), *k[1:]): n for n, k in enumerate(b.atom_keys())}
    pairs = [(n, keys_b[k]) for n, k in enumerate(a.atom_keys()) if k in keys_b]
    remedy = "Give two models of the same molecule with the same residue numbers."
    if not pairs:
        raise InputError("the two models have no atom in common", file=b.path, remedy=remedy)
    ia, ib = np.array(pairs).T
    # A residue is of use only when its bead is found in both.
    bead_a = {int(a.residue[n]) for n in a.bead if n in set(ia)}
    ok = np.isin(a.residue[ia], list(bead_a))
    ia, ib = ia[ok], ib[ok]
    differing = np.flatnonzero(a.residue_name[ia] != b.residue_name[ib])
    if len(differing):
        n = ia[differing[0]]
        raise InputError(
            f"residue {a.chain_id[n]}:{a.residue_number[n]} is {a.residue_name[n]} in one model and "
            f"{b.residue_name[ib[differing[0]]]} in the other",
            file=b.path,
            remedy=remedy,
        )
    if len(bead_a) < 0.5 * len(a.bead):
        raise InputError(
            f"only {len(bead_a)} of {len(a.bead)} residues are found in both models",
            file=b.path,
            remedy=remedy,
        )
    first = a.take(ia)
    return Matched(first, first.with_coords(b.coords[ib]), len(a) + len(b) - 2 * len(ia))


def contact_pairs(a: Array, b: Array, cutoff: float) -> NDArray[np.int64]:
    """Pairs closer than the cut-off in either conformation.

    Parameters
    ----------
    a, b : ndarray, shape (n, 3)
        Angstrom.
    cutoff : float
        Angstrom.

    Returns
    -------
    ndarray of int, shape (E, 2)
        i < j, sorted.
    """
    from scipy.spatial import cKDTree

    found = [cKDTree(x).query_pairs(cutoff, output_type="ndarray") for x in (a, b)]
    return np.unique(np.concatenate(found), axis=0)


def elastic_path(
    a: Atoms, b: Atoms, n_states: int, *, cutoff: float = 6.0, iterations: int = 150
) -> list[Array]:
    """Interpolate two conformations through an elastic network.

    State s minimises sum_ij k_ij (d_ij - d*_ij)^2 / 2 over the pairs closer than the cut-off in either
    end, with d* the linear interpolation of the two distances and k = 10 for pairs below 2.7 A (bonds
    and angles), else 1. The search (L-BFGS) starts on the straight line between the ends. Every state is
    superposed on the core, the residues that move least between the ends (in their common frame, see
    `common_frame`).

    Parameters
    ----------
    a, b : Atoms
        Same atoms in the same order.
    n_states : int
        Both ends included.
    cutoff : float
        Angstrom; bead models need about 12.
    iterations : int
        Upper limit of the search of one state.

    Returns
    -------
    list of ndarray, shape (n, 3)
        The states, the ends exactly as given (up to that superposition).
    """
    from scipy.optimize import minimize
    from scipy.sparse import csr_matrix

    start, end = a.coords, common_frame(a, b)
    moved = np.linalg.norm((end - start)[a.bead], axis=1)
    core = a.bead[moved <= max(SAME_FRAME, float(np.quantile(moved, CORE_FRACTION)))]
    pairs = contact_pairs(start, end, cutoff)
    n_pairs = len(pairs)
    # d = M x gives all pair vectors, and M^T collects their forces: faster than scattered additions.
    rows = np.repeat(np.arange(n_pairs), 2)
    incidence = csr_matrix((np.tile([1.0, -1.0], n_pairs), (rows, pairs.ravel())), (n_pairs, len(a)))
    collect = incidence.T.tocsr()
    d_start, d_end = (np.linalg.norm(incidence @ x, axis=1) for x in (start, end))
    stiffness = np.where(np.minimum(d_start, d_end) < 2.7, 10.0, 1.0)

    def energy(flat: Array, target: Array) -> tuple[float, Array]:
        vectors = incidence @ flat.reshape(-1, 3)
        distance = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))
        stretch = stiffness * (distance - target)
        gradient = collect @ (vectors * (stretch / np.maximum(distance, 1e-9))[:, None])
        return 0.5 * float(stretch @ (distance - target)), gradient.ravel()

    states = [start]
    for fraction in np.linspace(0.0, 1.0, n_states)[1:-1]:
        line = (1 - fraction) * start + fraction * end
        target = (1 - fraction) * d_start + fraction * d_end
        found: Any = minimize(
            energy, line.ravel(), args=(target,), jac=True, method="L-BFGS-B", options={"maxiter": iterations}
        )
        state = found.x.reshape(-1, 3)
        rotation, translation = superpose(state[core], line[core])
        states.append(state @ rotation.T + translation)
    return [*states, end]


def rotate_about(points: Array, origin: Array, axis: Array, angle: float) -> Array:
    """Turn points about a line.

    Parameters
    ----------
    points : ndarray, shape (n, 3)
    origin : ndarray, shape (3,)
        A point of the line.
    axis : ndarray, shape (3,)
        Its direction, of any length.
    angle : float
        Radians.

    Returns
    -------
    ndarray, shape (n, 3)
    """
    from scipy.spatial.transform import Rotation

    turn = Rotation.from_rotvec(np.asarray(axis) / np.linalg.norm(axis) * angle)
    return turn.apply(points - origin) + origin
