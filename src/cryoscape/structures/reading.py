"""From a PDB or mmCIF file to the polymer residues that carry a bead.

gemmi parses; everything after it works on whole columns of atoms, so that assemblies of tens of
thousands of residues take a second or two.
"""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import gemmi
import numpy as np
from numpy.typing import NDArray

from cryoscape.errors import InputError
from cryoscape.structures.atomic_model import AMINO, NUCLEOTIDE

_WATER, _OTHER, _UNKNOWN = 2, 3, -1
_SUFFIXES = (".pdb", ".ent", ".cif", ".mmcif")
# Old files write a star for the prime of the sugar.
_SUGAR = ("C1'", "C1*")
_READ_REMEDY = "Give a PDB or mmCIF file (.pdb, .ent, .cif, also .gz) with ATOM records."


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


class _Atoms(NamedTuple):
    """Columns of the atoms of one model, in the order of the file."""

    chain: NDArray[np.str_]
    number: NDArray[np.int64]
    insertion: NDArray[np.str_]
    residue: NDArray[np.str_]
    name: NDArray[np.str_]
    altloc: NDArray[np.int8]
    occupancy: NDArray[np.float32]
    electrons: NDArray[np.float32]
    coords: NDArray[np.float64]
    hetero: NDArray[np.bool_]
    entity: NDArray[np.uint8]

    def take(self, index: NDArray[Any]) -> _Atoms:
        return _Atoms(*(column[index] for column in self))


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
        .pdb, .ent, .cif or .mmcif, with or without .gz.

    Returns
    -------
    Polymer

    Raises
    ------
    InputError
        See `AtomicModel.read`.
    """
    atoms, more_models = _load(Path(path))
    group = _runs(atoms.chain, atoms.number, atoms.insertion, atoms.residue)
    kind = _residue_kinds(atoms, group)
    left_out = {
        "waters": int((kind == _WATER).sum()),
        "ligands": int((kind == _OTHER).sum()),
    }

    atoms, group = _only(atoms, group, np.isin(kind, (AMINO, NUCLEOTIDE)))
    if not len(group):
        raise InputError(
            "no polymer: the file holds no amino acids and no nucleotides", file=path, remedy=_READ_REMEDY
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
    left_out["models after the first"] = more_models
    if not len(bead):
        raise InputError(
            "no polymer: no residue holds a CA, P or C1' atom",
            file=path,
            remedy="Give a model with at least one of these atoms in each residue.",
        )
    _check_beads(atoms, bead, path)
    return _assemble(atoms, group, bead, kind, {what: n for what, n in left_out.items() if n})


def _load(path: Path) -> tuple[_Atoms, int]:
    """Columns of the first model, and the number of models after it."""
    if not path.is_file():
        raise InputError("the model file does not exist", file=path, remedy="Check the path.")
    name = path.name.lower().removesuffix(".gz")
    if not name.endswith(_SUFFIXES):
        raise InputError("not the name of a PDB or mmCIF file", file=path, remedy=_READ_REMEDY)
    is_cif = name.endswith(("cif", "mmcif"))
    try:
        structure = gemmi.read_structure(
            str(path), format=gemmi.CoorFormat.Mmcif if is_cif else gemmi.CoorFormat.Pdb
        )
    except (OSError, RuntimeError, ValueError, IndexError) as error:
        reason = str(error).replace(f"{path}:", "").strip()
        raise InputError(
            f"the model cannot be read ({reason[:200]})", file=path, remedy=_READ_REMEDY
        ) from error
    if not len(structure) or not structure[0].count_atom_sites():
        raise InputError("no polymer: the file holds no atoms", file=path, remedy=_READ_REMEDY)
    more_models = len(structure) - 1
    while len(structure) > 1:
        del structure[len(structure) - 1]

    # The flat table holds short names only, so chains go by number while it is made.
    names = [chain.name for chain in structure[0]]
    for i, chain in enumerate(structure[0]):
        chain.name = str(i)
    structure.setup_entities()
    try:
        flat = gemmi.FlatStructure(structure)
    except RuntimeError:
        for chain in structure[0]:
            for residue in chain:
                residue.subchain = ""
        flat = gemmi.FlatStructure(structure)
    return _columns(flat, names), more_models


def _columns(flat: Any, chain_names: list[str]) -> _Atoms:
    elements, element = np.unique(flat.element_names, return_inverse=True)
    electrons = np.array([gemmi.Element(e.decode()).atomic_number for e in elements], dtype=np.float32)
    blank = "A" if "A" not in chain_names else "_"
    chains = np.array([name.strip() or blank for name in chain_names], dtype=np.str_)
    return _Atoms(
        chain=chains[_text(flat.chain_ids).astype(np.int64)],
        number=np.asarray(flat.resnums, dtype=np.int64),
        insertion=np.char.strip(np.asarray(flat.icodes).astype(np.uint8).view("S1").astype(np.str_)),
        residue=_text(flat.residue_names),
        name=_text(flat.atom_names),
        altloc=np.array(flat.altlocs, dtype=np.int8),
        occupancy=np.array(flat.occ, dtype=np.float32),
        electrons=electrons[element],
        coords=np.array(flat.pos, dtype=np.float64),
        hetero=np.asarray(flat.het_flags) == ord("H"),
        entity=np.array(flat.entity_type, dtype=np.uint8),
    )


def _text(characters: NDArray[np.int8]) -> NDArray[np.str_]:
    """(n, 8) zero-padded characters -> (n,) strings."""
    table = np.ascontiguousarray(characters).astype(np.int8, copy=False)
    return table.view(f"S{table.shape[1]}")[:, 0].astype(np.str_)


def _runs(*columns: NDArray[Any]) -> NDArray[np.int64]:
    """Number of the run of equal neighbouring rows that each row belongs to, from 0."""
    change = np.zeros(len(columns[0]), dtype=bool)
    for column in columns:
        change[1:] |= column[1:] != column[:-1]
    return np.cumsum(change)


def _only(
    atoms: _Atoms, group: NDArray[np.int64], keep: NDArray[np.bool_]
) -> tuple[_Atoms, NDArray[np.int64]]:
    rows = np.flatnonzero(keep[group])
    return atoms.take(rows), group[rows]


def _residue_kinds(atoms: _Atoms, group: NDArray[np.int64]) -> NDArray[np.int64]:
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


def _is_bead(atoms: _Atoms, group: NDArray[np.int64], kind: NDArray[np.int64]) -> NDArray[np.int8]:
    """Rank of each atom as the bead of its residue: 0 best, 1 second best, 2 never."""
    nucleotide = kind[group] == NUCLEOTIDE
    rank = np.full(len(group), 2, dtype=np.int8)
    rank[~nucleotide & (atoms.name == "CA") & (atoms.electrons == 6)] = 0
    rank[nucleotide & (atoms.name == "P")] = 0
    rank[nucleotide & np.isin(atoms.name, _SUGAR)] = 1
    return rank


def _one_conformation(
    atoms: _Atoms, group: NDArray[np.int64], kind: NDArray[np.int64], path: str | PathLike[str]
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
    atoms: _Atoms,
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


def _duplicate(atoms: _Atoms, row: int, path: str | PathLike[str]) -> None:
    name = f"{atoms.chain[row]}:{atoms.number[row]}{atoms.insertion[row]} {atoms.residue[row]}"
    raise InputError(
        f"duplicate residues: {name} appears more than once in its chain",
        file=path,
        remedy="Give each copy of a chain its own name, and each residue its own number.",
    )


def _bead_atoms(atoms: _Atoms, group: NDArray[np.int64], kind: NDArray[np.int64]) -> NDArray[np.int64]:
    """Row of the bead's atom of each residue that has one, in order."""
    rank = _is_bead(atoms, group, kind)
    rows = np.flatnonzero(rank < 2)
    rows = rows[np.lexsort((rank[rows], group[rows]))]
    return rows[np.diff(group[rows], prepend=-1) != 0]


def _check_beads(atoms: _Atoms, bead: NDArray[np.int64], path: str | PathLike[str]) -> None:
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
    atoms: _Atoms,
    group: NDArray[np.int64],
    bead: NDArray[np.int64],
    kind: NDArray[np.int64],
    left_out: dict[str, int],
) -> Polymer:
    place = np.full(len(kind), -1, dtype=np.int64)
    place[group[bead]] = np.arange(len(bead))
    heavy = np.flatnonzero(place[group] >= 0)
    owner = place[group[heavy]]
    electrons = atoms.electrons[heavy]
    chosen = atoms.take(bead)
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
