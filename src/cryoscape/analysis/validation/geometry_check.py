"""Are the structures of a run still molecules? Judged by the measure of their own reference.

Beads are judged: distances of neighbours along the chain (CA-CA, P-P), and pairs that are too near, over all
pairs. Ramachandran angles and rotamers belong to models that are built back on the beads, and are not judged.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cryoscape.analysis.validation.results import Check, Status
from cryoscape.structures.atomic_model import AtomicModel
from cryoscape.structures.geometry import bond_deviation, clash_counts, geometry_report
from cryoscape.structures.restraints import USUAL_BOND, RestraintPairs, find_pairs

MOST_BOND_CHANGE = 0.3
"""Root mean square change of a bond from its length in the reference, A: three times the spread that CA-CA
distances have in deposited models of moderate resolution, 8 % of the distance."""

MORE_CLASHES = 0.01
"""Clashes a residue beyond the reference's own: 4 A of two beads is close, not impossible, and one such pair
in a hundred residues is what good models have."""

_FAR = 1e6  # A, where absent residues are put


def geometry_check(
    coords: NDArray | None,
    reference: AtomicModel | None,
    *,
    present: NDArray | None = None,
) -> Check:
    """Bonds and clashes of structures against their reference's own.

    Parameters
    ----------
    coords : ndarray, shape (m, N, 3), or None
        Structures drawn from the run, A; None where it makes maps.
    reference : AtomicModel or None
        N residues.
    present : ndarray, shape (m, N), optional
        Share of each residue that is there; one that mostly is not cannot clash.

    Returns
    -------
    Check
        Passed where both the mean change of bonds and the mean excess of clashes are small.
    """
    name, unjudged = "geometry", "Ramachandran angles and rotamers are of back-mapped models and not judged"
    if coords is None or reference is None:
        return Check(12, name, Status.NOT_RUN, f"Maps have no bonds; {unjudged}.")
    pairs = find_pairs(reference)
    found = geometry_report(coords, pairs)
    clashes = _clashes(coords, pairs, found.clash_cutoff, present)
    own = _clashes(np.asarray(reference.coords)[None], pairs, found.clash_cutoff, None)[0]
    bond, excess = float(found.bond_rms.mean()), (clashes - own) / len(reference)
    usual = _off_usual(coords, reference, pairs)
    sound = bond <= MOST_BOND_CHANGE and float(excess.mean()) <= MORE_CLASHES
    text = (
        f"Bonds change by {bond:.2f} A rms (worst {found.bond_worst.max():.2f} A), clashes are "
        f"{clashes.mean():.1f} a structure where the reference has {own}; {unjudged}."
    )
    values = {
        **found.summary(),
        "clashes_mean": float(clashes.mean()),
        "clashes_max": float(clashes.max()),
        "clashes_reference": int(own),
        "clashes_more_each_residue": float(excess.mean()),
        "off_usual_bond": usual[0],
        "off_usual_bond_reference": usual[1],
        "structures": len(coords),
        "bonds": found.n_bonds,
    }
    return Check(12, name, Status.PASSED if sound else Status.FAILED, text, values)


def _clashes(
    coords: NDArray, pairs: RestraintPairs, cutoff: float, present: NDArray | None
) -> NDArray[np.int64]:
    """Pairs that are too near, a structure at a time, among the residues that are there."""
    placed = np.array(coords, dtype=np.float64)
    if present is not None:
        away = _FAR * (1 + np.arange(placed.shape[1]))[:, None] * np.ones(3)
        placed = np.where(np.asarray(present)[..., None] >= 0.5, placed, away)
    return clash_counts(placed, pairs.excluded.numpy(), cutoff)


def _off_usual(coords: NDArray, reference: AtomicModel, pairs: RestraintPairs) -> tuple[float, float]:
    """Root mean square of bond lengths less the usual ones, A: of the structures, and of the reference."""
    bonds = pairs.bonds.numpy()
    usual = np.array([USUAL_BOND[int(kind)] for kind in np.asarray(reference.kind)[bonds[:, 0]]])
    own = np.asarray(reference.coords)[None]
    return float(bond_deviation(coords, bonds, usual).mean()), float(bond_deviation(own, bonds, usual)[0])
