"""Is a structure still a molecule? Bond lengths and clashes, for reports."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree

from cryoscape.structures.restraints import RestraintPairs


@dataclass(frozen=True, eq=False)
class GeometryReport:
    """Geometry of m structures against their reference.

    Attributes
    ----------
    bond_rms : ndarray, shape (m,)
        Root-mean-square change of the bond lengths, Angstrom; 0 where there are no bonds.
    bond_worst : ndarray, shape (m,)
        Largest change of a bond length, Angstrom.
    n_clashes : ndarray, shape (m,), int64
        Pairs of residues that are not bonded and closer than the cut-off.
    clash_cutoff : float
        Angstrom.
    n_bonds : int
        Bonds in the reference.
    """

    bond_rms: NDArray[np.float64]
    bond_worst: NDArray[np.float64]
    n_clashes: NDArray[np.int64]
    clash_cutoff: float
    n_bonds: int

    def summary(self) -> dict[str, float]:
        """Means and extremes over the structures, by name."""
        return {
            "bond_rms_mean": float(self.bond_rms.mean()),
            "bond_rms_max": float(self.bond_rms.max()),
            "bond_worst": float(self.bond_worst.max()),
            "clashes_mean": float(self.n_clashes.mean()),
            "clashes_max": float(self.n_clashes.max()),
            "structures_with_clashes": float((self.n_clashes > 0).mean()),
        }


def geometry_report(coords: ArrayLike, pairs: RestraintPairs, clash_cutoff: float = 4.0) -> GeometryReport:
    """Bond lengths and clashes of structures.

    Parameters
    ----------
    coords : array, shape (m, N, 3)
        Angstrom, m at least 1.
    pairs : RestraintPairs
        Pairs of the reference, from `find_pairs`.
    clash_cutoff : float
        Angstrom.

    Returns
    -------
    GeometryReport
    """
    xyz = np.asarray(coords, dtype=np.float64)
    if xyz.ndim != 3 or xyz.shape[2] != 3 or not len(xyz):
        raise ValueError(f"expected coordinates of shape (m, N, 3), got {xyz.shape}")
    bonds, lengths = pairs.bonds.cpu().numpy(), pairs.bond_lengths.cpu().numpy()
    i, j = bonds.T
    change = np.abs(np.linalg.norm(xyz[:, i] - xyz[:, j], axis=-1) - lengths)
    return GeometryReport(
        bond_rms=bond_deviation(xyz, bonds, lengths),
        bond_worst=change.max(axis=1, initial=0.0),
        n_clashes=clash_counts(xyz, pairs.excluded.cpu().numpy(), clash_cutoff),
        clash_cutoff=clash_cutoff,
        n_bonds=len(i),
    )


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
