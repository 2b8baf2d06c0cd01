"""Which atoms of a file make the residues of the model.

Everything works on whole columns of atoms, so that assemblies of tens of thousands of residues take
a second or two.
"""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import gemmi
import numpy as np
from numpy.typing import NDArray

from cryoscape.errors import InputError
from cryoscape.structures.atom_table import READ_REMEDY, AtomTable, load_atoms
from cryoscape.structures.atomic_model import AMINO, NUCLEOTIDE
from cryoscape.structures.composition import residue_electrons

_WATER, _OTHER, _UNKNOWN = 2, 3, -1
# Old files write a star for the prime of the sugar.
_SUGAR = ("C1'", "C1*")


class Polymer(NamedTuple):
    """The arrays of an `AtomicModel`, before they are one."""

    coords: NDArray[np.float32]
    weights: NDArray[np.float32]
    chain_id: NDArray[np.str_]
    residue_number: NDArray[np.int64]
    insertion_code: NDArray[np.str_]
    residue_name: NDArray[np.str_]
    kind: NDArray[np.int8]
    atom_name: NDArray[np.str_]
    heavy_coords: NDArray[np.float32]
    heavy_weights: NDArray[np.float32]
    heavy_residue: NDArray[np.int64]
    left_out: dict[str, int]


def read_polymer(path: str | PathLike[str]) -> Polymer:
    """Read the residues that carry a bead.

    Rules. A residue is kept when it is an amino acid or a nucleotide by gemmi's table (which knows the
    modified ones), or, for names the table does not know, by its atoms; ATOM records are polymer, HETATM
    records only where gemmi places them within a chain. Alternative conformations: the label with the
    highest mean occupancy that holds the bead's atom, the first of equals; the choice is made once a
    residue, so that conformations are never mixed. Hydrogens are ignored.

    Parameters
    ----------
    path : path
        .pdb, .ent, .cif, .mmcif or .bcif, with or without .gz.

    Returns
    -------
    Polymer

    Raises
    ------
    InputError
        See `AtomicModel.read`.
    """
    models = load_atoms(Path(path))
    polymer = _polymer(models[0], path)
    if len(models) > 1:
        polymer.left_out["models after the first"] = len(models) - 1
    return polymer


def read_bead_models(path: str | PathLike[str]) -> NDArray[np.float32]:
    """Read the beads of all models of a file, by the rules of `read_polymer`.

    Parameters
    ----------
    path : path
        .pdb, .ent, .cif, .mmcif or .bcif, with or without .gz.

    Returns
    -------
    ndarray, shape (m, N, 3), float32
        Angstrom.

    Raises
    ------
    InputError
        As `read_polymer`, and if the models do not hold the same residues.
    """
    polymers = [_polymer(atoms, path) for atoms in load_atoms(Path(path))]
    first = polymers[0]
    for number, other in enumerate(polymers[1:], start=2):
        same = len(other.coords) == len(first.coords) and all(
            np.array_equal(getattr(first, name), getattr(other, name))
            for name in ("chain_id", "residue_number", "insertion_code")
        )
        if not same:
            raise InputError(
                f"model {number} does not hold the same residues as the first",
                file=path,
                remedy="Give models of one and the same molecule.",
            )
    return np.stack([polymer.coords for polymer in polymers])


def _polymer(atoms: AtomTable, path: str | PathLike[str]) -> Polymer:
    group = _runs(atoms.chain, atoms.number, atoms.insertion, atoms.residue)
    kind = _residue_kinds(atoms, group)
    left_out = {
        "waters": int((kind == _WATER).sum()),
        "ligands": int((kind == _OTHER).sum()),
    }

    atoms, group = _only(atoms, group, np.isin(kind, (AMINO, NUCLEOTIDE)))
    if not len(group):
        raise InputError(
            "no polymer: the file holds no amino acids and no nucleotides", file=path, remedy=READ_REMEDY
        )
    n_hydrogen = int((atoms.electrons == 1).sum())
    heavy = atoms.electrons > 1
    atoms, group = atoms.take(heavy), group[heavy]

    keep = _one_conformation(atoms, group, kind, path)
    left_out["atoms of other conformations"] = int((~keep).sum())
    atoms, group = atoms.take(keep), group[keep]

    bead = _bead_atoms(atoms, group, kind)
    with_bead = np.zeros(len(kind), dtype=bool)
    with_bead[group[bead]] = True
    left_out["residues without CA, P or C1'"] = len(np.unique(group[~with_bead[group]]))
    left_out["hydrogen atoms"] = n_hydrogen
    if not len(bead):
        raise InputError(
            "no polymer: no residue holds a CA, P or C1' atom",
            file=path,
            remedy="Give a model with at least one of these atoms in each residue.",
        )
    _check_beads(atoms, bead, path)
    return _assemble(atoms, group, bead, kind, {what: n for what, n in left_out.items() if n})


def _runs(*columns: NDArray[Any]) -> NDArray[np.int64]:
    """Number of the run of equal neighbouring rows that each row belongs to, from 0."""
    change = np.zeros(len(columns[0]), dtype=bool)
    for column in columns:
        change[1:] |= column[1:] != column[:-1]
    return np.cumsum(change)


def _only(
    atoms: AtomTable, group: NDArray[np.int64], keep: NDArray[np.bool_]
) -> tuple[AtomTable, NDArray[np.int64]]:
    rows = np.flatnonzero(keep[group])
    return atoms.take(rows), group[rows]


def _residue_kinds(atoms: AtomTable, group: NDArray[np.int64]) -> NDArray[np.int64]:
    """Amino acid, nucleotide, water or other, for each group of atoms."""
    first = np.flatnonzero(np.diff(group, prepend=-1))
    names, which = np.unique(atoms.residue[first], return_inverse=True)
    kind = np.array([_tabulated_kind(name) for name in names], dtype=np.int64)[which]
    n = len(first)

    def holds(names: tuple[str, ...], electrons: int) -> NDArray[np.bool_]:
        hit = np.isin(atoms.name, names) & (atoms.electrons == electrons)
        return np.bincount(group[hit], minlength=n) > 0

    unknown = kind == _UNKNOWN
    entity = atoms.entity[first]
    hetero = atoms.hetero[first]
    in_chain = entity == gemmi.EntityType.Polymer.value
    believed = ~hetero | in_chain
    kind[unknown] = _OTHER
    kind[unknown & believed & (holds(("P",), 15) | holds(_SUGAR, 6))] = NUCLEOTIDE
    kind[unknown & believed & holds(("CA",), 6)] = AMINO
    # A free amino acid or nucleotide bound as a ligand is no part of a chain.
    free = hetero & (entity == gemmi.EntityType.NonPolymer.value)
    kind[free & (kind != _WATER)] = _OTHER
    return kind


def _tabulated_kind(name: str) -> int:
    info = gemmi.find_tabulated_residue(name)
    if info.is_water():
        return _WATER
    if info.is_amino_acid():
        return AMINO
    if info.is_nucleic_acid():
        return NUCLEOTIDE
    return _OTHER if info.found() else _UNKNOWN


def _is_bead(atoms: AtomTable, group: NDArray[np.int64], kind: NDArray[np.int64]) -> NDArray[np.int8]:
    """Rank of each atom as the bead of its residue: 0 best, 1 second best, 2 never."""
    nucleotide = kind[group] == NUCLEOTIDE
    rank = np.full(len(group), 2, dtype=np.int8)
    rank[~nucleotide & (atoms.name == "CA") & (atoms.electrons == 6)] = 0
    rank[nucleotide & (atoms.name == "P")] = 0
    rank[nucleotide & np.isin(atoms.name, _SUGAR)] = 1
    return rank


def _one_conformation(
    atoms: AtomTable, group: NDArray[np.int64], kind: NDArray[np.int64], path: str | PathLike[str]
) -> NDArray[np.bool_]:
    """Mask of the atoms of one conformation and one residue name a site.

    Raises
    ------
    InputError
        If a residue appears twice, whole or in part, without labels to tell the copies apart.
    """
    site = _runs(atoms.chain, atoms.number, atoms.insertion)
    starts = np.flatnonzero(np.diff(site, prepend=-1))
    key = np.array([atoms.chain[starts], atoms.number[starts].astype(np.str_), atoms.insertion[starts]])
    _, seen, count = np.unique(key, axis=1, return_index=True, return_counts=True)
    if (count > 1).any():
        _duplicate(atoms, starts[seen[count > 1].min()], path)

    keep = np.ones(len(site), dtype=bool)
    several = np.zeros(len(starts), dtype=bool)
    several[site[atoms.altloc != 0]] = True
    several[np.unique(site[1:][(np.diff(group) != 0) & (np.diff(site) == 0)])] = True
    rank = _is_bead(atoms, group, kind)
    ends = np.append(starts[1:], len(site))
    for s in np.flatnonzero(several):
        rows = np.arange(starts[s], ends[s])
        keep[rows] = _choose(atoms, group, rank, rows, path)

    kept = np.flatnonzero(keep)
    pairs = np.char.add(np.char.add(site[kept].astype(np.str_), "/"), atoms.name[kept])
    _, seen, count = np.unique(pairs, return_index=True, return_counts=True)
    if (count > 1).any():
        _duplicate(atoms, kept[seen[count > 1].min()], path)
    return keep


def _choose(
    atoms: AtomTable,
    group: NDArray[np.int64],
    rank: NDArray[np.int8],
    rows: NDArray[np.int64],
    path: str | PathLike[str],
) -> NDArray[np.bool_]:
    """Mask over the `rows` of one site: the atoms of its best conformation."""
    label, owner = atoms.altloc[rows], group[rows]
    candidates: dict[tuple[int, int], tuple[bool, float]] = {}
    for g, a in dict.fromkeys(zip(owner.tolist(), label.tolist())):
        if a == 0 and (label[owner == g] != 0).any():
            continue
        own = (owner == g) & (label == a)
        whole = (owner == g) & ((label == a) | (label == 0))
        candidates[g, a] = (bool((rank[rows[whole]] < 2).any()), float(atoms.occupancy[rows[own]].mean()))
    if len(candidates) > 1 and all(a == 0 for _, a in candidates):
        _duplicate(atoms, rows[0], path)
    # max() returns the first of equals.
    g, a = max(candidates, key=lambda c: (candidates[c][0], round(candidates[c][1], 4)))
    mask = (owner == g) & ((label == a) | (label == 0))
    labelled = set(atoms.name[rows[mask & (label != 0)]].tolist())
    twice = (label == 0) & np.isin(atoms.name[rows], sorted(labelled)) if a else np.zeros(len(rows), bool)
    return mask & ~twice


def _duplicate(atoms: AtomTable, row: int, path: str | PathLike[str]) -> None:
    name = f"{atoms.chain[row]}:{atoms.number[row]}{atoms.insertion[row]} {atoms.residue[row]}"
    raise InputError(
        f"duplicate residues: {name} appears more than once in its chain",
        file=path,
        remedy="Give each copy of a chain its own name, and each residue its own number.",
    )


def _bead_atoms(atoms: AtomTable, group: NDArray[np.int64], kind: NDArray[np.int64]) -> NDArray[np.int64]:
    """Row of the bead's atom of each residue that has one, in order."""
    rank = _is_bead(atoms, group, kind)
    rows = np.flatnonzero(rank < 2)
    rows = rows[np.lexsort((rank[rows], group[rows]))]
    return rows[np.diff(group[rows], prepend=-1) != 0]


def _check_beads(atoms: AtomTable, bead: NDArray[np.int64], path: str | PathLike[str]) -> None:
    finite = np.isfinite(atoms.coords).all(axis=1)
    if not finite.all():
        row = int(np.argmin(finite))
        raise InputError(
            f"coordinates that are not finite, first at {atoms.chain[row]}:{atoms.number[row]} "
            f"{atoms.residue[row]} {atoms.name[row]}",
            file=path,
            remedy="Remove these atoms or save the model again.",
        )
    order = np.lexsort(atoms.coords[bead].T)
    same = (np.diff(atoms.coords[bead][order], axis=0) == 0).all(axis=1)
    if same.any():
        a, b = sorted(bead[order[int(np.argmax(same)) + i]] for i in (0, 1))
        raise InputError(
            f"duplicate residues: {atoms.chain[a]}:{atoms.number[a]} and {atoms.chain[b]}:{atoms.number[b]} "
            "lie at the same place",
            file=path,
            remedy="Remove one of the copies, or mend the coordinate columns.",
        )


def _assemble(
    atoms: AtomTable,
    group: NDArray[np.int64],
    bead: NDArray[np.int64],
    kind: NDArray[np.int64],
    left_out: dict[str, int],
) -> Polymer:
    place = np.full(len(kind), -1, dtype=np.int64)
    place[group[bead]] = np.arange(len(bead))
    heavy = np.flatnonzero(place[group] >= 0)
    owner = place[group[heavy]]
    electrons = atoms.electrons[heavy].copy()
    chosen = atoms.take(bead)
    # A residue of which the file holds the bead alone scatters as the whole residue.
    lone = np.flatnonzero(np.bincount(owner, minlength=len(bead))[owner] == 1)
    electrons[lone] = [residue_electrons(name) for name in chosen.residue[owner[lone]].tolist()]
    return Polymer(
        coords=chosen.coords.astype(np.float32),
        weights=np.bincount(owner, electrons, minlength=len(bead)).astype(np.float32),
        chain_id=chosen.chain,
        residue_number=chosen.number,
        insertion_code=chosen.insertion,
        residue_name=chosen.residue,
        kind=kind[group[bead]].astype(np.int8),
        atom_name=np.char.replace(chosen.name, "*", "'"),
        heavy_coords=atoms.coords[heavy].astype(np.float32),
        heavy_weights=electrons,
        heavy_residue=owner,
        left_out=left_out,
    )
