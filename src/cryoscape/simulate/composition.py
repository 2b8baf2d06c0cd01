"""Subunits that are present or absent, with exact Boltzmann probabilities of an Ising model.

A state is a vector s of m subunits, s_i = 1 where subunit i is present and 0 where it is not. Its energy in
kT and its probability are

    E(s) = - sum_i h_i s_i - sum_{i<j} J_ij s_i s_j,      p(s) = exp(-E(s) - log Z),

so a field h_i > 0 favours the presence of a subunit and a coupling J_ij > 0 that of two together. All 2^m
states are listed, and log Z is their exact sum.
"""

from __future__ import annotations

from dataclasses import dataclass
from string import ascii_uppercase

import numpy as np
from numpy.typing import NDArray

from cryoscape.errors import InputError
from cryoscape.simulate.atoms import Atoms, build_atoms
from cryoscape.simulate.domains import CONTACT
from cryoscape.simulate.hinge import DOMAIN_LENGTH, hinge_protein
from cryoscape.simulate.reading import select_residues

Array = NDArray[np.float64]

MOST_SUBUNITS = 8
"""256 states."""

SUBUNITS = 5
"""Subunits of the generated assembly."""

COUPLING = 1.5
"""Default coupling of two subunits that touch, kT."""

TILT = 0.8
"""Default fields deviate by up to this from those at which every subunit is present half of the time, kT."""

_SPACING = 6.0


@dataclass(frozen=True)
class IsingModel:
    """Energies of subunits that are present (1) or absent (0).

    Attributes
    ----------
    fields : ndarray, shape (m,)
        h, kT.
    couplings : ndarray, shape (m, m)
        J, kT, symmetric with a diagonal of 0.
    """

    fields: Array
    couplings: Array

    @property
    def configurations(self) -> NDArray[np.bool_]:
        """All states, shape (2^m, m); subunit i is missing where bit i of the state's number is set.

        So the first state has every subunit and the last none.
        """
        m = len(self.fields)
        return (np.arange(2**m)[:, None] >> np.arange(m)) & 1 == 0

    @property
    def energies(self) -> Array:
        """E(s) of all states, shape (2^m,), kT."""
        s = self.configurations.astype(np.float64)
        return -s @ self.fields - 0.5 * np.einsum("si,ij,sj->s", s, self.couplings, s)

    @property
    def log_partition(self) -> float:
        """Log Z, the exact sum over all states."""
        return float(np.logaddexp.reduce(-self.energies))

    @property
    def probabilities(self) -> Array:
        """p(s) of all states, shape (2^m,)."""
        return np.exp(-self.energies - self.log_partition)


def default_model(
    touching: NDArray[np.bool_], fields: tuple[float, ...] | None, couplings: tuple[float, ...] | None
) -> IsingModel:
    """The Ising model of an assembly: as given, or cooperative along its contacts.

    Parameters
    ----------
    touching : ndarray of bool, shape (m, m)
        Which subunits are in contact.
    fields : tuple of m floats, optional
        h. Default: -1/2 sum_j J_ij, at which every subunit is present half of the time, plus -0.8 to 0.8
        from the first subunit to the last, so that they differ.
    couplings : tuple of float, optional
        One number for all subunits in contact, or m (m - 1) / 2 for the pairs (1, 2), (1, 3), ...
        Default: 1.5.

    Returns
    -------
    IsingModel

    Raises
    ------
    InputError
        If there are too few or too many numbers, or one is not finite.
    """
    m = len(touching)
    pairs = m * (m - 1) // 2
    given = np.array((COUPLING,) if couplings is None else couplings, dtype=np.float64)
    matrix = np.zeros((m, m))
    if len(given) == 1:
        matrix[touching] = given[0]
    elif len(given) == pairs:
        matrix[np.triu_indices(m, 1)] = given
        matrix += matrix.T
    else:
        raise InputError(
            f"{len(given)} couplings for {m} subunits",
            remedy=f"Give one for all subunits in contact, or {pairs}, one a pair.",
        )
    h = np.linspace(-TILT, TILT, m) - 0.5 * matrix.sum(axis=1) if fields is None else np.array(fields)
    if len(h) != m:
        raise InputError(f"{len(h)} fields for {m} subunits", remedy="Give one field a subunit.")
    if not (np.isfinite(h).all() and np.isfinite(matrix).all()):
        raise InputError("a field or coupling is not finite", remedy="Give numbers in kT, for example 1.5.")
    return IsingModel(h.astype(np.float64), matrix)


def split_subunits(atoms: Atoms, selections: tuple[str, ...] | None) -> NDArray[np.int64]:
    """Subunit of every residue of a model that the user gives.

    Parameters
    ----------
    atoms : Atoms
    selections : tuple of str, optional
        One a subunit, for example ``("B", "C,D")``. Default: every chain but the largest.

    Returns
    -------
    ndarray of int, shape (R,)
        Subunit of each bead; -1 for the core, which is always there.

    Raises
    ------
    InputError
        If a selection names nothing, two overlap, nothing or everything is left, or there are more than 8.
    """
    chain = atoms.chain_id[atoms.bead]
    if selections is None:
        names, counts = np.unique(chain, return_counts=True)
        core = names[np.argmax(counts)]
        selections = tuple(str(name) for name in dict.fromkeys(chain) if name != core)
    if not 1 <= len(selections) <= MOST_SUBUNITS:
        raise InputError(
            f"{len(selections)} subunits, where 1 to {MOST_SUBUNITS} can be listed",
            file=atoms.path,
            remedy='Name them with --subunits, for example --subunits "B" "C,D"; the rest is the core.',
        )
    subunit = np.full(len(chain), -1)
    for number, text in enumerate(selections):
        chosen = select_residues(atoms, text)
        assert chosen is not None
        if (subunit[chosen] >= 0).any():
            raise InputError(
                f"subunit {text!r} overlaps another", remedy="Let every residue be in one subunit at most."
            )
        subunit[chosen] = number
    if (subunit >= 0).all():
        raise InputError(
            "the subunits are the whole model, and none of it is always there",
            file=atoms.path,
            remedy="Leave some residues out of --subunits; they are the core.",
        )
    return subunit


def contacts(beads: Array, subunit: NDArray[np.int64], n: int) -> NDArray[np.bool_]:
    """Which subunits have beads within 10 A of each other, shape (n, n)."""
    from scipy.spatial import cKDTree

    trees = [cKDTree(beads[subunit == i]) for i in range(n)]
    touching = np.zeros((n, n), dtype=bool)
    for i in range(n):
        for j in range(i):
            touching[i, j] = touching[j, i] = trees[i].count_neighbors(trees[j], CONTACT) > 0
    return touching


def assembly(m: int) -> Atoms:
    """A core with m subunits round it, made by formula.

    The core is the two-domain protein of `hinge`, chain A; every subunit is one of its domains, in an
    orientation of its own, pushed from outside towards the core until beads are 6 A apart, on the side where
    it comes to lie closest to the core and to the subunit before it.

    Parameters
    ----------
    m : int
        1 to 8.

    Returns
    -------
    Atoms
        Chain A is the core, B, C, ... the subunits.
    """
    from scipy.spatial.transform import Rotation

    protein = hinge_protein(0.0)
    protein = protein.with_coords(protein.coords - protein.bead_coords.mean(axis=0))
    first, second = protein.residue < DOMAIN_LENGTH, protein.residue >= len(protein.bead) - DOMAIN_LENGTH
    parts, last = [protein], np.zeros(3)
    for i in range(m):
        domain = protein.take(np.flatnonzero(second if i % 2 else first))
        turn = Rotation.from_euler("ZYZ", [137.5 * i, 61.0 * (i + 1), 83.0 * i], degrees=True)
        domain = domain.with_coords(turn.apply(domain.coords - domain.bead_coords.mean(axis=0)))
        there = np.concatenate([part.bead_coords for part in parts])
        places = _directions() * _approach(domain.bead_coords, there, _directions())[:, None]
        crowding = np.linalg.norm(places, axis=1) + np.linalg.norm(places - last, axis=1)
        last = places[np.argmin(crowding)]
        parts.append(domain.with_coords(domain.coords + last))
    rows = [
        (ascii_uppercase[c], int(r), "", str(name), str(atom), str(element), int(z), *xyz)
        for c, part in enumerate(parts)
        for r, name, atom, element, z, xyz in zip(
            part.residue + 1, part.residue_name, part.atom_name, part.element, part.weights, part.coords
        )
    ]
    return build_atoms(rows)


def _directions(n: int = 60) -> Array:
    """Unit vectors spread evenly over the sphere (a golden-angle spiral), shape (n, 3)."""
    z = 1 - (2 * np.arange(n) + 1) / n
    angle = np.pi * (1 + np.sqrt(5)) * np.arange(n)
    return np.stack([np.sqrt(1 - z**2) * np.cos(angle), np.sqrt(1 - z**2) * np.sin(angle), z], axis=1)


def _approach(moving: Array, there: Array, directions: Array) -> Array:
    """Where a body that comes from outside stops along each direction: the last t with a pair at 6 A."""
    gap = (moving[:, None] - there[None]).reshape(-1, 3)
    along = gap @ directions.T
    square = along**2 - (gap**2).sum(axis=1)[:, None] + _SPACING**2
    return np.where(square >= 0, np.sqrt(np.maximum(square, 0)) - along, 0).max(axis=0)
