"""Normal modes of an anisotropic elastic network (Atilgan et al. 2001), sparse from end to end."""

from __future__ import annotations

from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import coo_array, csc_array
from scipy.sparse.csgraph import connected_components, minimum_spanning_tree
from scipy.sparse.linalg import eigsh
from scipy.spatial import Delaunay, cKDTree

from cryoscape.errors import InputError

# Eigenvalues (in units of the spring constant) below this are motions that cost nothing.
_ZERO = 1e-6
# The Hessian is singular, so it is factorised a little below zero.
_SHIFT = -1e-4
# Up to this many coordinates a full diagonalisation is quicker than an iterative one.
_DENSE = 900


def anisotropic_network_modes(
    coords: ArrayLike, n_modes: int = 16, cutoff: float = 12.0
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Lowest modes of beads joined by equal springs within a cut-off.

    The Hessian of 1/2 sum_ij (|r_i - r_j| - |r0_i - r0_j|)^2 with unit springs; the six rigid motions,
    and any other motion that costs nothing, are left out.

    Parameters
    ----------
    coords : array, shape (N, 3)
        Angstrom.
    n_modes : int
        Number of modes wanted.
    cutoff : float
        Longest spring, Angstrom.

    Returns
    -------
    frequencies : ndarray, shape (n_modes,)
        Square roots of the eigenvalues, ascending; unit spring constant and unit mass, so only their
        ratios mean anything.
    modes : ndarray, shape (n_modes, N, 3)
        Each of unit norm over all 3 N numbers, orthogonal to each other; the sign is such that the
        largest component is positive.

    Raises
    ------
    InputError
        If the network falls into pieces that move freely against each other, or has too few modes.
    """
    xyz = np.asarray(coords, dtype=np.float64)
    pairs = _springs(xyz, cutoff)
    if n_modes < 1 or n_modes > 3 * len(xyz) - 6:
        raise InputError(
            f"{n_modes} normal modes were asked for, and {len(xyz)} residues have {max(3 * len(xyz) - 6, 0)}",
            remedy="Ask for fewer modes.",
        )
    hessian = _hessian(xyz, pairs)
    wanted = n_modes + 6
    while True:
        values, vectors = _lowest(hessian, wanted)
        free = int((values < _ZERO).sum())
        if len(values) - free >= n_modes:
            break
        if len(values) == hessian.shape[0]:
            raise InputError(
                f"the elastic network has only {len(values) - free} modes that cost energy",
                remedy="Ask for fewer modes or give a larger cut-off.",
            )
        # Floppy ends held by fewer than three springs add free motions to the six rigid ones.
        wanted = n_modes + free + 6
    modes = vectors[:, free : free + n_modes].T
    largest = np.take_along_axis(modes, np.abs(modes).argmax(axis=1)[:, None], axis=1)
    modes = modes * np.sign(largest)
    return np.sqrt(values[free : free + n_modes]), modes.reshape(n_modes, -1, 3)


def _springs(xyz: NDArray[np.float64], cutoff: float) -> NDArray[np.int64]:
    tree = cKDTree(xyz)
    pairs = tree.query_pairs(cutoff, output_type="ndarray").astype(np.int64)
    pieces = _pieces(pairs, len(xyz))
    if pieces > 1:
        enough = np.ceil(_longest_link(xyz))
        raise InputError(
            f"the elastic network falls into {pieces} separate pieces at a cut-off of {cutoff:g} A, "
            "so that its lowest modes are free motions of these",
            remedy=f"Give a cut-off of at least {enough:.0f} A, or a model without the loose pieces.",
        )
    return pairs


def _longest_link(xyz: NDArray[np.float64]) -> float:
    """Smallest cut-off that joins all beads: the longest edge of their minimum spanning tree."""
    n = len(xyz)
    if n <= 500:
        i, j = np.triu_indices(n, 1)
    else:
        # The tree is part of the Delaunay triangulation; joggled input allows for beads in a plane.
        corners = Delaunay(xyz, qhull_options="QJ").simplices
        i, j = np.unique(np.sort(corners[:, list(combinations(range(4), 2))].reshape(-1, 2)), axis=0).T
    length = np.linalg.norm(xyz[i] - xyz[j], axis=1)
    return float(minimum_spanning_tree(coo_array((length, (i, j)), shape=(n, n)).tocsr()).data.max())


def _pieces(pairs: NDArray[np.int64], n: int) -> int:
    graph = coo_array((np.ones(len(pairs)), tuple(pairs.T)), shape=(n, n))
    return int(connected_components(graph, directed=False, return_labels=False))


def _hessian(xyz: NDArray[np.float64], pairs: NDArray[np.int64]) -> csc_array:
    """Second derivatives at the reference, (3 N, 3 N): -u u^T off the diagonal for unit vectors u."""
    i, j = pairs.T
    step = xyz[j] - xyz[i]
    unit = step / np.linalg.norm(step, axis=1, keepdims=True)
    blocks = unit[:, :, None] * unit[:, None, :]
    n = len(xyz)
    diagonal = np.zeros((n, 3, 3))
    np.add.at(diagonal, i, blocks)
    np.add.at(diagonal, j, blocks)
    own = np.arange(n)
    block_row = np.concatenate([i, j, own])
    block_column = np.concatenate([j, i, own])
    values = np.concatenate([-blocks, -blocks, diagonal])
    axis = np.arange(3)
    row = np.broadcast_to(3 * block_row[:, None, None] + axis[:, None], values.shape)
    column = np.broadcast_to(3 * block_column[:, None, None] + axis, values.shape)
    return coo_array((values.ravel(), (row.ravel(), column.ravel())), shape=(3 * n, 3 * n)).tocsc()


def _lowest(hessian: csc_array, k: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    n = hessian.shape[0]
    if n <= _DENSE or k >= n - 1:
        values, vectors = np.linalg.eigh(hessian.toarray())
        return values[:k], vectors[:, :k]
    # A fixed start makes the result the same from run to run.
    start = np.random.default_rng(0).normal(size=n)
    values, vectors = eigsh(hessian, k=k, sigma=_SHIFT, which="LM", v0=start)
    order = np.argsort(values)
    return values[order], vectors[:, order]
