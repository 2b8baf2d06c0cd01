"""From a coordinate file to columns of atoms, one table a model.

gemmi reads PDB and mmCIF, biotite reads BinaryCIF; no atom is visited in a Python loop.
"""

from __future__ import annotations

import gzip
import io
from pathlib import Path
from typing import Any, NamedTuple

import gemmi
import numpy as np
from numpy.typing import NDArray

from cryoscape.errors import InputError

READ_REMEDY = "Give a PDB or mmCIF file (.pdb, .ent, .cif, .bcif, also .gz) with ATOM records."
_CIF, _BINARY, _PDB = (".cif", ".mmcif"), (".bcif",), (".pdb", ".ent")


class AtomTable(NamedTuple):
    """Columns of the atoms of one model, in the order of the file.

    `entity` holds the values of gemmi.EntityType; `electrons` is the atomic number, 0 where unknown.
    """

    chain: NDArray[np.str_]
    number: NDArray[np.int64]
    insertion: NDArray[np.str_]
    residue: NDArray[np.str_]
    name: NDArray[np.str_]
    altloc: NDArray[np.int8]
    occupancy: NDArray[np.floating]
    electrons: NDArray[np.float32]
    coords: NDArray[np.float64]
    hetero: NDArray[np.bool_]
    entity: NDArray[np.uint8]

    def take(self, index: NDArray[Any] | slice) -> AtomTable:
        """The rows `index`."""
        return AtomTable._make(column[index] for column in self)


def load_atoms(path: Path) -> list[AtomTable]:
    """Read all models of a file.

    Parameters
    ----------
    path : Path
        .pdb, .ent, .cif, .mmcif or .bcif, with or without .gz.

    Returns
    -------
    list of AtomTable
        At least one, none of them empty.

    Raises
    ------
    InputError
        If the file is missing, of another type, broken, or without atoms.
    """
    if not path.is_file():
        raise InputError("the model file does not exist", file=path, remedy="Check the path.")
    name = path.name.lower().removesuffix(".gz")
    if not name.endswith(_CIF + _BINARY + _PDB):
        raise InputError("not the name of a PDB or mmCIF file", file=path, remedy=READ_REMEDY)
    try:
        models = _read_binary(path) if name.endswith(_BINARY) else _read_text(path, name.endswith(_CIF))
    except (OSError, EOFError, RuntimeError, ValueError, LookupError) as error:
        reason = str(error).replace(f"{path}:", "").strip() or type(error).__name__
        raise InputError(
            f"the model cannot be read ({reason[:200]})", file=path, remedy=READ_REMEDY
        ) from error
    models = [model for model in models if len(model.number)]
    if not models:
        raise InputError("no polymer: the file holds no atoms", file=path, remedy=READ_REMEDY)
    return models


def _read_text(path: Path, is_cif: bool) -> list[AtomTable]:
    structure = gemmi.read_structure(
        str(path), format=gemmi.CoorFormat.Mmcif if is_cif else gemmi.CoorFormat.Pdb
    )
    # The flat table holds short names only, so chains go by number while it is made.
    names: list[str] = []
    for model in structure:
        for chain in model:
            names.append(chain.name)
            chain.name = str(len(names) - 1)
    structure.setup_entities()
    try:
        flat = gemmi.FlatStructure(structure)
    except RuntimeError:
        for model in structure:
            for chain in model:
                for residue in chain:
                    residue.subchain = ""
        flat = gemmi.FlatStructure(structure)
    atoms = _columns(flat, names)
    ends = np.cumsum([sum(len(residue) for chain in model for residue in chain) for model in structure])
    return [atoms.take(slice(a, b)) for a, b in zip([0, *ends[:-1]], ends)]


def _columns(flat: Any, chain_names: list[str]) -> AtomTable:
    return AtomTable(
        chain=_named_chains(np.array(chain_names, dtype=np.str_))[_text(flat.chain_ids).astype(np.int64)],
        number=np.asarray(flat.resnums, dtype=np.int64),
        insertion=np.char.strip(np.asarray(flat.icodes).astype(np.uint8).view("S1").astype(np.str_)),
        residue=_text(flat.residue_names),
        name=_text(flat.atom_names),
        altloc=np.array(flat.altlocs, dtype=np.int8),
        occupancy=np.array(flat.occ, dtype=np.float64),
        electrons=_electrons(np.asarray(flat.element_names).astype(np.str_)),
        coords=np.array(flat.pos, dtype=np.float64),
        hetero=np.asarray(flat.het_flags) == ord("H"),
        entity=np.array(flat.entity_type, dtype=np.uint8),
    )


def _read_binary(path: Path) -> list[AtomTable]:
    from biotite.structure.io import pdbx

    with gzip.open(path) if path.name.lower().endswith(".gz") else open(path, "rb") as stream:
        content = stream.read()
    try:
        sites = pdbx.BinaryCIFFile.read(io.BytesIO(content)).block["atom_site"]
    except Exception as error:  # the unpacker has exceptions of its own that share no base class
        raise ValueError(f"no BinaryCIF with atoms: {error}") from error

    def column(*names: str) -> NDArray[np.str_]:
        name = next((name for name in names if name in sites), names[0])
        values = sites[name].as_array(str)
        return np.where(np.isin(values, (".", "?")), "", values)

    def number(name: str) -> NDArray[np.float64]:
        return sites[name].as_array(float).astype(np.float64)

    altloc = column("label_alt_id")
    n = len(altloc)
    atoms = AtomTable(
        chain=_named_chains(column("auth_asym_id", "label_asym_id")),
        number=sites["auth_seq_id"].as_array(int).astype(np.int64),
        insertion=column("pdbx_PDB_ins_code"),
        residue=column("auth_comp_id", "label_comp_id"),
        name=column("auth_atom_id", "label_atom_id"),
        altloc=np.array([ord(label[:1] or "\0") for label in altloc.tolist()], dtype=np.int8),
        occupancy=number("occupancy") if "occupancy" in sites else np.ones(n),
        electrons=_electrons(column("type_symbol")),
        coords=np.stack([number(f"Cartn_{axis}") for axis in "xyz"], axis=1),
        hetero=column("group_PDB") == "HETATM",
        entity=np.full(n, gemmi.EntityType.Unknown.value, dtype=np.uint8),
    )
    model = number("pdbx_PDB_model_num") if "pdbx_PDB_model_num" in sites else np.ones(n)
    return [atoms.take(np.flatnonzero(model == m)) for m in dict.fromkeys(model.tolist())]


def _named_chains(names: NDArray[np.str_]) -> NDArray[np.str_]:
    """Chains without a name get one, so that they can be selected and written."""
    names = np.char.strip(names)
    return np.where(names == "", "A" if "A" not in names else "_", names)


def _electrons(symbols: NDArray[np.str_]) -> NDArray[np.float32]:
    elements, which = np.unique(symbols, return_inverse=True)
    return np.array([gemmi.Element(e).atomic_number for e in elements.tolist()], dtype=np.float32)[which]


def _text(characters: NDArray[np.int8]) -> NDArray[np.str_]:
    """(n, 8) zero-padded characters -> (n,) strings."""
    table = np.ascontiguousarray(characters).astype(np.int8, copy=False)
    return table.view(f"S{table.shape[1]}")[:, 0].astype(np.str_)
