"""The known truth of a simulation, and which of its residues a model shares.

Truth and model are compared as they are, without superposition: both are read in the box-corner frame,
so the model must be given to the run in the frame of `reference.cif`, the file beside `truth.npz`.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cryoscape.analysis.evaluation.true_atoms import TrueAtoms
from cryoscape.errors import InputError
from cryoscape.structures.atomic_model import AtomicModel

Identity = tuple[str, int, str]


@dataclass(frozen=True)
class Truth:
    """What a simulation knows.

    Parameters
    ----------
    state : ndarray, shape (n,), int
        True state of every row of the particle file.
    population : ndarray, shape (S,)
        Population of each state, summing to 1.
    coords : ndarray, shape (S, R, 3)
        Structure of each state, A, in the box-corner frame.
    cv : ndarray, shape (S,), or None
        Collective variable of each state.
    identity : tuple of (chain, number, insertion code), or None
        Which residue each of the R beads is; None where the simulation left no reference model.
    scenario : str
        The simulation's name.
    path : Path
        The file.
    atoms : TrueAtoms, or None
        The atoms that were projected; None in files that do not hold them.
    present : ndarray of bool, shape (S, m), or None
        Which of m subunits each state has, where composition varies. The coordinates of an absent subunit
        are those that it has when present.
    subunit : ndarray of int, shape (R,), or None
        Subunit of each bead, -1 for the core.
    """

    state: NDArray[np.int64]
    population: NDArray[np.float64]
    coords: NDArray[np.float32]
    cv: NDArray[np.float64] | None
    identity: tuple[Identity, ...] | None
    scenario: str
    path: Path
    atoms: TrueAtoms | None = None
    present: NDArray[np.bool_] | None = None
    subunit: NDArray[np.int64] | None = None

    @classmethod
    def read(cls, path: str | PathLike[str]) -> Truth:
        """Read `truth.npz`, and `reference.cif` beside it for the names of the residues.

        Parameters
        ----------
        path : path
            The file, or the folder of the simulation.

        Returns
        -------
        Truth

        Raises
        ------
        InputError
            The file is missing, unreadable or without states and coordinates.
        """
        path = Path(path)
        path = path / "truth.npz" if path.is_dir() else path
        if not path.is_file():
            raise InputError(
                "there is no such file", file=path, remedy="Give the truth.npz of the simulation."
            )
        try:
            with np.load(path, allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files}
        except (ValueError, OSError, zipfile.BadZipFile) as error:
            raise InputError("this is not an .npz file", file=path, remedy="Simulate again.") from error
        missing = {"state", "coords"} - set(arrays)
        if missing:
            raise InputError(
                f"the truth has no {' and no '.join(sorted(missing))}",
                file=path,
                remedy="Give the truth.npz of a simulation of atomic models.",
            )
        state, coords = arrays["state"].astype(np.int64), arrays["coords"].astype(np.float32)
        if coords.ndim != 3 or (len(state) and not 0 <= state.min() <= state.max() < len(coords)):
            raise InputError(
                "states and coordinates do not fit together", file=path, remedy="Simulate again."
            )
        counts = np.bincount(state, minlength=len(coords)).astype(np.float64)
        population = np.asarray(arrays.get("population", counts), dtype=np.float64)
        cv = np.asarray(arrays["cv"], dtype=np.float64).reshape(-1) if "cv" in arrays else None
        return cls(
            state=state,
            population=population / population.sum(),
            coords=coords,
            cv=cv if cv is not None and cv.shape == (len(coords),) else None,
            identity=_identity_beside(path, coords.shape[1]),
            scenario=str(arrays.get("scenario", "")),
            path=path,
            atoms=TrueAtoms.from_arrays(arrays),
            present=arrays.get("present"),
            subunit=arrays.get("subunit"),
        )

    def density(self, states: ArrayLike, box: int, pixel_size: float) -> NDArray[np.float32]:
        """True maps: the projected Gaussians as density, band-limited by the grid.

        Made in Fourier space, so a map holds exactly the frequencies below Nyquist of what the images were
        made from, whatever the box: a Fourier shell correlation against it has no interpolation error.

        Parameters
        ----------
        states : array_like of int, shape (k,)
            Which states.
        box : int
            Even side of the maps.
        pixel_size : float
            Angstrom. Where `box * pixel_size` is the width of the particle images, the grid is theirs.

        Returns
        -------
        ndarray, shape (k, box, box, box), float32
            Electrons per cubic Angstrom, (z, y, x), the world's origin at voxel `box // 2`. All k are held at
            once: ask for a few states at a time where the box is large.

        Raises
        ------
        InputError
            The truth does not hold the atoms, there is no such state, or the box is odd.
        """
        chosen = np.atleast_1d(np.asarray(states, dtype=np.int64))
        if self.atoms is None:
            raise InputError(
                "the truth does not hold the atoms that true maps are made of",
                file=self.path,
                remedy="Simulate again; this version of cryoscape stores them.",
            )
        if len(chosen) and not 0 <= chosen.min() <= chosen.max() < len(self.coords):
            raise InputError(
                f"the truth has {len(self.coords)} states and none is number {chosen.max()}",
                file=self.path,
                remedy=f"Ask for states from 0 to {len(self.coords) - 1}.",
            )
        if box % 2:
            raise InputError(f"a map of {box} voxels a side", remedy="Ask for an even box.")
        maps = np.empty((len(chosen), box, box, box), dtype=np.float32)
        for one, state in zip(maps, chosen):
            one[:] = self.atoms.density(int(state), box, pixel_size)
        return maps

    def match(self, model: AtomicModel) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Residues that truth and model share, by chain, number and insertion code.

        Where the chains are named differently and both have one chain, numbers alone decide.

        Parameters
        ----------
        model : AtomicModel
            The model that the run was given; it may be another file than the simulation's reference.

        Returns
        -------
        in_model, in_truth : ndarray, shape (k,), int
            Indices of the shared residues.

        Raises
        ------
        InputError
            Fewer than half of the truth's residues are in the model.
        """
        n_truth = self.coords.shape[1]
        if self.identity is None:
            if len(model) == n_truth:
                return np.arange(n_truth), np.arange(n_truth)
            raise InputError(
                f"the truth has {n_truth} residues and the run's model {len(model)}, and nothing names them",
                file=self.path,
                remedy="Keep the simulation's reference.cif beside truth.npz.",
            )
        of_model, of_truth = list(residue_identity(model)), list(self.identity)
        if len({chain for chain, *_ in of_model}) == len({chain for chain, *_ in of_truth}) == 1:
            of_model = [("", number, code) for _, number, code in of_model]
            of_truth = [("", number, code) for _, number, code in of_truth]
        place = {name: i for i, name in enumerate(of_model)}
        pairs = np.array(
            [(place[name], i) for i, name in enumerate(of_truth) if name in place], dtype=np.int64
        )
        if 2 * len(pairs) < n_truth:
            raise InputError(
                f"only {len(pairs)} of the truth's {n_truth} residues are in the run's model",
                file=self.path,
                remedy="Give the truth of the simulation that made these particles, "
                "or a model with the same chains and residue numbers.",
            )
        return pairs[:, 0], pairs[:, 1]


def residue_identity(model: AtomicModel) -> Iterable[Identity]:
    """Chain, residue number and insertion code of every bead.

    Parameters
    ----------
    model : AtomicModel
        A model of N residues.

    Yields
    ------
    (str, int, str)
    """
    for chain, number, code in zip(model.chain_id, model.residue_number, model.insertion_code):
        yield str(chain), int(number), str(code).strip()


def _identity_beside(path: Path, n_residues: int) -> tuple[Identity, ...] | None:
    reference = path.with_name("reference.cif")
    if not reference.is_file():
        return None
    identity = tuple(residue_identity(AtomicModel.read(reference)))
    if len(identity) != n_residues:
        raise InputError(
            f"it has {len(identity)} residues and the truth beside it {n_residues}",
            file=reference,
            remedy="Keep the files of one simulation together.",
        )
    return identity
