"""The atoms that the simulator projects, and the file that users train from.

Training sees one bead a residue; the simulator projects every heavy atom. So it keeps its own
list of atoms with their names, needed to match two models atom by atom and to write `reference.cif`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryoscape.errors import InputError
from cryoscape.structures.atomic_model import AtomicModel
from cryoscape.structures.composition import residue_electrons

ATOM_SIGMA = 1.0
"""Standard deviation of a heavy atom's Gaussian in Angstrom (B-factor 8 pi^2 sigma^2 = 79 A^2)."""

BEAD_SIGMA = 2.0
"""Standard deviation in Angstrom of the Gaussian of a residue known by its CA or P alone."""

_THREE_LETTER = {
    "A": "ALA", "R": "ARG", "N": "ASN", "D": "ASP", "C": "CYS", "Q": "GLN", "E": "GLU", "G": "GLY",
    "H": "HIS", "I": "ILE", "L": "LEU", "K": "LYS", "M": "MET", "F": "PHE", "P": "PRO", "S": "SER",
    "T": "THR", "W": "TRP", "Y": "TYR", "V": "VAL",
}  # fmt: skip


@dataclass(frozen=True)
class Atoms:
    """Heavy atoms of the polymers of one model.

    Attributes
    ----------
    coords : ndarray, shape (n, 3), float64
        Angstrom, in the frame of the file.
    weights : ndarray, shape (n,), float64
        Electrons: the atomic number, or those of the whole residue where only its bead is known.
    sigma : float
        Standard deviation of the Gaussians, Angstrom.
    element, atom_name, chain_id, residue_name, insertion_code : ndarray of str, shape (n,)
    residue_number : ndarray of int, shape (n,)
    bead : ndarray of int, shape (R,)
        The atom that stands for each residue: CA, P, or C1' where P is missing.
    path : Path or None
        Where the atoms were read.
    """

    coords: NDArray[np.float64]
    weights: NDArray[np.float64]
    sigma: float
    element: NDArray[np.str_]
    atom_name: NDArray[np.str_]
    chain_id: NDArray[np.str_]
    residue_number: NDArray[np.int64]
    insertion_code: NDArray[np.str_]
    residue_name: NDArray[np.str_]
    bead: NDArray[np.int64]
    path: Path | None = None

    def __len__(self) -> int:
        return len(self.coords)

    @property
    def bead_coords(self) -> NDArray[np.float64]:
        """One position a residue, shape (R, 3), Angstrom."""
        return self.coords[self.bead]

    @property
    def residue(self) -> NDArray[np.int64]:
        """Index of the residue of every atom, shape (n,)."""
        keys = list(zip(self.chain_id, self.residue_number, self.insertion_code, self.residue_name))
        starts = [i == 0 or keys[i] != keys[i - 1] for i in range(len(keys))]
        return np.cumsum(starts) - 1

    def atom_keys(self) -> list[tuple[str, int, str, str]]:
        """Chain, residue number, insertion code and atom name of every atom."""
        return [
            (str(c), int(r), str(i), str(a))
            for c, r, i, a in zip(self.chain_id, self.residue_number, self.insertion_code, self.atom_name)
        ]

    def model(self) -> AtomicModel:
        """The model as training sees it, one bead a residue."""
        per_residue = "chain_id residue_number insertion_code residue_name atom_name"
        return AtomicModel(
            coords=self.bead_coords.astype(np.float32),
            weights=np.bincount(self.residue, self.weights).astype(np.float32),
            kind=(self.atom_name[self.bead] != "CA").astype(np.int8),
            heavy_coords=self.coords.astype(np.float32),
            heavy_weights=self.weights.astype(np.float32),
            heavy_residue=self.residue,
            path=self.path,
            **{name: getattr(self, name)[self.bead] for name in per_residue.split()},
        )

    def take(self, atoms: NDArray[np.int64]) -> Atoms:
        """The given atoms alone; every residue kept must keep its bead.

        Parameters
        ----------
        atoms : ndarray of int
            Indices in ascending order.

        Returns
        -------
        Atoms
        """
        new = np.full(len(self), -1)
        new[atoms] = np.arange(len(atoms))
        bead = new[self.bead]
        per_atom = "coords weights element atom_name chain_id residue_number insertion_code residue_name"
        parts: dict[str, Any] = {name: getattr(self, name)[atoms] for name in per_atom.split()}
        return replace(self, bead=bead[bead >= 0], **parts)

    def with_coords(self, coords: NDArray[Any]) -> Atoms:
        """The same atoms elsewhere; `coords` has shape (n, 3), Angstrom."""
        return replace(self, coords=np.asarray(coords, dtype=np.float64))


def build_atoms(rows: Sequence[tuple[Any, ...]], path: Path | None = None) -> Atoms:
    """Atoms from rows (chain, number, insertion code, residue name, atom name, element, Z, x, y, z).

    Residues without a bead atom are left out, as the reader of models for training does.

    Parameters
    ----------
    rows : sequence of tuples
        In the order of the chain.
    path : Path, optional
        Origin, for messages.

    Returns
    -------
    Atoms

    Raises
    ------
    InputError
        If no residue has a CA, P or C1' atom.
    """
    names: dict[tuple[Any, ...], dict[str, int]] = {}
    for n, row in enumerate(rows):
        names.setdefault(row[:4], {})[row[4]] = n
    keep: list[int] = []
    bead: list[int] = []
    for atoms in names.values():
        found = next((atoms[a] for a in ("CA", "P", "C1'") if a in atoms), None)
        if found is None:
            continue
        bead.append(len(keep) + sorted(atoms.values()).index(found))
        keep.extend(sorted(atoms.values()))
    if not bead:
        raise InputError("the model has no protein or nucleic acid", file=path, remedy="Give a polymer.")
    kept = [rows[n] for n in keep]
    only_beads = len(bead) == len(kept)
    weights = [residue_electrons(r[3]) if only_beads else float(r[6]) for r in kept]
    return Atoms(
        coords=np.array([r[7:10] for r in kept], dtype=np.float64),
        weights=np.array(weights),
        sigma=BEAD_SIGMA if only_beads else ATOM_SIGMA,
        element=np.array([r[5] for r in kept]),
        atom_name=np.array([r[4] for r in kept]),
        chain_id=np.array([r[0] for r in kept]),
        residue_number=np.array([r[1] for r in kept], dtype=np.int64),
        insertion_code=np.array([r[2] for r in kept]),
        residue_name=np.array([r[3] for r in kept]),
        bead=np.array(bead, dtype=np.int64),
        path=path,
    )


def read_atoms(path: Path) -> list[Atoms]:
    """Every model of a structure file.

    Hydrogens, waters and ligands are left out; of alternative locations the first is kept.

    Parameters
    ----------
    path : Path
        PDB or mmCIF, also gzipped, with one or more models.

    Returns
    -------
    list of Atoms

    Raises
    ------
    InputError
        If the file is missing, unreadable or holds no polymer.
    """
    import gemmi

    if not path.is_file():
        raise InputError("no such model file", file=path, remedy="Check the path given with --models.")
    try:
        structure = gemmi.read_structure(str(path))
    except (RuntimeError, ValueError, OSError) as error:
        raise InputError(
            f"the model cannot be read ({error})", file=path, remedy="Give a PDB or mmCIF file."
        ) from error
    structure.setup_entities()
    structure.remove_alternative_conformations()
    structure.remove_hydrogens()
    structure.remove_ligands_and_waters()
    models = []
    for model in structure:
        rows = [
            (
                chain.name,
                residue.seqid.num,
                residue.seqid.icode.strip(),
                residue.name,
                atom.name,
                atom.element.name,
                atom.element.atomic_number,
                *atom.pos.tolist(),
            )
            for chain in model
            for residue in chain
            for atom in residue
        ]
        models.append(build_atoms(rows, path))
    if not models:
        raise InputError("the file holds no model", file=path, remedy="Give a PDB or mmCIF file.")
    return models


def read_trajectory(path: Path) -> list[Atoms]:
    """Bead models from an `.npz` trajectory.

    Parameters
    ----------
    path : Path
        NumPy archive with `ca` or `coords` (frames, residues, 3) in Angstrom, `sequence` (one-letter
        codes) and, where numbering does not start at 1, `resid`.

    Returns
    -------
    list of Atoms
        One a frame.

    Raises
    ------
    InputError
        If the arrays are missing or do not fit each other.
    """
    if not path.is_file():
        raise InputError("no such trajectory", file=path, remedy="Check the path given with --models.")
    remedy = "Store 'ca' (frames, residues, 3) in Angstrom and 'sequence' (one letter a residue)."
    with np.load(path, allow_pickle=False) as data:
        key = "ca" if "ca" in data else "coords"
        if key not in data or "sequence" not in data:
            raise InputError("the trajectory lacks 'ca' or 'sequence'", file=path, remedy=remedy)
        frames = np.asarray(data[key], dtype=np.float64)
        sequence = str(data["sequence"])
        numbers = np.asarray(data["resid"]) if "resid" in data else np.arange(1, len(sequence) + 1)
    if frames.ndim != 3 or frames.shape[1:] != (len(sequence), 3) or len(numbers) != len(sequence):
        raise InputError("the trajectory's arrays do not fit each other", file=path, remedy=remedy)
    unknown = sorted(set(sequence) - set(_THREE_LETTER))
    if unknown:
        raise InputError(f"unknown residue code {unknown[0]!r} in 'sequence'", file=path, remedy=remedy)
    rows = [
        ("A", int(n), "", _THREE_LETTER[s], "CA", "C", 6, *xyz)
        for n, s, xyz in zip(numbers, sequence, frames[0])
    ]
    first = build_atoms(rows, path)
    return [first.with_coords(frame) for frame in frames]


def write_atoms(path: Path, atoms: Atoms, title: str) -> None:
    """Write one model as mmCIF.

    Parameters
    ----------
    path : Path
        Ends with `.cif`.
    atoms : Atoms
        What to write, in its own frame.
    title : str
        Name of the data block's entry.
    """
    import gemmi

    structure = gemmi.Structure()
    structure.name = title
    model = gemmi.Model(1)
    chains: dict[str, Any] = {}
    previous = -1
    for n, residue in enumerate(atoms.residue):
        name = str(atoms.chain_id[n])
        if name not in chains:
            chains[name] = model.add_chain(gemmi.Chain(name))
            chains = {key: model[key] for key in [*chains]}
        if residue != previous:
            new = gemmi.Residue()
            new.name = str(atoms.residue_name[n])
            new.seqid = gemmi.SeqId(int(atoms.residue_number[n]), str(atoms.insertion_code[n]) or " ")
            new.entity_type = gemmi.EntityType.Polymer
            chains[name].add_residue(new)
            previous = residue
        atom = gemmi.Atom()
        atom.name = str(atoms.atom_name[n])
        atom.element = gemmi.Element(str(atoms.element[n]))
        atom.pos = gemmi.Position(*atoms.coords[n])
        chains[name][-1].add_atom(atom)
    structure.add_model(model)
    structure.setup_entities()
    structure.make_mmcif_document().write_file(str(path))
