"""Models that the user gives, made into states of one molecule."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cryoscape.errors import InputError
from cryoscape.simulate.atoms import Atoms, read_atoms, read_trajectory
from cryoscape.simulate.paths import common_frame, match_atoms
from cryoscape.structures.selection import select

Array = NDArray[np.float64]


def read_states(models: list[Path], frames: tuple[int, ...] | None) -> tuple[Atoms, Array, int]:
    """All models of some files, reduced to the atoms that all have, in one frame.

    Models that lie on the first keep the frame they have; others are superposed (`common_frame`).

    Parameters
    ----------
    models : list of Path
        Structure files with one or more models, or `.npz` trajectories.
    frames : tuple of int, optional
        Which of all the models to take, from 0.

    Returns
    -------
    atoms : Atoms
        The first.
    coords : ndarray, shape (S, n, 3)
        Angstrom.
    unmatched : int
        Atoms left out, at most of one model.

    Raises
    ------
    InputError
        If a file cannot be read, a frame does not exist, or the models are of different molecules.
    """
    found = [a for path in models for a in (read_trajectory if path.suffix == ".npz" else read_atoms)(path)]
    if frames is not None:
        outside = [f for f in frames if not 0 <= f < len(found)]
        if outside or not frames:
            raise InputError(
                f"there is no frame {outside[0] if outside else ''}: the models given have {len(found)}",
                remedy=f"Give frames from 0 to {len(found) - 1}.",
            )
        found = [found[f] for f in frames]
    first, unmatched = found[0], 0
    for other in found[1:]:
        if other.atom_keys() != first.atom_keys():
            matched = match_atoms(first, other)
            first, unmatched = matched.a, max(unmatched, matched.unmatched)
    states = [first.coords]
    keys = first.atom_keys()
    for other in found[1:]:
        same = other if other.atom_keys() == keys else match_atoms(first, other).b
        states.append(common_frame(first, same))
    return first, np.stack(states), unmatched


def select_residues(atoms: Atoms, text: str | None) -> NDArray[np.bool_] | None:
    """Residues named by chains and ranges.

    Parameters
    ----------
    atoms : Atoms
    text : str or None
        As `cryoscape.structures.selection.select` reads it, for example "L,H:1-235".

    Returns
    -------
    ndarray of bool, shape (R,), or None
        None where `text` is None.

    Raises
    ------
    InputError
        If a part cannot be read or names no residue.
    """
    if text is None:
        return None
    chosen = np.zeros(len(atoms.bead), dtype=bool)
    chosen[select(atoms.model(), text)] = True
    return chosen
