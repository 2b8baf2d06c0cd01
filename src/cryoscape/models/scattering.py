"""Where a structure scatters from: points carried along by the chain of beads.

A bead at CA stands for atoms that lie up to several Angstrom away. Here every residue has a few points, fixed
in the local frame of three consecutive beads, so they turn with the chain, and each is one Gaussian of the
projection.
"""

from __future__ import annotations

import copy
import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class _SparseProduct(torch.autograd.Function):
    """M @ x for a constant sparse matrix, with its transpose at hand for the gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, matrix: Tensor, transposed: Tensor) -> Tensor:
        ctx.transposed = transposed
        return torch.sparse.mm(matrix, x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return torch.sparse.mm(ctx.transposed, grad.contiguous()), None, None


class Scatterers(nn.Module):
    """Points from bead positions.

    With u = r_next - r_prev, v = 2 r - r_prev - r_next and n = u x v / |u x v at the reference|, a point of
    the residue lies at r + a u + b v + d n. The coefficients make it exact at the reference, and then it is
    exact under any rigid motion of the three beads. All but n is linear in the beads, so the whole map is
    one sparse product with beads and normals.

    Parameters
    ----------
    reference : Tensor, shape (N, 3)
        Beads, Angstrom.
    points : Tensor, shape (P, 3)
        In the same frame.
    weights : Tensor, shape (P,)
        Electrons.
    residue : Tensor, shape (P,), int64
        Residue of every point.
    bonded : Tensor, shape (N - 1,), bool
        Whether residue i is bonded to i + 1. A residue that is not the middle of three bonded ones borrows
        the frame of its neighbour; one in a piece of fewer than three keeps its offsets in space.
    """

    triplet: Tensor
    residue: Tensor
    weights: Tensor
    fixed: Tensor
    scale: Tensor
    matrix: Tensor
    transposed: Tensor

    def __init__(
        self, reference: Tensor, points: Tensor, weights: Tensor, residue: Tensor, bonded: Tensor
    ) -> None:
        super().__init__()
        n = len(reference)
        centre, framed = _frame_centres(n, bonded)
        triplet = torch.stack([centre - 1, centre, centre + 1]).clamp_max(n - 1)
        reference, points = reference.double(), points.double()
        u, v = _edges(reference[:, None], triplet)
        normal = torch.linalg.cross(u, v)[:, 0]
        length = normal.norm(dim=-1)
        # Three beads in a line have no normal: such offsets cannot turn, and stay as they are.
        framed &= length > 1.0
        scale = torch.where(framed, 1.0 / length.clamp_min(1e-6), 0.0)
        frame = torch.stack([u[:, 0], v[:, 0], normal * scale[:, None]], dim=-1)
        frame = torch.where(framed[:, None, None], frame, torch.eye(3, dtype=frame.dtype))
        offset = points - reference[residue]
        turning = framed[residue][:, None]
        solved = torch.linalg.solve(frame[residue], offset[..., None])[..., 0]
        coefficients = torch.where(turning, solved, 0.0)
        self.register_buffer("residue", residue.clone(), persistent=False)
        self.register_buffer("weights", (weights / weights.sum()).float(), persistent=False)
        self.register_buffer("triplet", triplet, persistent=False)
        self.register_buffer("scale", scale.float(), persistent=False)
        self.register_buffer("fixed", torch.where(turning, 0.0, offset).float(), persistent=False)
        matrix = _point_matrix(triplet, residue, coefficients)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
            self.register_buffer("matrix", matrix.to_sparse_csr(), persistent=False)
            self.register_buffer("transposed", matrix.t().coalesce().to_sparse_csr(), persistent=False)

    def __len__(self) -> int:
        return len(self.weights)

    def __deepcopy__(self, memo: dict[int, Any]) -> Scatterers:
        """A module of its own on the same tensors: none is ever written to, sparse ones cannot be copied."""
        twin = copy.copy(self)
        twin._buffers = dict(self._buffers)
        memo[id(self)] = twin
        return twin

    def forward(self, coords: Tensor) -> Tensor:
        """Beads (B, N, 3) to scattering points (B, P, 3), Angstrom."""
        # One residue a row, so that whole rows are gathered and multiplied.
        rows = coords.transpose(0, 1).contiguous()
        u, v = _edges(rows, self.triplet)
        normal = torch.linalg.cross(u, v) * self.scale[:, None, None]
        stacked = torch.cat([rows, normal]).flatten(1)
        points = _SparseProduct.apply(stacked, self.matrix, self.transposed).unflatten(1, (-1, 3))
        return points.transpose(0, 1) + self.fixed

    def per_residue(self, values: Tensor, n_residues: int) -> Tensor:
        """Sum (B, P, C) values of the points over the residues, (B, N, C)."""
        out = values.new_zeros(values.shape[0], n_residues, values.shape[2])
        return out.index_add_(1, self.residue, values)

    def per_point(self, values: Tensor) -> Tensor:
        """What every residue (N,) has, for its points (P,)."""
        return values[self.residue.to(values.device)]


def _point_matrix(triplet: Tensor, residue: Tensor, coefficients: Tensor) -> Tensor:
    """Sparse (P, 2 N): what beads (first N columns) and normals (last N) give to every point."""
    a, b, d = coefficients.unbind(-1)
    previous, here, following = (row[residue] for row in triplet)
    n = triplet.shape[1]
    columns = torch.stack([residue, previous, here, following, residue + n])
    values = torch.stack([torch.ones_like(a), -a - b, 2 * b, a - b, d])
    rows = torch.arange(len(residue)).expand(5, -1)
    index = torch.stack([rows.flatten(), columns.flatten()])
    entries = values.flatten().float()
    size = (len(residue), 2 * n)
    return torch.sparse_coo_tensor(index, entries, size, check_invariants=False).coalesce()


class BeadScatterers(nn.Module):
    """The beads themselves scatter: cryoSTAR's model.

    Parameters
    ----------
    weights : Tensor, shape (N,)
        Electrons.
    """

    weights: Tensor

    def __init__(self, weights: Tensor) -> None:
        super().__init__()
        self.register_buffer("weights", (weights / weights.sum()).float(), persistent=False)

    def __len__(self) -> int:
        return len(self.weights)

    def forward(self, coords: Tensor) -> Tensor:
        """Beads (B, N, 3), as they are."""
        return coords

    def per_residue(self, values: Tensor, n_residues: int) -> Tensor:
        """(B, N, C), as they are."""
        return values

    def per_point(self, values: Tensor) -> Tensor:
        """(N,), as they are."""
        return values


def _frame_centres(n: int, bonded: Tensor) -> tuple[Tensor, Tensor]:
    """Middle bead of the frame of every residue, and whether it has one at all."""
    if n < 3:
        return torch.ones(n, dtype=torch.long), torch.zeros(n, dtype=torch.bool)
    middle = torch.zeros(n, dtype=torch.bool)
    middle[1:-1] = bonded[:-1] & bonded[1:]
    index, no = torch.arange(n), torch.zeros(1, dtype=torch.bool)
    from_right = torch.cat([bonded & middle[1:], no])
    from_left = torch.cat([no, bonded & middle[:-1]])
    centre = torch.where(middle, index, torch.where(from_right, index + 1, index - 1))
    return centre.clamp(1, n - 2), middle | from_right | from_left


def _edges(rows: Tensor, triplet: Tensor) -> tuple[Tensor, Tensor]:
    """Edge vectors u and v of every residue from beads (N, B, 3)."""
    previous, here, following = (rows.index_select(0, i) for i in triplet)
    return following - previous, 2 * here - previous - following
