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
    i, j = pairs.bonds.cpu().numpy().T
    change = np.linalg.norm(xyz[:, i] - xyz[:, j], axis=-1) - pairs.bond_lengths.cpu().numpy()
    if change.shape[1] == 0:
        change = np.zeros((len(xyz), 1))
    excluded = pairs.excluded.cpu().numpy()
    return GeometryReport(
        bond_rms=np.sqrt((change**2).mean(axis=1)),
        bond_worst=np.abs(change).max(axis=1),
        n_clashes=np.array([_count_clashes(x, excluded, clash_cutoff) for x in xyz], dtype=np.int64),
        clash_cutoff=clash_cutoff,
        n_bonds=len(i),
    )


def _count_clashes(xyz: NDArray[np.float64], excluded: NDArray[np.int64], cutoff: float) -> int:
    close = len(cKDTree(xyz).query_pairs(cutoff, output_type="ndarray"))
    allowed = np.linalg.norm(xyz[excluded[:, 0]] - xyz[excluded[:, 1]], axis=1) <= cutoff
    return close - int(allowed.sum())
