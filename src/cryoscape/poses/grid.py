"""Grids over rotations and shifts whose cells split into equal parts.

A cell of a rotation grid is named by whole numbers, and the names of its eight children follow from its own
(twice as fine along each of three axes), so that a search can descend without tables or neighbour lists.

`HopfGrid` covers all of SO(3): HEALPix pixels for the viewing direction times equal steps in the plane,
which have equal volumes and little distortion. `LocalGrid` is a cube of rotation vectors around a given
rotation.

Sources: Yershova, Jain, LaValle and Mitchell, Int. J. Robotics Res. 29 (2010), 801-812 (Hopf fibration);
Gorski et al., Astrophys. J. 622 (2005), 759-771, and Calabretta and Roukema, Mon. Not. R. Astron. Soc. 381
(2007), 865-872 (HEALPix, its projection).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import roma
import torch
from torch import Tensor

BASE_STEP = math.pi / 3
"""Spacing of the coarsest `HopfGrid`, radians: 12 directions times 6 rotations in the plane."""


class RotationGrid(Protocol):
    """Cells of rotations that can be split.

    A cell is a row of whole numbers; `level` counts the splits since the coarsest grid.
    """

    def step(self, level: int) -> float:
        """Side of the cells, radians."""
        ...

    def start(self) -> Tensor:
        """Cells (n, d) of the coarsest level, int64."""
        ...

    def children(self, cells: Tensor) -> Tensor:
        """The eight cells (..., 8, d) that make up each cell (..., d)."""
        ...

    def rotations(self, cells: Tensor, level: int) -> Tensor:
        """Rotations (..., 3, 3) in the middle of the cells (..., d): poses, or factors left of a pose."""
        ...


@dataclass(frozen=True)
class HopfGrid:
    """All rotations: 72 * 8**level cells of equal volume.

    A cell is (face 0 to 11, x, y, turn): the HEALPix pixel of the viewing direction, and the step in the
    plane.

    Attributes
    ----------
    first : int
        Level at which `start` begins: 0 has steps of 60 degrees, 2 of 15 (4,608 rotations).
    """

    first: int = 2

    def step(self, level: int) -> float:
        """Side of the cells, radians: 60 degrees halved `first` + `level` times."""
        return BASE_STEP / 2 ** (self.first + level)

    def start(self) -> Tensor:
        """All cells of the first level, shape (72 * 8**first, 4)."""
        side = 2**self.first
        axes = [torch.arange(n) for n in (12, side, side, 6 * side)]
        return torch.cartesian_prod(*axes)

    def children(self, cells: Tensor) -> Tensor:
        """The eight cells (..., 8, 4) inside each cell (..., 4)."""
        return torch.cat([cells[..., None, :1].expand(*cells.shape[:-1], 8, 1), _split(cells[..., 1:])], -1)

    def rotations(self, cells: Tensor, level: int) -> Tensor:
        """Rotations A (..., 3, 3), float64, from model to view, in the middle of the cells."""
        side = 2 ** (self.first + level)
        face, x, y, turn = cells.unbind(-1)
        z, phi = pixel_direction(face, (x + 0.5) / side, (y + 0.5) / side)
        psi = (turn.double() + 0.5) * (BASE_STEP / side)
        # Each ring of faces counts turns from its own meridians, or cells at a pole would be twisted apart.
        return hopf_rotation(torch.acos(z.clamp(-1, 1)), phi, psi - (1 - face // 4) * phi)


@dataclass(frozen=True)
class LocalGrid:
    """Rotation vectors up to a length: rotations near a given one, which they multiply from the left.

    A cell is (i, j, k), the place of a cube; the axes are those of the view (x and y
    tilt, z turns in the plane).

    Attributes
    ----------
    reach : float
        Radians: every rotation up to this angle lies in a cell.
    width : float
        Largest side of the first cells, radians; they fill the reach evenly.
    """

    reach: float
    width: float

    @property
    def _cells(self) -> int:
        """Cells from the centre to the reach in each direction, counted in half sides."""
        return max(1, math.ceil(2 * self.reach / self.width))

    def step(self, level: int) -> float:
        """Side of the cells, radians."""
        return 2 * self.reach / self._cells / 2**level

    def start(self) -> Tensor:
        """Cubes of the first level that come within the reach, shape (n, 3)."""
        axis = torch.arange(self._cells)
        cells = torch.cartesian_prod(axis, axis, axis)
        centre = self._vectors(cells, 0).abs()
        nearest = (centre - self.step(0) / 2).clamp_min(0).norm(dim=-1)
        return cells[nearest < self.reach]

    def children(self, cells: Tensor) -> Tensor:
        """The eight cubes (..., 8, 3) inside each cube (..., 3)."""
        return _split(cells)

    def _vectors(self, cells: Tensor, level: int) -> Tensor:
        step = self.step(level)
        return (cells.double() + 0.5) * step - self.reach

    def rotations(self, cells: Tensor, level: int) -> Tensor:
        """Factors (..., 3, 3), float64, to put left of a pose."""
        return roma.rotvec_to_rotmat(self._vectors(cells, level))


def _split(cells: Tensor) -> Tensor:
    """Halve three axes (..., 3): the eight children (..., 8, 3)."""
    bits = torch.cartesian_prod(*[torch.arange(2, device=cells.device)] * 3)
    return 2 * cells[..., None, :] + bits


def pixel_direction(face: Tensor, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Point of the sphere at a place of a HEALPix face.

    Parameters
    ----------
    face : Tensor, int
        0 to 3 around the north pole, 4 to 7 on the equator, 8 to 11 around the south pole.
    u, v : Tensor
        Place in the face, 0 to 1 along its two edges from the southern corner.

    Returns
    -------
    z : Tensor
        Cosine of the polar angle.
    phi : Tensor
        Azimuth, radians.
    """
    u, v = u.double(), v.double()
    ring = torch.div(face, 4, rounding_mode="floor")
    # In units of pi/4 the faces are squares on their corners, centred here.
    centre = 2.0 * (face % 4) + (ring != 1).double()
    across = u - v
    up = (1.0 - ring) + u + v - 1.0
    cap = up.abs() > 1
    narrowing = torch.where(cap, 2.0 - up.abs(), torch.ones_like(up))
    z = torch.where(cap, up.sign() * (1.0 - narrowing.square() / 3.0), up * (2.0 / 3.0))
    return z, (math.pi / 4) * (centre + across / narrowing.clamp_min(1e-12))


def hopf_rotation(theta: Tensor, phi: Tensor, psi: Tensor) -> Tensor:
    """Rotation from the coordinates of the Hopf fibration.

    Parameters
    ----------
    theta, phi : Tensor
        Polar angle and azimuth of the viewing direction, radians.
    psi : Tensor
        Along the fibre: turns the view in its plane, radians.

    Returns
    -------
    Tensor, shape (..., 3, 3)
        A, from model to view, the transpose of Rz(phi) Ry(theta) Rz(psi): its last row is the viewing
        direction.
    """
    half, total, difference = theta / 2, (phi + psi) / 2, (phi - psi) / 2
    quaternion = torch.stack(
        [
            -half.sin() * difference.sin(),
            half.sin() * difference.cos(),
            half.cos() * total.sin(),
            half.cos() * total.cos(),
        ],
        dim=-1,
    )
    return roma.unitquat_to_rotmat(quaternion).transpose(-1, -2)


def shift_grid(reach: float, width: float) -> tuple[Tensor, float]:
    """Square cells of shifts whose middles lie within a distance of 0, or whose nearest point does.

    Parameters
    ----------
    reach : float
        Angstrom.
    width : float
        Largest side of a cell, Angstrom.

    Returns
    -------
    shifts : Tensor, shape (n, 2)
        Middles of the cells, Angstrom; 0 is one of them.
    step : float
        Side of the cells, Angstrom.
    """
    n = math.ceil(reach / width - 0.5) if reach > 0.5 * width else 0
    step = min(width, reach / (n + 0.5)) if reach > 0 else 0.0
    axis = torch.arange(-n, n + 1, dtype=torch.float64) * step
    shifts = torch.cartesian_prod(axis, axis)
    nearest = (shifts.abs() - step / 2).clamp_min(0).norm(dim=-1)
    return shifts[(nearest < reach) | (nearest == 0)], step
