"""Collective variables: one number that says where a decoded structure is, differentiable in its coordinates.

A density over z depends on how z is parametrised; a distance in the decoded structure does not. Everything
is computed from the beads of the residues (CA, P), in Angstrom or degrees.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryoscape.errors import InputError
from cryoscape.structures.atomic_model import AtomicModel
from cryoscape.structures.superposition import fit_rigid

_TINY = 1e-12
"""Squared length, A^2, below which a direction is not defined and gradients are zero."""


class CollectiveVariable(ABC):
    """A function of a decoded structure or map.

    Parameters
    ----------
    text : str
        As the user wrote it.

    Attributes
    ----------
    unit : str
        "A", "degrees", or "" for a number without unit.
    scale : float
        A change that is small but matters, in that unit: the softness of walls that guide a sampler.
    period : float or None
        Of a variable on a circle.
    """

    unit: ClassVar[str] = "A"
    scale: ClassVar[float] = 0.5
    period: ClassVar[float | None] = None

    def __init__(self, text: str) -> None:
        self.text = text

    @abstractmethod
    def __call__(self, objects: Tensor, present: Tensor | None = None) -> Tensor:
        """Value for every structure or map of a batch, differentiable.

        Parameters
        ----------
        objects : Tensor, shape (B, N, 3) or (B, D, D, D)
            Coordinates in the frame of the model file, A; or density maps, where the run decodes maps.
        present : Tensor, shape (B, N), optional
            Share of every residue that is there, where chains may be absent.

        Returns
        -------
        Tensor, shape (B,)
            In `unit`.
        """

    def difference(self, value: Tensor, target: float) -> Tensor:
        """Value minus target, shape (B,); on a circle the shorter way round."""
        apart = value - target
        if self.period is None:
            return apart
        return torch.remainder(apart + 0.5 * self.period, self.period) - 0.5 * self.period

    def write(self, value: float) -> str:
        """The value as people write it, for example "17.3 A"."""
        return f"{value:.4g} {self.unit}".rstrip()


class Distance(CollectiveVariable):
    """Distance between the centres of two selections, A.

    Parameters
    ----------
    text : str
    first, second : ndarray of int64
        Rows of residues.
    """

    def __init__(self, text: str, first: NDArray[np.int64], second: NDArray[np.int64]) -> None:
        super().__init__(text)
        self.rows = _rows(first, second)

    def __call__(self, objects: Tensor, present: Tensor | None = None) -> Tensor:
        """|c2 - c1|."""
        a, b = _centres(objects, self.rows)
        return _length(b - a)


class Angle(CollectiveVariable):
    """Angle at the second of three centres, degrees in 0 to 180.

    Parameters
    ----------
    text : str
    first, second, third : ndarray of int64
        Rows of residues.
    """

    unit = "degrees"
    scale = 3.0

    def __init__(
        self,
        text: str,
        first: NDArray[np.int64],
        second: NDArray[np.int64],
        third: NDArray[np.int64],
    ) -> None:
        super().__init__(text)
        self.rows = _rows(first, second, third)

    def __call__(self, objects: Tensor, present: Tensor | None = None) -> Tensor:
        """atan2(|u x v|, u . v), which keeps its digits near 0 and 180."""
        a, b, c = _centres(objects, self.rows)
        u, v = a - b, c - b
        return torch.rad2deg(torch.atan2(_length(torch.linalg.cross(u, v)), (u * v).sum(-1)))


class Dihedral(CollectiveVariable):
    """Dihedral angle of four centres, degrees in -180 to 180, with the sign of IUPAC.

    Seen along the bond from the second to the third, a positive angle turns the front clockwise onto the
    back (IUPAC-IUB, J. Mol. Biol. 52, 1970).

    Parameters
    ----------
    text : str
    first, second, third, fourth : ndarray of int64
        Rows of residues.
    """

    unit = "degrees"
    scale = 3.0
    period = 360.0

    def __init__(
        self,
        text: str,
        first: NDArray[np.int64],
        second: NDArray[np.int64],
        third: NDArray[np.int64],
        fourth: NDArray[np.int64],
    ) -> None:
        super().__init__(text)
        self.rows = _rows(first, second, third, fourth)

    def __call__(self, objects: Tensor, present: Tensor | None = None) -> Tensor:
        """atan2(|b2| b1 . (b2 x b3), (b1 x b2) . (b2 x b3))."""
        p1, p2, p3, p4 = _centres(objects, self.rows)
        b1, b2, b3 = p2 - p1, p3 - p2, p4 - p3
        front, back = torch.linalg.cross(b1, b2), torch.linalg.cross(b2, b3)
        sine = _length(b2) * (b1 * back).sum(-1)
        return torch.rad2deg(torch.atan2(sine, (front * back).sum(-1)))


class Rmsd(CollectiveVariable):
    """Root-mean-square deviation from a structure after optimal superposition on the selection, A.

    The rotation is that of Kabsch (1976). It minimises the deviation, so the gradient at a fixed rotation
    is the full one.

    Parameters
    ----------
    text : str
    rows : ndarray of int64, shape (k,)
        Of the selected residues.
    target : ndarray, shape (k, 3)
        Their places in the other structure, A.
    """

    def __init__(self, text: str, rows: NDArray[np.int64], target: NDArray[np.floating[Any]]) -> None:
        super().__init__(text)
        self.rows = torch.as_tensor(rows)
        self.target = torch.as_tensor(np.asarray(target, dtype=np.float64))

    def __call__(self, objects: Tensor, present: Tensor | None = None) -> Tensor:
        """Root of the mean squared distance that is left."""
        moving, target = objects[:, self.rows].double(), self.target.to(objects.device)
        with torch.no_grad():
            rotation, shift = fit_rigid(moving, target)
        left = moving @ rotation.mT + shift[:, None] - target
        return _root(left.square().sum(-1).mean(-1)).to(objects.dtype)


class GyrationRadius(CollectiveVariable):
    """Radius of gyration, A, every residue weighed by its electrons.

    Parameters
    ----------
    text : str
    rows : ndarray of int64, shape (k,)
    weights : ndarray, shape (k,)
        Electrons of these residues. Chains that are absent count as they are present.
    """

    def __init__(self, text: str, rows: NDArray[np.int64], weights: NDArray[np.floating[Any]]) -> None:
        super().__init__(text)
        self.rows = torch.as_tensor(rows)
        self.weights = torch.as_tensor(np.asarray(weights, dtype=np.float32))

    def __call__(self, objects: Tensor, present: Tensor | None = None) -> Tensor:
        """Root of sum w |r - c|^2 / sum w."""
        x = objects[:, self.rows]
        weight = self.weights.to(x).expand(x.shape[:2])
        if present is not None:
            weight = weight * present[:, self.rows]
        weight = (weight / weight.sum(-1, keepdim=True).clamp_min(_TINY))[..., None]
        centred = x - (weight * x).sum(-2, keepdim=True)
        return _root((weight * centred.square()).sum((-2, -1)))


class CartesianComponent(CollectiveVariable):
    """Displacement from the mean structure along a principal component of the run's analysis, A.

    Divided by the root of the number of residues: 2 A mean that the structure lies 2 A rms from the mean
    along that axis. As in `cryoscape.analysis.components`, nothing is superposed.

    Parameters
    ----------
    text : str
    mean : ndarray, shape (3 N,)
    axis : ndarray, shape (3 N,)
        Of length 1.
    """

    def __init__(self, text: str, mean: NDArray[np.floating[Any]], axis: NDArray[np.floating[Any]]) -> None:
        super().__init__(text)
        self.mean = torch.as_tensor(np.asarray(mean, dtype=np.float64))
        self.axis = torch.as_tensor(np.asarray(axis, dtype=np.float64))

    def __call__(self, objects: Tensor, present: Tensor | None = None) -> Tensor:
        """(r - mean) . axis / sqrt(N)."""
        # The coordinates are hundreds of A and the motion a few: the difference comes first.
        moved = objects.flatten(1) - self.mean.to(objects)
        return moved @ self.axis.to(objects) / objects.shape[1] ** 0.5


@dataclass(frozen=True)
class MatchedResidues:
    """Residues of a model found in another file.

    Attributes
    ----------
    rows : ndarray of int64, shape (k,)
        In the model.
    coords : ndarray, shape (k, 3)
        In the other file, A.
    """

    rows: NDArray[np.int64]
    coords: NDArray[np.float64]


def match_residues(model: AtomicModel, rows: NDArray[np.int64], other: AtomicModel) -> MatchedResidues:
    """Find residues of a model in another one by chain, number and insertion code.

    Parameters
    ----------
    model : AtomicModel
    rows : ndarray of int64
        Wanted residues of the model.
    other : AtomicModel

    Returns
    -------
    MatchedResidues

    Raises
    ------
    InputError
        One of them is not in the other model, or is of another kind there.
    """
    place = {key: i for i, key in enumerate(_keys(other))}
    keys = _keys(model)
    missing = [int(r) for r in rows if keys[r] not in place]
    if missing:
        raise InputError(
            f"{len(missing)} of {len(rows)} residues are not in this file, {model.label(missing[0])} first",
            file=other.path,
            remedy="Give a file of the same molecule and numbering, or select residues that both have.",
        )
    found = np.array([place[keys[r]] for r in rows], dtype=np.int64)
    wrong = np.flatnonzero(model.kind[rows] != other.kind[found])
    if len(wrong):
        a, b = int(rows[wrong[0]]), int(found[wrong[0]])
        raise InputError(
            f"{model.label(a)} of the run is {other.label(b)} here: the file is of another molecule",
            file=other.path,
            remedy="Give a file of the same molecule with the same numbering.",
        )
    return MatchedResidues(rows, other.coords[found].astype(np.float64))


def _keys(model: AtomicModel) -> list[tuple[str, int, str]]:
    return list(zip(model.chain_id.tolist(), model.residue_number.tolist(), model.insertion_code.tolist()))


def _rows(*selections: NDArray[np.int64]) -> tuple[Tensor, ...]:
    return tuple(torch.as_tensor(rows) for rows in selections)


def _centres(coords: Tensor, selections: tuple[Tensor, ...]) -> list[Tensor]:
    """Mean place of each selection, (B, 3) each."""
    return [coords[:, rows].mean(1) for rows in selections]


def _root(square: Tensor) -> Tensor:
    """Square root with the gradient 0 where nothing is left to take the root of."""
    return square.clamp_min(_TINY).sqrt()


def _length(vector: Tensor) -> Tensor:
    return _root(vector.square().sum(-1))
