"""Central slices of many Fourier-voxel volumes at once: a trilinear gather and its transpose.

A set of C real channels (real and imaginary parts of a basis of volumes) is kept as a table with one *row* a
Fourier voxel. A slice then is a sparse matrix of trilinear weights, eight a line, times that table. The grid
of rows is centred and one wider than the box in y and z, so that no neighbour of a frequency inside the band
lies across a border: positions need no remainders, which would cost more than the products.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_matrix
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from cryoscape.physics.slices import half_plane


def rows_shape(box: int) -> tuple[int, int, int]:
    """Grid of the rows: (kz, ky, kx) with kz, ky from -box/2 to box/2 and kx from 0 to box/2."""
    return box + 1, box + 1, box // 2 + 1


def to_rows(transform: Tensor) -> Tensor:
    """Transforms of volumes as rows.

    Parameters
    ----------
    transform : Tensor, shape (..., M, M, M // 2 + 1)
        Complex, layout of `slices.transform_volume`, M even.

    Returns
    -------
    Tensor, shape (..., (M + 1)**2 * (M // 2 + 1), 2)
        Real and imaginary parts; the planes at -M/2 and M/2 are the same.
    """
    box = transform.shape[-2]
    place = torch.arange(-(box // 2), box // 2 + 1, device=transform.device) % box
    centred = transform.index_select(-3, place).index_select(-2, place)
    return torch.view_as_real(centred.resolve_conj()).flatten(-4, -2)


def from_rows(rows: Tensor, box: int) -> Tensor:
    """Inverse of `to_rows`.

    Parameters
    ----------
    rows : Tensor, shape (..., (box + 1)**2 * (box // 2 + 1), 2)
    box : int

    Returns
    -------
    Tensor, shape (..., box, box, box // 2 + 1)
        Complex.
    """
    centred = torch.view_as_complex(rows.contiguous()).unflatten(-1, rows_shape(box))
    place = (torch.arange(box, device=rows.device) + box // 2) % box
    return centred.index_select(-3, place).index_select(-2, place)


class _Gather(torch.autograd.Function):
    """Weights (P, 8) at rows `index` (P, 8) times a table (R, C)."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, weight: Tensor, index: Tensor) -> Tensor:
        ctx.save_for_backward(table, weight, index)
        ends = torch.arange(0, index.numel() + 1, 8, dtype=index.dtype, device=index.device)
        return functional.embedding_bag(
            index.flatten(),
            table,
            ends,
            per_sample_weights=weight.flatten(),
            mode="sum",
            include_last_offset=True,
        )

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        table, weight, index = ctx.saved_tensors
        to_table = to_weight = None
        if ctx.needs_input_grad[0]:
            to_table = spread(grad, weight, index, len(table))
        if ctx.needs_input_grad[1]:
            parts = zip(grad.split(8192), index.split(8192))
            to_weight = torch.cat([torch.einsum("pc,pkc->pk", g, table[i.long()]) for g, i in parts])
        return to_table, to_weight, None


def spread(values: Tensor, weight: Tensor, index: Tensor, n_rows: int) -> Tensor:
    """Transpose of the gather: values (P, C) added to the rows they are interpolated from.

    Parameters
    ----------
    values : Tensor, shape (P, C)
    weight : Tensor, shape (P, 8)
    index : Tensor, shape (P, 8), int32
    n_rows : int

    Returns
    -------
    Tensor, shape (n_rows, C)
    """
    if values.device.type != "cpu":
        out = values.new_zeros(n_rows, values.shape[1])
        for k in range(8):
            out.index_add_(0, index[:, k].long(), values * weight[:, k : k + 1])
        return out
    # Adding rows one at a time takes index_add_ ten times as long as this product does.
    ends = np.arange(0, 8 * len(values) + 1, 8, dtype=np.int32)
    matrix = csr_matrix(
        (weight.numpy().reshape(-1), index.numpy().reshape(-1), ends), shape=(len(values), n_rows)
    )
    return torch.from_numpy(matrix.T @ values.contiguous().numpy())


class SliceSampler:
    """Values of Fourier-voxel volumes at the coefficients of images, inside a band.

    Parameters
    ----------
    box : int
        Even side of images and volumes.
    band : int, optional
        Largest shell, inclusive; default and at most the last whole one, box / 2 - 1.
    device
        Of the result.

    Attributes
    ----------
    index : Tensor, shape (P,), int64
        Position of each coefficient in the flattened half-plane (box, box // 2 + 1).
    radius : Tensor, shape (P,)
        Its distance from the centre, in shells.
    """

    def __init__(
        self, box: int, band: int | None = None, *, device: torch.device | str | None = None
    ) -> None:
        self.box = box
        index, frequency = half_plane(box, device=device)
        radius = frequency.square().sum(-1).sqrt()
        inside = radius <= (box // 2 - 1 if band is None else min(band, box // 2 - 1)) + 0.5
        self.index = index[inside]
        self.radius = radius[inside]
        self._frequency = frequency[inside].T.contiguous()
        high, wide, half = rows_shape(box)
        self.n_rows = high * wide * half
        self._origin = ((box // 2) * wide + box // 2) * half
        steps = [z * wide * half + y * half + x for z in (0, 1) for y in (0, 1) for x in (0, 1)]
        self._steps = torch.tensor(steps, dtype=torch.int32, device=device)

    def to(self, device: torch.device | str) -> SliceSampler:
        """Move to a device, in place."""
        for name in ("index", "radius", "_frequency", "_steps"):
            setattr(self, name, getattr(self, name).to(device))
        return self

    def independent(self) -> Tensor:
        """Which coefficients to evaluate so that each conjugate pair of column kx = 0 is evaluated once."""
        kx, ky = self._frequency
        return ((kx > 0) | (ky >= 0)).nonzero()[:, 0]

    def restricted(self, chosen: Tensor) -> SliceSampler:
        """The sampler of some of the coefficients, given by their places in `index`."""
        other = copy.copy(self)
        other.index, other.radius = self.index[chosen], self.radius[chosen]
        other._frequency = self._frequency[:, chosen]
        return other

    def frequencies(self, rotations: Tensor) -> Tensor:
        """Where a volume is sampled, (B, 3, 3) -> (3, B, P): (x, y, z) in units of 1 / box side."""
        # An image frequency (kx, ky) samples the volume at A.T @ (kx, ky, 0).
        return torch.matmul(rotations[:, :2].permute(2, 0, 1), self._frequency)

    def corners(self, rotations: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Where the coefficients of images lie among the rows.

        Parameters
        ----------
        rotations : Tensor, shape (B, 3, 3)
            From model to view.

        Returns
        -------
        index : Tensor, shape (B, P, 8), int32
        weight : Tensor, shape (B, P, 8)
            Trilinear; differentiable in the rotations.
        sign : Tensor, shape (B, P)
            -1 where the rows hold the Friedel mate, so that the imaginary part changes sign.
        """
        _, wide, half = rows_shape(self.box)
        q = self.frequencies(rotations)
        sign = 1.0 - 2.0 * (q[0].detach() < 0).to(q.dtype)
        x, y, z = q * sign
        low = [axis.detach().floor() for axis in (x, y, z)]
        fx, fy, fz = (axis - floor for axis, floor in zip((x, y, z), low))
        ix, iy, iz = (floor.int() for floor in low)
        base = (iz * wide + iy) * half + ix + self._origin
        index = base[..., None] + self._steps
        gx, gy, gz = 1 - fx, 1 - fy, 1 - fz
        planes = [a * b for a in (gz, fz) for b in (gy, fy)]
        if q.requires_grad:
            weight = torch.stack([p * x_part for p in planes for x_part in (gx, fx)], dim=-1)
        else:
            weight = q.new_empty(*index.shape)
            for k, plane in enumerate(planes):
                torch.mul(plane, gx, out=weight[..., 2 * k])
                torch.mul(plane, fx, out=weight[..., 2 * k + 1])
        return index, weight, sign

    def gather(self, table: Tensor, rotations: Tensor) -> tuple[Tensor, Tensor]:
        """Slices of volumes as the rows hold them: `sample` without the sign of the imaginary parts.

        Returns
        -------
        values : Tensor, shape (B, P, 2, J)
        sign : Tensor, shape (B, P)
            What imaginary parts are to be multiplied by.
        """
        index, weight, sign = self.corners(rotations)
        flat = _Gather.apply(table.flatten(1), weight.reshape(-1, 8), index.reshape(-1, 8))
        return flat.view(*sign.shape, 2, table.shape[-1]), sign

    def sample(self, table: Tensor, rotations: Tensor) -> Tensor:
        """Slices of volumes.

        Parameters
        ----------
        table : Tensor, shape (R, 2, J)
            Rows of J volumes: all real parts, then all imaginary parts. Differentiable.
        rotations : Tensor, shape (B, 3, 3)
            Differentiable.

        Returns
        -------
        Tensor, shape (B, P, 2, J)
            Real and imaginary parts at `index`.
        """
        values, sign = self.gather(table, rotations)
        return values * torch.stack([torch.ones_like(sign), sign], dim=-1)[..., None]

    def image(self, values: Tensor) -> Tensor:
        """Values (B, P, 2) put at their places in images (B, box, box // 2 + 1), complex, 0 elsewhere."""
        out = values.new_zeros(len(values), self.box * (self.box // 2 + 1), 2)
        out = out.index_copy(1, self.index, values)
        return torch.view_as_complex(out).view(len(values), self.box, self.box // 2 + 1)
