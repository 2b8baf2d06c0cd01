"""Other structures to start a training from: a conformer, an independent model, one with a domain turned."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import gemmi
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from cryoscape.errors import InputError
from cryoscape.files import atomic_path
from cryoscape.models.scattering import Scatterers
from cryoscape.simulate.atoms import Atoms, write_atoms
from cryoscape.structures.atomic_model import AtomicModel
from cryoscape.structures.restraints import find_pairs
from cryoscape.structures.segments import initial_segments
from cryoscape.structures.superposition import fit_rigid

TURN = 12.0
"""Degrees that a domain is turned by."""

_MOVING = 0.5  # of the largest displacement, from which residues make a domain
_OTHER_NAMES = 0.1  # share of residues that may be of another kind, such as modified ones


def conformer(model: AtomicModel, coords: NDArray) -> AtomicModel:
    """A model with its beads at other places (N, 3), A; atoms turn with the chain about them."""
    bonded = torch.zeros(max(len(model) - 1, 0), dtype=torch.bool)
    bonded[find_pairs(model, 0.0, 0.0).bonds[:, 0]] = True
    carried = Scatterers(
        torch.as_tensor(model.coords, dtype=torch.float64),
        torch.as_tensor(model.heavy_coords, dtype=torch.float64),
        torch.as_tensor(model.heavy_weights, dtype=torch.float64),
        torch.as_tensor(model.heavy_residue),
        bonded,
    )
    beads = np.asarray(coords, dtype=np.float32)
    # Near the origin, single precision loses nothing.
    centre = beads.mean(axis=0)
    atoms = carried(torch.from_numpy(beads - centre)[None])[0].numpy() + centre
    return replace(model, coords=beads, heavy_coords=atoms.astype(np.float32), path=None)


def moving_domain(model: AtomicModel, displacement: NDArray) -> tuple[int, int]:
    """First and last residue of the longest stretch of a chain that moves most.

    Parameters
    ----------
    model : AtomicModel
    displacement : ndarray, shape (N, 3)
        Along a motion, in any unit.

    Returns
    -------
    tuple of int
        At least a twentieth and at most half of the residues; where no stretch is, the quarter of a chain
        that moves most.
    """
    length = np.linalg.norm(displacement, axis=1)
    chain, n = model.chain_index, len(model)
    moving = length > _MOVING * length.max()
    breaks = np.flatnonzero((np.diff(moving.astype(np.int8)) != 0) | (np.diff(chain) != 0)) + 1
    stretches = [s for s in np.split(np.arange(n), breaks) if moving[s[0]] and n / 20 <= len(s) <= n / 2]
    if not stretches:
        share = (
            initial_segments(model, min(n, 4 * len(model.chains))).responsibilities().argmax(dim=1).numpy()
        )
        stretches = [np.flatnonzero(share == k) for k in np.unique(share)]
        stretches.sort(key=lambda s: float(length[s].mean()))
        longest = stretches[-1]
    else:
        longest = max(stretches, key=len)
    return int(longest[0]), int(longest[-1])


def with_domain_turned(model: AtomicModel, domain: tuple[int, int], degrees: float = TURN) -> AtomicModel:
    """A model with a stretch of a chain turned as a rigid body about its hinges.

    The axis goes through the neighbours of its two ends, so that no distance along the chain changes; at an
    end of the chain through the one neighbour, across the direction of the domain; of a whole chain through
    its centroid.

    Parameters
    ----------
    model : AtomicModel
    domain : tuple of int
        First and last residue.
    degrees : float
    """
    first, last = domain
    x, chain = model.coords.astype(np.float64), model.chain_index
    hinges = [x[i] for i in (first - 1, last + 1) if 0 <= i < len(model) and chain[i] == chain[first]]
    centroid = x[first : last + 1].mean(axis=0)
    pivot = hinges[0] if hinges else centroid
    along = hinges[-1] - pivot if hinges else np.zeros(3)
    if np.linalg.norm(along) < 1.0:
        arm = centroid - pivot
        along = np.cross(arm, np.eye(3)[np.abs(arm).argmin()]) if hinges else np.array([0.0, 0.0, 1.0])
    turn = Rotation.from_rotvec(np.deg2rad(degrees) * along / np.linalg.norm(along))
    beads, atoms = x.copy(), model.heavy_coords.astype(np.float64)
    beads[first : last + 1] = turn.apply(x[first : last + 1] - pivot) + pivot
    inside = (model.heavy_residue >= first) & (model.heavy_residue <= last)
    atoms[inside] = turn.apply(atoms[inside] - pivot) + pivot
    return replace(model, coords=beads.astype(np.float32), heavy_coords=atoms.astype(np.float32), path=None)


def matched_model(model: AtomicModel, path: Path) -> AtomicModel:
    """An independent model of the residues of a reference, in their order, laid upon it.

    Parameters
    ----------
    model : AtomicModel
        The reference.
    path : Path
        The file of the other; residues that the reference does not have are left out.

    Returns
    -------
    AtomicModel
        Superposed on all residues.

    Raises
    ------
    InputError
        If it lacks a residue of the reference, by chain and number, or more than a tenth are of another kind.
    """
    other = AtomicModel.read(path)
    place = {key: row for row, key in enumerate(_keys(other))}
    rows = np.array([place.get(key, -1) for key in _keys(model)])
    remedy = "Give the chains and residue numbers of the run's reference."
    missing = np.flatnonzero(rows < 0)
    if len(missing):
        raise InputError(
            f"{len(missing)} of {len(model)} residues of the run's reference are not in this model, "
            f"first {model.label(int(missing[0]))}",
            file=path,
            remedy=remedy,
        )
    found = other.subset(rows)
    unlike = np.flatnonzero(found.residue_name != model.residue_name)
    if len(unlike) > _OTHER_NAMES * len(model):
        k = int(unlike[0])
        raise InputError(
            f"{len(unlike)} of {len(model)} residues are of another kind than in the run's reference, first "
            f"{found.label(k)} for {model.label(k)}",
            file=path,
            remedy=remedy,
        )
    motion = fit_rigid(found.coords, model.coords)
    move = [
        (xyz.astype(np.float64) @ motion.rotation.T + motion.translation).astype(np.float32)
        for xyz in (found.coords, found.heavy_coords)
    ]
    return replace(found, coords=move[0], heavy_coords=move[1])


def _keys(model: AtomicModel) -> list[tuple[str, int, str]]:
    return list(zip(model.chain_id.tolist(), model.residue_number.tolist(), model.insertion_code.tolist()))


def write_model(path: Path, model: AtomicModel, title: str) -> AtomicModel:
    """Write a model with all its heavy atoms as mmCIF, and return it as read from there.

    Atoms other than the beads are named by their element and a number: their own names are not kept.
    """
    order = np.argsort(model.heavy_residue, kind="stable")
    residue, coords = model.heavy_residue[order], model.heavy_coords[order].astype(np.float64)
    away = np.square(coords - model.coords[residue]).sum(axis=1)
    starts = np.searchsorted(residue, np.arange(len(model) + 1))
    bead = np.array([a + int(away[a:b].argmin()) for a, b in pairwise(starts)])
    # The electrons of a residue known by its bead alone are those of the whole residue.
    electrons = np.rint(model.heavy_weights[order]).astype(int)
    electrons[bead] = np.where(model.atom_name == "P", 15, 6)
    element = np.array([gemmi.Element(int(z)).name for z in electrons])
    name = np.array([f"{e.upper()}{i - starts[r]}" for i, (e, r) in enumerate(zip(element, residue))], "U8")
    name[bead] = model.atom_name
    columns = ("chain_id", "residue_number", "insertion_code", "residue_name")
    atoms = Atoms(
        coords=coords,
        weights=electrons.astype(np.float64),
        sigma=0.0,
        element=element,
        atom_name=name,
        bead=bead,
        **{column: getattr(model, column)[residue] for column in columns},
    )
    with atomic_path(path) as temporary:
        write_atoms(temporary, atoms, title)
    return AtomicModel.read(path)
