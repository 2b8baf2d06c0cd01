"""Ensembles as multi-model files that other programs open."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from os import PathLike
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cryoscape.errors import InputError
from cryoscape.files import atomic_path
from cryoscape.structures.atomic_model import AtomicModel
from cryoscape.structures.ensemble_formats import Models, binary_cif, mmcif_text, pdb_text

_REMEDY = "Give a name that ends in .cif, .bcif or .pdb, with or without .gz."


def write_ensemble(
    path: str | PathLike[str],
    model: AtomicModel,
    coords: ArrayLike,
    b_factors: ArrayLike | None = None,
    titles: Sequence[str] | None = None,
    occupancy: ArrayLike | None = None,
) -> None:
    """Write structures of one molecule, one bead a residue, as the models of one file.

    Chain names, residue numbers, insertion codes and residue names are those of `model`. The file
    appears whole or not at all.

    Parameters
    ----------
    path : path
        .cif (mmCIF), .bcif (BinaryCIF) or .pdb, with or without .gz.
    model : AtomicModel
        Names of the residues.
    coords : array, shape (m, N, 3) or (N, 3)
        Angstrom.
    b_factors : array, shape (m, N) or (N,), optional
        B-factor column, square Angstrom (8 pi^2 / 3 times the variance of a bead's position); 0 if not given.
    titles : sequence of str, optional
        One line a model, kept in the file (in mmCIF as the category _cryoscape_model).
    occupancy : array, shape (m, N), optional
        Occupancy column, 0 to 1; 1 if not given.

    Raises
    ------
    InputError
        If the name has another ending, if a PDB file cannot hold the model, or the disk is full.
    ValueError
        If shapes do not match or coordinates are not finite.
    """
    path = Path(path)
    models = _checked(model, coords, b_factors, titles, occupancy)
    kind = path.name.lower().removesuffix(".gz").rpartition(".")[2]
    if kind in ("cif", "mmcif"):
        content = mmcif_text(model, models).encode()
    elif kind == "bcif":
        content = binary_cif(model, models)
    elif kind in ("pdb", "ent"):
        content = pdb_text(model, models, path).encode()
    else:
        raise InputError("not the name of a model file", file=path, remedy=_REMEDY)
    if path.name.lower().endswith(".gz"):
        # Without a time stamp the same ensemble gives the same bytes.
        content = gzip.compress(content, compresslevel=5, mtime=0)
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def read_ensemble(path: str | PathLike[str]) -> NDArray[np.float32]:
    """Coordinates of the beads of all models of a file.

    Reads what `write_ensemble` writes, and any multi-model PDB or mmCIF file of one molecule, from
    which it takes CA, P or C1' by the rules of `AtomicModel.read`.

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
        As `AtomicModel.read`, and if the models do not hold the same residues.
    """
    from cryoscape.structures.reading import read_bead_models

    return read_bead_models(path)


def _checked(
    model: AtomicModel,
    coords: ArrayLike,
    b_factors: ArrayLike | None,
    titles: Sequence[str] | None,
    occupancy: ArrayLike | None,
) -> Models:
    xyz = np.asarray(coords, dtype=np.float64)
    if xyz.ndim == 2:
        xyz = xyz[None]
    n_models, n = len(xyz), len(model)
    if xyz.shape != (n_models, n, 3) or not n_models:
        raise ValueError(f"expected coordinates of shape (m, {n}, 3), got {xyz.shape}")
    if not np.isfinite(xyz).all():
        raise ValueError("the coordinates to be written are not all finite")
    b = np.zeros((1, n)) if b_factors is None else np.asarray(b_factors, dtype=np.float64)
    if b.shape not in ((n,), (1, n), (n_models, n)):
        raise ValueError(f"expected B-factors of shape ({n},) or ({n_models}, {n}), got {b.shape}")
    names = [] if titles is None else [" ".join(title.split()) for title in titles]
    if names and len(names) != n_models:
        raise ValueError(f"{n_models} models need {n_models} titles, got {len(names)}")
    present = np.ones((n_models, n)) if occupancy is None else np.asarray(occupancy, dtype=np.float64)
    if present.shape != (n_models, n):
        raise ValueError(f"expected occupancies of shape ({n_models}, {n}), got {present.shape}")
    return Models(xyz, np.broadcast_to(np.nan_to_num(b), (n_models, n)), present.clip(0, 1), names)
