"""The content of multi-model files: mmCIF, BinaryCIF and PDB.

Text is put together from one ready-made piece a residue, since only serial number, coordinates and
B-factor change from model to model; a quarter of a million rows take about a second.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryoscape.errors import InputError
from cryoscape.structures.atomic_model import NUCLEOTIDE, AtomicModel

_DNA = ("DA", "DC", "DG", "DT", "DU", "DI")
_COLUMNS = (
    "group_PDB",
    "id",
    "type_symbol",
    "label_atom_id",
    "label_alt_id",
    "label_comp_id",
    "label_asym_id",
    "label_entity_id",
    "label_seq_id",
    "pdbx_PDB_ins_code",
    "auth_seq_id",
    "auth_comp_id",
    "auth_asym_id",
    "auth_atom_id",
    "Cartn_x",
    "Cartn_y",
    "Cartn_z",
    "occupancy",
    "B_iso_or_equiv",
    "pdbx_PDB_model_num",
)


def _elements(model: AtomicModel) -> list[str]:
    return ["P" if name == "P" else "C" for name in model.atom_name.tolist()]


def _places_in_chain(model: AtomicModel) -> NDArray[np.int64]:
    """Number of each residue within its chain, from 1."""
    chain = model.chain_index
    place = np.empty(len(model), dtype=np.int64)
    for c in range(len(model.chains)):
        rows = np.flatnonzero(chain == c)
        place[rows] = np.arange(1, len(rows) + 1)
    return place


def _polymer_types(model: AtomicModel) -> list[str]:
    """Type of each chain in the words of the mmCIF dictionary."""
    types = []
    for chain in model.chains:
        own = model.chain_id == chain
        if (model.kind[own] == NUCLEOTIDE).mean() <= 0.5:
            types.append("polypeptide(L)")
        elif np.isin(model.residue_name[own], _DNA).any():
            types.append("polydeoxyribonucleotide")
        else:
            types.append("polyribonucleotide")
    return types


def _categories(model: AtomicModel, titles: list[str]) -> dict[str, dict[str, list[str]]]:
    """Everything of an mmCIF file but the atoms: what makes viewers see polymer chains."""
    chains = list(model.chains)
    entity = [str(i + 1) for i in range(len(chains))]
    categories = {
        "entry": {"id": ["cryoscape"]},
        "entity": {"id": entity, "type": ["polymer"] * len(chains)},
        "entity_poly": {"entity_id": entity, "type": _polymer_types(model)},
        "entity_poly_seq": {
            "entity_id": [str(i + 1) for i in model.chain_index.tolist()],
            "num": [str(i) for i in _places_in_chain(model).tolist()],
            "mon_id": model.residue_name.tolist(),
        },
        "struct_asym": {"id": chains, "entity_id": entity},
    }
    if titles:
        categories["cryoscape_model"] = {"id": [str(i + 1) for i in range(len(titles))], "title": titles}
    return categories


def _quoted(value: str) -> str:
    """A value as CIF wants it."""
    if value == "":
        return "?"
    plain = value[0] not in "_#$'\"[];" and not any(c.isspace() for c in value)
    if plain and not value.lower().startswith(("data_", "save_", "loop_", "stop_", "global_")):
        return value if value not in (".", "?") else f"'{value}'"
    if "'" not in value:
        return f"'{value}'"
    return '"' + value.replace('"', "'") + '"'


@dataclass(frozen=True)
class Models:
    """What the models of a file differ in.

    Attributes
    ----------
    coords : ndarray, shape (m, N, 3)
        Angstrom.
    b_factors, occupancy : ndarray, shape (m, N)
        The two columns behind the coordinates.
    titles : list of str
        One a model, or none.
    """

    coords: NDArray[np.float64]
    b_factors: NDArray[np.float64]
    occupancy: NDArray[np.float64]
    titles: list[str]


def mmcif_text(model: AtomicModel, models: Models) -> str:
    """Content of an mmCIF file."""
    coords, b_factors, titles = models.coords, models.b_factors, models.titles
    lines = ["data_cryoscape", "#"]
    for category, columns in _categories(model, titles).items():
        lines.append("loop_")
        lines += [f"_{category}.{name}" for name in columns]
        lines += [" ".join(_quoted(value) for value in row) for row in zip(*columns.values())]
        lines.append("#")
    lines.append("loop_")
    lines += [f"_atom_site.{name}" for name in _COLUMNS]

    residues = zip(
        _elements(model),
        map(_quoted, model.atom_name.tolist()),
        map(_quoted, model.residue_name.tolist()),
        map(_quoted, model.chain_id.tolist()),
        (model.chain_index + 1).tolist(),
        _places_in_chain(model).tolist(),
        map(_quoted, model.insertion_code.tolist()),
        model.residue_number.tolist(),
    )
    middle = [
        f"{element} {atom} . {name} {chain} {entity} {place} {code} {number} {name} {chain} {atom}"
        for element, atom, name, chain, entity, place, code, number in residues
    ]
    n = len(model)
    for m, (xyz, b, occupancy) in enumerate(zip(coords, b_factors, models.occupancy)):
        lines += [
            f"ATOM {serial} {text} {x:.3f} {y:.3f} {z:.3f} {o:.2f} {b:.2f} {m + 1}"
            for serial, text, (x, y, z), o, b in zip(
                range(m * n + 1, m * n + n + 1), middle, xyz.tolist(), occupancy.tolist(), b.tolist()
            )
        ]
    return "\n".join([*lines, "#", ""])


def binary_cif(model: AtomicModel, models: Models) -> bytes:
    """Content of a BinaryCIF file."""
    coords, b_factors, titles = models.coords, models.b_factors, models.titles
    import io

    from biotite.structure.io import pdbx

    n_models, n = coords.shape[:2]
    insertion = np.tile(model.insertion_code, n_models)
    columns: dict[str, Any] = {
        "group_PDB": np.full(n_models * n, "ATOM"),
        "id": np.arange(1, n_models * n + 1, dtype=np.int32),
        "type_symbol": np.tile(_elements(model), n_models),
        "label_atom_id": np.tile(model.atom_name, n_models),
        "label_alt_id": pdbx.BinaryCIFColumn(
            pdbx.BinaryCIFData(np.full(n_models * n, "")),
            pdbx.BinaryCIFData(np.full(n_models * n, int(pdbx.MaskValue.INAPPLICABLE), dtype=np.uint8)),
        ),
        "label_comp_id": np.tile(model.residue_name, n_models),
        "label_asym_id": np.tile(model.chain_id, n_models),
        "label_entity_id": np.tile((model.chain_index + 1).astype(np.str_), n_models),
        "label_seq_id": np.tile(_places_in_chain(model).astype(np.int32), n_models),
        "pdbx_PDB_ins_code": pdbx.BinaryCIFColumn(
            pdbx.BinaryCIFData(insertion),
            pdbx.BinaryCIFData(np.where(insertion == "", int(pdbx.MaskValue.MISSING), 0).astype(np.uint8)),
        ),
        "auth_seq_id": np.tile(model.residue_number.astype(np.int32), n_models),
        "auth_comp_id": np.tile(model.residue_name, n_models),
        "auth_asym_id": np.tile(model.chain_id, n_models),
        "auth_atom_id": np.tile(model.atom_name, n_models),
        **{f"Cartn_{axis}": np.round(coords[..., i].ravel(), 3) for i, axis in enumerate("xyz")},
        "occupancy": np.round(models.occupancy.ravel(), 2),
        "B_iso_or_equiv": np.round(b_factors.ravel(), 2),
        "pdbx_PDB_model_num": np.repeat(np.arange(1, n_models + 1, dtype=np.int32), n),
    }
    block = pdbx.BinaryCIFBlock()
    for category, values in _categories(model, titles).items():
        block[category] = pdbx.BinaryCIFCategory({name: np.array(v) for name, v in values.items()})
    block["atom_site"] = pdbx.BinaryCIFCategory(columns)
    file = pdbx.BinaryCIFFile()
    file["cryoscape"] = block
    stream = io.BytesIO()
    pdbx.compress(file).write(stream)
    return stream.getvalue()


def _check_pdb(model: AtomicModel, coords: NDArray[np.float64], path: Path) -> None:
    """The fixed columns of a PDB file hold short names and small numbers only."""
    long_chain = next((c for c in model.chains if len(c) > 1), None)
    number = model.residue_number
    reasons = {
        f"its chain name {long_chain!r} has more than one letter": long_chain is not None,
        f"it has {len(model):,} atoms and the format ends at 99,999": len(model) > 99_999,
        "it has more than 9,999 models": len(coords) > 9_999,
        "its residue numbers exceed four places": number.max() > 9999 or number.min() < -999,
        "its residue names exceed three letters": max(map(len, model.residue_name.tolist())) > 3,
        "its coordinates exceed the columns": coords.max() > 9999.9 or coords.min() < -999.9,
    }
    reason = next((text for text, holds in reasons.items() if holds), None)
    if reason:
        raise InputError(
            f"a PDB file cannot hold this model: {reason}", file=path, remedy="Write a .cif file instead."
        )


def pdb_text(model: AtomicModel, models: Models, path: Path) -> str:
    """Content of a PDB file.

    Raises
    ------
    InputError
        If the model does not fit the columns of the format.
    """
    coords, titles = models.coords, models.titles
    _check_pdb(model, coords, path)
    lines = [f"REMARK 999 MODEL {m + 1:>4} {title}"[:80] for m, title in enumerate(titles)]
    chain = model.chain_index
    last = np.append(chain[1:] != chain[:-1], True).tolist()
    residues = zip(
        model.atom_name.tolist(),
        model.residue_name.tolist(),
        model.chain_id.tolist(),
        model.residue_number.tolist(),
        model.insertion_code.tolist(),
        _elements(model),
    )
    pieces = []
    for atom, name, c, number, code, element in residues:
        residue = f"{name:>3} {c}{number:4d}{code or ' '}"
        pieces.append((f" {atom:<3} {residue}", f"{element:>12}", residue))
    b_factors = np.clip(models.b_factors, -99.0, 999.0)
    for m, (xyz, b_row, occupancy) in enumerate(zip(coords, b_factors, models.occupancy)):
        lines.append(f"MODEL     {m + 1:4d}")
        columns = (xyz.tolist(), occupancy.tolist(), b_row.tolist(), last)
        rows = zip(range(1, len(model) + 1), pieces, *columns)
        for serial, (head, tail, residue), (x, y, z), o, b, end in rows:
            lines.append(f"ATOM  {serial:5d} {head}   {x:8.3f}{y:8.3f}{z:8.3f}{o:6.2f}{b:6.2f}{tail}")
            if end:
                lines.append(f"TER   {min(serial + 1, 99999):5d}      {residue}")
        lines.append("ENDMDL")
    return "\n".join([*lines, "END", ""])
