"""Collective variables that compare what is decoded with a map: the share inside a mask, and the fit."""

from __future__ import annotations

from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from cryoscape.analysis.variables.collective_variables import CollectiveVariable
from cryoscape.data.mrc import Map, read_map
from cryoscape.errors import InputError
from cryoscape.physics.resolution import pair_weights, volume_shells
from cryoscape.physics.slices import transform_volume
from cryoscape.preflight.map_density import density_on_grid, frame_of_map

_ROUNDING = 1e-3


class Density(Protocol):
    """Makes the Fourier coefficients of decoded structures or maps."""

    @property
    def box(self) -> int:
        """Even side of the lattice of coefficients."""
        ...

    @property
    def voxel_size(self) -> float:
        """Of a map with these coefficients, A."""
        ...

    @property
    def last_shell(self) -> int:
        """The last shell that is compared."""
        ...

    @property
    def offset(self) -> tuple[float, float, float]:
        """Centre of the box in the frame of the model file, (x, y, z), A."""
        ...

    def __call__(self, objects: Tensor, present: Tensor | None = None) -> Tensor:
        """Coefficients (B, box, box, box // 2 + 1) in the layout of `slices.transform_volume`."""
        ...


class StructureOccupancy(CollectiveVariable):
    """Share of a structure's electrons that lies inside a mask, 0 to 1.

    Parameters
    ----------
    text : str
    mask : Map
        Values from 0 to 1, in the frame of the model file; interpolated trilinearly, 0 outside of the map.
    weights : ndarray, shape (N,)
        Electrons of every residue.
    """

    unit = ""
    scale = 0.02

    def __init__(self, text: str, mask: Map, weights: NDArray[np.floating]) -> None:
        super().__init__(text)
        self.mask = mask
        self.weights = torch.as_tensor(np.asarray(weights, dtype=np.float32))

    def __call__(self, objects: Tensor, present: Tensor | None = None) -> Tensor:
        """Sum of w m(r) over the residues / sum of w, with w the electrons that are present."""
        inside = values_at(self.mask, objects)
        weight = self.weights.to(objects).expand(objects.shape[:2])
        if present is not None:
            weight = weight * present
        return (weight * inside).sum(-1) / weight.sum(-1).clamp_min(1e-12)


class MapOccupancy(CollectiveVariable):
    """Share of a decoded map's positive density that lies inside a mask, 0 to 1.

    Parameters
    ----------
    text : str
    mask : Tensor, shape (D, D, D)
        On the grid of the decoded maps.
    """

    unit = ""
    scale = 0.02

    def __init__(self, text: str, mask: Tensor) -> None:
        super().__init__(text)
        self.mask = mask

    def __call__(self, objects: Tensor, present: Tensor | None = None) -> Tensor:
        """Sum of m max(V, 0) / sum of max(V, 0)."""
        positive = objects.clamp_min(0.0)
        inside = (positive * self.mask.to(objects)).sum((-3, -2, -1))
        return inside / positive.sum((-3, -2, -1)).clamp_min(1e-30)


class MapFit(CollectiveVariable):
    """Correlation of what is decoded with a map, from -1 to 1.

    All coefficients up to the resolution count the same, except the mean of the map, which images do not
    tell. By Parseval's theorem this is the correlation of the voxels of the two filtered maps.

    Parameters
    ----------
    text : str
    target : Tensor, shape (box, box, box // 2 + 1)
        Coefficients of the map about the centre of the box of `density`.
    density : Density
        Of what is decoded.
    """

    unit = ""
    scale = 0.01

    def __init__(self, text: str, target: Tensor, density: Density) -> None:
        super().__init__(text)
        self.density = density
        shells = volume_shells(density.box)
        kept = (shells > 0) & (shells <= density.last_shell)
        weights = kept * pair_weights(density.box)
        norm = (weights * target.abs().square()).sum().sqrt()
        if not float(norm) > 0:
            raise InputError("the map is empty at this resolution", remedy="Give another map or resolution.")
        self.weights, self.target = weights, target / norm

    def __call__(self, objects: Tensor, present: Tensor | None = None) -> Tensor:
        """Sum of F T* / (|F| |T|)."""
        found = self.density(objects, present)
        weights, target = self.weights.to(found.device), self.target.to(found.device)
        cross = (weights * (found * target.conj()).real).sum((-3, -2, -1))
        power = (weights * (found.real.square() + found.imag.square())).sum((-3, -2, -1))
        return cross / power.clamp_min(1e-30).sqrt()


def values_at(volume: Map, points: Tensor) -> Tensor:
    """Value of a map at points in its frame, trilinear, falling to 0 within a voxel outside; differentiable.

    Parameters
    ----------
    volume : Map
    points : Tensor, shape (..., 3)
        (x, y, z), A.

    Returns
    -------
    Tensor, shape (...)
    """
    data = torch.as_tensor(volume.data, device=points.device)
    last = torch.tensor(data.shape[::-1], device=points.device) - 1
    origin = torch.as_tensor(volume.origin, device=points.device)
    # In double precision: voxels are counted from a corner that may be hundreds of A away.
    place = (points.double() - origin) / volume.voxel_size
    unit = (2 * place / last.clamp_min(1) - 1).to(data.dtype)
    grid = unit.reshape(1, -1, 1, 1, 3)
    found = functional.grid_sample(data[None, None], grid, align_corners=True)
    return found.reshape(points.shape[:-1]).to(points.dtype)


def read_mask(path: str | PathLike[str]) -> Map:
    """Read a mask in the frame of the model file.

    Raises
    ------
    InputError
        It is no map, its values do not lie between 0 and 1, or it is empty.
    """
    mask = read_map(path)
    low, high = float(mask.data.min()), float(mask.data.max())
    if not (low >= -_ROUNDING and high <= 1 + _ROUNDING):
        raise InputError(
            f"this is not a mask: its values run from {low:.3g} to {high:.3g}",
            file=path,
            remedy="Give a map that is 1 inside and 0 outside, for example one made in ChimeraX or RELION.",
        )
    if high <= 0:
        raise InputError("the mask is empty", file=path, remedy="Give a map that is 1 inside.")
    _need_voxel_size(mask, path)
    # The file's own array cannot be written to, of which tensors that share it warn.
    return replace(mask, data=np.array(mask.data))


def mask_on_grid(mask: Map, box: int, voxel_size: float, origin: tuple[float, float, float]) -> Tensor:
    """A mask at the voxels of decoded maps, shape (box, box, box), in (z, y, x).

    Parameters
    ----------
    mask : Map
    box : int
    voxel_size : float
        A.
    origin : tuple of float
        Of voxel (0, 0, 0), (x, y, z), A.
    """
    steps = torch.arange(box, dtype=torch.float64) * voxel_size
    x, y, z = (steps + value for value in origin)
    points = torch.stack(torch.meshgrid(z, y, x, indexing="ij")[::-1], dim=-1)
    return values_at(mask, points).float()


def fit_target(path: str | PathLike[str], density: Density) -> Tensor:
    """Coefficients of a map on the lattice of `density`, moved to the centre of its box.

    Parameters
    ----------
    path : path
        A map in the frame of the model file.
    density : Density

    Returns
    -------
    Tensor, shape (box, box, box // 2 + 1)

    Raises
    ------
    InputError
        It is no map, too coarse, or lies outside the box.
    """
    volume = read_map(path)
    _need_voxel_size(volume, path)
    box, voxel = density.box, density.voxel_size
    away = np.array(frame_of_map(volume)) - np.array(density.offset)
    if np.abs(away).max() > 0.5 * box * voxel:
        raise InputError(
            f"the middle of this map is {np.linalg.norm(away):.0f} A from the middle of the run's box",
            file=path,
            remedy="Give a map that lies on the model: its header's origin says where it is.",
        )
    try:
        centred = transform_volume(density_on_grid(volume, box, voxel), voxel)
    except InputError as error:
        raise InputError(
            f"its voxels of {volume.voxel_size:.3g} A are too coarse for the resolution asked for",
            file=path,
            remedy="Ask for a lower resolution, `fit MAP.mrc 15`, or give a finer map.",
        ) from error
    return centred * _phase(away, box, voxel)


def _phase(shift: NDArray[np.float64], box: int, voxel_size: float) -> Tensor:
    """exp(-2 pi i k . shift) on the half-space, for a shift (x, y, z) in A."""
    full = torch.fft.fftfreq(box, d=voxel_size, dtype=torch.float64)
    half = torch.arange(box // 2 + 1, dtype=torch.float64) / (box * voxel_size)
    x, y, z = (float(value) for value in shift)
    turns = full[:, None, None] * z + full[None, :, None] * y + half * x
    return torch.polar(torch.ones_like(turns), -2 * torch.pi * turns).to(torch.complex64)


def _need_voxel_size(volume: Map, path: str | PathLike[str]) -> None:
    if not volume.voxel_size_known:
        raise InputError(
            "the header of this map does not tell the size of its voxels",
            file=Path(path),
            remedy="Set it, for example with `relion_image_handler --angpix`.",
        )
