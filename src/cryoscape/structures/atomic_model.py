"""The reference structure: one bead a residue, with the heavy atoms behind it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

AMINO, NUCLEOTIDE = 0, 1


@dataclass(frozen=True, eq=False)
class AtomicModel:
    """Residues of a structure in the order of its file, in the frame of its file.

    Attributes
    ----------
    coords : ndarray, shape (N, 3), float32
        Bead of each residue, Angstrom: CA of amino acids, P of nucleotides (C1' where P is missing).
    weights : ndarray, shape (N,), float32
        Electrons of each residue: the sum of the atomic numbers of its heavy atoms present in the
        file. Hydrogens are not counted, so a model weighs the same with and without them.
    chain_id, insertion_code, residue_name, atom_name : ndarray, shape (N,), str
        Author chain name, insertion code ("" for none), residue name, name of the bead's atom.
    residue_number : ndarray, shape (N,), int64
        Author residue number.
    kind : ndarray, shape (N,), int8
        0 amino acid, 1 nucleotide.
    heavy_coords : ndarray, shape (M, 3), float32
        All heavy atoms of these residues, Angstrom.
    heavy_weights : ndarray, shape (M,), float32
        Their atomic numbers.
    heavy_residue : ndarray, shape (M,), int64
        Row of the residue each one belongs to.
    left_out : dict of str to int
        What the file holds and the model does not ("waters", "ligands", "hydrogen atoms", ...).
    path : Path or None
        The file it was read from; None for a copy that was changed since.
    """

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
    left_out: dict[str, int] = field(default_factory=dict)
    path: Path | None = None

    @classmethod
    def read(cls, path: str | PathLike[str]) -> AtomicModel:
        """Read the polymer residues of a PDB, mmCIF or BinaryCIF file, plain or gzipped.

        The first model of a multi-model file is taken; of alternative conformations the one with the
        highest occupancy (the first of equals); likewise of different residues at one position. Modified
        residues (MSE, SEP, PSU, ...) are residues. See `cryoscape.structures.reading`.

        Parameters
        ----------
        path : path
            .pdb, .ent, .cif, .mmcif or .bcif, with or without .gz.

        Returns
        -------
        AtomicModel

        Raises
        ------
        InputError
            If the file cannot be read, holds no polymer, holds a residue twice, or holds coordinates that
            are not finite.
        """
        from cryoscape.structures.reading import read_polymer

        return cls(**read_polymer(path)._asdict(), path=Path(path))

    def __len__(self) -> int:
        return len(self.coords)

    @property
    def centroid(self) -> NDArray[np.float64]:
        """Mean of the beads, shape (3,), Angstrom."""
        return self.coords.mean(axis=0, dtype=np.float64)

    @property
    def radius(self) -> float:
        """Largest distance of a bead from the centroid, Angstrom."""
        return float(np.linalg.norm(self.coords - self.centroid, axis=1).max())

    @property
    def chains(self) -> tuple[str, ...]:
        """Names of the chains in the order of the file."""
        return tuple(dict.fromkeys(self.chain_id.tolist()))

    @property
    def chain_index(self) -> NDArray[np.int64]:
        """Row in `chains` of the chain of each residue, shape (N,)."""
        row = {name: i for i, name in enumerate(self.chains)}
        return np.array([row[name] for name in self.chain_id.tolist()], dtype=np.int64)

    @property
    def notes(self) -> tuple[str, ...]:
        """One plain sentence for each thing that was left out."""
        return tuple(f"left out: {count} {what}" for what, count in self.left_out.items())

    def label(self, index: int) -> str:
        """Residue as people write it, for example "A:52B GLY"."""
        number = f"{self.residue_number[index]}{self.insertion_code[index]}"
        return f"{self.chain_id[index]}:{number} {self.residue_name[index]}"

    def translated(self, vector: ArrayLike) -> AtomicModel:
        """Copy with beads and heavy atoms moved by `vector` (3,), Angstrom."""
        shift = np.asarray(vector, dtype=np.float64)
        return replace(
            self,
            coords=(self.coords + shift).astype(np.float32),
            heavy_coords=(self.heavy_coords + shift).astype(np.float32),
            path=None,
        )

    def with_coords(self, coords: ArrayLike) -> AtomicModel:
        """Copy with the beads at `coords` (N, 3); heavy atoms move along with the bead of their residue."""
        new = np.asarray(coords, dtype=np.float32)
        if new.shape != self.coords.shape:
            raise ValueError(f"expected coordinates of shape {self.coords.shape}, got {new.shape}")
        moved = (self.heavy_coords + (new - self.coords)[self.heavy_residue]).astype(np.float32)
        return replace(self, coords=new, heavy_coords=moved, path=None)

    def subset(self, index: ArrayLike) -> AtomicModel:
        """The residues `index` (indices or a boolean mask), with their heavy atoms, in the given order."""
        rows = np.arange(len(self))[np.asarray(index)]
        place = np.full(len(self), -1, dtype=np.int64)
        place[rows] = np.arange(len(rows))
        heavy = np.flatnonzero(place[self.heavy_residue] >= 0)
        heavy = heavy[np.argsort(place[self.heavy_residue[heavy]], kind="stable")]
        columns = ["coords", "weights", "kind", "atom_name"]
        columns += ["chain_id", "residue_number", "insertion_code", "residue_name"]
        return replace(
            self,
            **{name: getattr(self, name)[rows] for name in columns},
            heavy_coords=self.heavy_coords[heavy],
            heavy_weights=self.heavy_weights[heavy],
            heavy_residue=place[self.heavy_residue[heavy]],
            path=None,
        )


def fits_in_box(model: AtomicModel, box: int, pixel_size: float, tolerance: float = 0.01) -> bool:
    """Whether a model in the world frame (origin at the box centre) is seen whole in every view.

    A residue farther from the origin than half the box falls outside the image in some pose.

    Parameters
    ----------
    model : AtomicModel
        Already in the world frame.
    box : int
        Side of the images, pixels.
    pixel_size : float
        Angstrom.
    tolerance : float
        Fraction of the residues that may lie outside.

    Returns
    -------
    bool
    """
    outside = np.linalg.norm(model.coords, axis=1) > 0.5 * box * pixel_size
    return bool(outside.mean() <= tolerance)
