"""Where a structure scatters from: points carried along by the chain of beads.

A bead at CA stands for atoms that lie up to several Angstrom away. Here every residue has a few points, fixed
in the local frame of three consecutive beads, so they turn with the chain, and each is one Gaussian of the
projection.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Scatterers(nn.Module):
    """Points from bead positions.

    With u = r_next - r_prev, v = 2 r - r_prev - r_next and n = u x v / |u x v at the reference|, a point of
    the residue lies at r + a u + b v + d n. The coefficients make it exact at the reference, and then it is
    exact under any rigid motion of the three beads.

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
    coefficients: Tensor
    fixed: Tensor
    scale: Tensor

    def __init__(
        self, reference: Tensor, points: Tensor, weights: Tensor, residue: Tensor, bonded: Tensor
    ) -> None:
        super().__init__()
        self.register_buffer("residue", residue.clone())
        self.register_buffer("weights", (weights / weights.sum()).float())
        centre, framed = _frame_centres(len(reference), bonded)
        self.register_buffer("triplet", torch.stack([centre - 1, centre, centre + 1]))
        reference, points = reference.double(), points.double()
        u, v = _edges(reference[None], self.triplet)
        normal = torch.linalg.cross(u, v)[0]
        length = normal.norm(dim=-1)
        # Three beads in a line have no normal: such offsets cannot turn, and stay as they are.
        framed &= length > 1.0
        scale = torch.where(framed, 1.0 / length.clamp_min(1e-6), 0.0)
        frame = torch.stack([u[0], v[0], normal * scale[:, None]], dim=-1)
        frame = torch.where(framed[:, None, None], frame, torch.eye(3, dtype=frame.dtype))
        offset = points - reference[residue]
        solved = torch.linalg.solve(frame[residue], offset[..., None])[..., 0]
        turning = framed[residue][:, None]
        self.register_buffer("scale", scale.float())
        self.register_buffer("coefficients", torch.where(turning, solved, 0.0).float())
        self.register_buffer("fixed", torch.where(turning, 0.0, offset).float())

    def __len__(self) -> int:
        return len(self.weights)

    def forward(self, coords: Tensor) -> Tensor:
        """Beads (B, N, 3) to scattering points (B, P, 3), Angstrom."""
        u, v = _edges(coords, self.triplet)
        normal = torch.linalg.cross(u, v) * self.scale[:, None]
        frame = torch.stack([coords, u, v, normal], dim=2).index_select(1, self.residue)
        a, b, d = self.coefficients.unbind(-1)
        factors = torch.stack([torch.ones_like(a), a, b, d], dim=-1)
        return (frame * factors[..., None]).sum(2) + self.fixed

    def per_residue(self, values: Tensor, n_residues: int) -> Tensor:
        """Sum (B, P, C) values of the points over the residues, (B, N, C)."""
        out = values.new_zeros(values.shape[0], n_residues, values.shape[2])
        return out.index_add_(1, self.residue, values)


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
        self.register_buffer("weights", (weights / weights.sum()).float())

    def __len__(self) -> int:
        return len(self.weights)

    def forward(self, coords: Tensor) -> Tensor:
        """Beads (B, N, 3), as they are."""
        return coords

    def per_residue(self, values: Tensor, n_residues: int) -> Tensor:
        """(B, N, C), as they are."""
        return values


def _frame_centres(n: int, bonded: Tensor) -> tuple[Tensor, Tensor]:
    """Middle bead of the frame of every residue, and whether it has one at all."""
    if n < 3:
        return torch.zeros(n, dtype=torch.long) + 1, torch.zeros(n, dtype=torch.bool)
    middle = torch.zeros(n, dtype=torch.bool)
    middle[1:-1] = bonded[:-1] & bonded[1:]
    index, no = torch.arange(n), torch.zeros(1, dtype=torch.bool)
    from_right = torch.cat([bonded & middle[1:], no])
    from_left = torch.cat([no, bonded & middle[:-1]])
    centre = torch.where(middle, index, torch.where(from_right, index + 1, index - 1))
    return centre.clamp(1, n - 2), middle | from_right | from_left


def _edges(coords: Tensor, triplet: Tensor) -> tuple[Tensor, Tensor]:
    previous, here, following = (coords.index_select(1, i) for i in triplet.clamp_max(coords.shape[1] - 1))
    return following - previous, 2 * here - previous - following
