"""Is a decoded structure sound? Bond lengths and clashes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree


def bond_deviation(coords: NDArray, bonds: NDArray, lengths: NDArray) -> NDArray[np.float64]:
    """Root mean square deviation of bond lengths, a structure at a time.

    Parameters
    ----------
    coords : ndarray, shape (n, N, 3)
        Structures, A.
    bonds : ndarray, shape (E, 2), int
        Bonded residues.
    lengths : ndarray, shape (E,)
        Their lengths in the reference, A.

    Returns
    -------
    ndarray, shape (n,)
        A; zeros where there is no bond.
    """
    if len(bonds) == 0:
        return np.zeros(len(coords))
    ends = np.asarray(coords, dtype=np.float64)[:, np.asarray(bonds)]
    found = np.linalg.norm(ends[:, :, 0] - ends[:, :, 1], axis=-1)
    return np.sqrt(np.mean((found - np.asarray(lengths)) ** 2, axis=1))


def clash_counts(coords: NDArray, bonds: NDArray, cutoff: float = 4.0) -> NDArray[np.int64]:
    """Pairs of residues closer than the cut-off that are not bonded, a structure at a time.

    Parameters
    ----------
    coords : ndarray, shape (n, N, 3)
        Structures, A.
    bonds : ndarray, shape (E, 2), int
        Bonded residues, which may be close.
    cutoff : float
        A; beads of residues that are not neighbours in sequence are seldom closer than 4 A.

    Returns
    -------
    ndarray, shape (n,), int
    """
    bonds = np.sort(np.asarray(bonds, dtype=np.int64).reshape(-1, 2), axis=1)
    n_residues = coords.shape[1]
    bonded = np.unique(bonds[:, 0] * n_residues + bonds[:, 1])
    counts = np.empty(len(coords), dtype=np.int64)
    for i, structure in enumerate(np.asarray(coords, dtype=np.float64)):
        close = cKDTree(structure).query_pairs(cutoff, output_type="ndarray")
        close = np.sort(close, axis=1)
        counts[i] = np.count_nonzero(~np.isin(close[:, 0] * n_residues + close[:, 1], bonded))
    return counts
