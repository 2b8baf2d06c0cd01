"""Maps to search against: slices of a few densities at the low frequencies, in any pose."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from cryoscape.physics import fourier
from cryoscape.physics.fourier_voxels import rows_shape, to_rows
from cryoscape.physics.slices import crop_volume, invert_volume, transform_volume

PAD = 2
"""Maps are padded to this many times their side, so that trilinear slices are exact to a per cent."""

TEMPLATE_BOX = 64
"""Side of the maps searched against, at most: 32 shells point a particle to a degree or better."""

_POINTS = 50_000
"""Coefficients sampled at a time: their tables of eight neighbours stay in a processor's cache."""


@dataclass(frozen=True)
class Band:
    """The coefficients of an image that enter the likelihood, the lowest first.

    Attributes
    ----------
    index : Tensor, shape (K,), int64
        Positions in the flattened half-plane of the images (box, box // 2 + 1).
    frequency : Tensor, shape (K, 2), float32
        (kx, ky) in 1/Angstrom.
    radius : Tensor, shape (K,), float32
        |k|, ascending, so that the coefficients below a resolution are the first so many.
    """

    index: Tensor
    frequency: Tensor
    radius: Tensor

    @classmethod
    def of(cls, weights: Tensor, pixel_size: float) -> Band:
        """All coefficients with weight.

        Parameters
        ----------
        weights : Tensor, shape (box, box // 2 + 1)
            Of the likelihood's sum.
        pixel_size : float
            Angstrom.
        """
        grid = fourier.frequency_grid(weights.shape[0], pixel_size).flatten(0, 1)
        index = weights.flatten().nonzero()[:, 0]
        radius = grid[index].norm(dim=-1)
        index = index[radius.argsort(stable=True)]
        return cls(index, grid[index], grid[index].norm(dim=-1))

    def __len__(self) -> int:
        return len(self.index)

    def below(self, frequency: float) -> int:
        """How many coefficients have |k| up to a frequency in 1/Angstrom."""
        return int((self.radius <= frequency).sum())


class TemplateMaps:
    """Central slices of a few maps.

    Parameters
    ----------
    maps : Tensor, shape (n, D, D, D)
        Density per cubic Angstrom, (z, y, x), origin at voxel D // 2; cropped in Fourier space to at most
        `TEMPLATE_BOX`.
    voxel_size : float
        Angstrom.
    scale : float
        Continuous transform over the coefficients of the images: image_box * image_pixel_size**2.
    """

    def __init__(self, maps: Tensor, voxel_size: float, scale: float) -> None:
        box = maps.shape[-1]
        self.field = box * voxel_size
        """Side of the box, Angstrom."""
        self.box = min(box, TEMPLATE_BOX)
        self.limit = (self.box // 2 - 1) / self.field
        """Highest frequency of the slices, 1/Angstrom."""
        tables, radii = [], []
        for density in maps:
            # One after the other, since the padded transforms are large.
            small = density.float()
            if self.box < box:
                transform = crop_volume(transform_volume(small, voxel_size), self.box)
                small = invert_volume(transform, self.field / self.box)
            radii.append(radius_of(small, self.field / self.box))
            padded = transform_volume(small, self.field / self.box, pad=PAD, gridding=True)
            tables.append(to_rows(padded / scale))
        self._table = torch.cat(tables)
        self.radius = max(radii)
        """Radius of the particle, Angstrom."""
        self._size = PAD * self.box
        high, wide, half = rows_shape(self._size)
        self._rows = high * wide * half
        self._origin = ((self._size // 2) * wide + self._size // 2) * half
        steps = [z * wide * half + y * half + x for z in (0, 1) for y in (0, 1) for x in (0, 1)]
        self._steps = torch.tensor(steps, dtype=torch.int32)
        self._wide, self._half, self._n = wide, half, len(maps)

    def __len__(self) -> int:
        return self._n

    def slices(self, labels: Tensor, rotations: Tensor, frequency: Tensor) -> Tensor:
        """Coefficients of projections.

        Parameters
        ----------
        labels : Tensor, shape (m,), int64
            Which map.
        rotations : Tensor, shape (m, 3, 3)
            From model to view.
        frequency : Tensor, shape (K, 2)
            (kx, ky) in 1/Angstrom, up to `limit`.

        Returns
        -------
        Tensor, shape (m, 2, K)
            Real and imaginary parts, unitary coefficients of the images.
        """
        at_once = max(1, _POINTS // max(len(frequency), 1))
        scaled = (frequency * (PAD * self.field)).T.contiguous()
        parts = zip(labels.split(at_once), rotations.to(frequency.dtype).split(at_once))
        return torch.cat([self._slices(n, a, scaled) for n, a in parts])

    def _slices(self, labels: Tensor, rotations: Tensor, grid: Tensor) -> Tensor:
        """Coefficients (m, 2, K) at frequencies (2, K) in units of the padded grid."""
        # An image frequency (kx, ky) samples the volume at A.T @ (kx, ky, 0).
        q = torch.matmul(rotations[:, :2].permute(2, 0, 1), grid)
        sign = 1.0 - 2.0 * (q[0] < 0).to(q.dtype)
        q = q * sign
        low = q.floor()
        fx, fy, fz = q - low
        ix, iy, iz = low.int()
        start = (labels * self._rows + self._origin).int()
        base = (iz * self._wide + iy) * self._half + ix + start[:, None]
        index = base[..., None] + self._steps
        weight = q.new_empty(*index.shape)
        planes = [a * b for a in (1 - fz, fz) for b in (1 - fy, fy)]
        for k, plane in enumerate(planes):
            torch.mul(plane, 1 - fx, out=weight[..., 2 * k])
            torch.mul(plane, fx, out=weight[..., 2 * k + 1])
        ends = torch.arange(0, index.numel() + 1, 8, dtype=torch.int32)
        values = functional.embedding_bag(
            index.flatten(),
            self._table,
            ends,
            per_sample_weights=weight.flatten(),
            mode="sum",
            include_last_offset=True,
        ).view(*sign.shape, 2)
        return torch.stack([values[..., 0], values[..., 1] * sign], dim=1)


def radius_of(density: Tensor, voxel_size: float) -> float:
    """Radius of a particle from its map: that of a ball with the same radius of gyration.

    Parameters
    ----------
    density : Tensor, shape (D, D, D)
    voxel_size : float
        Angstrom.

    Returns
    -------
    float
        Angstrom; at least two voxels. Only density above a fifth of the highest (the mean of the brightest
        thousandth) counts, so that a noisy background does not.
    """
    box = density.shape[-1]
    axis = (torch.arange(box, dtype=torch.float32) - box // 2) * voxel_size
    r2 = axis[:, None, None] ** 2 + axis[None, :, None] ** 2 + axis[None, None, :] ** 2
    inside = r2 < (box // 2 * voxel_size) ** 2
    values, r2 = density[inside], r2[inside]
    top = values.topk(max(1, len(values) // 1000)).values.mean()
    mass = (values - 0.2 * top).clamp_min(0)
    gyration = float((mass * r2).sum() / mass.sum().clamp_min(1e-30)) ** 0.5
    return max(math.sqrt(5 / 3) * gyration, 2 * voxel_size)
