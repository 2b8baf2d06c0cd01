"""Where a residue scatters from: its centre of electrons, carried along by the chain.

A bead at CA stands for atoms whose centre lies up to 3 A away, towards the side chain. At 4 A resolution
that offset is visible, and a model without it bends its backbone to make up for it. Here the offset is a
fixed vector in the local frame of three consecutive beads, so it turns with the chain and the projection
stays one Gaussian a residue.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ResidueCentroids(nn.Module):
    """Centres of electrons from bead positions.

    With u = r_next - r_prev, v = 2 r - r_prev - r_next and n = u x v / |u x v at the reference|, the centre
    is c = r + a u + b v + d n. The coefficients make it exact at the reference, and then it is exact under
    any rigid motion of the three beads.

    Parameters
    ----------
    reference : Tensor, shape (N, 3)
        Beads, Angstrom.
    centres : Tensor, shape (N, 3)
        Centre of electrons of every residue in the same frame.
    bonded : Tensor, shape (N - 1,), bool
        Whether residue i is bonded to i + 1. A residue in the middle of no three bonded ones borrows the
        frame of its neighbour; one in a piece of fewer than three keeps its offset in space.
    """

    triplet: Tensor
    coefficients: Tensor
    fixed: Tensor
    scale: Tensor

    def __init__(self, reference: Tensor, centres: Tensor, bonded: Tensor) -> None:
        super().__init__()
        n = len(reference)
        middle = torch.zeros(n, dtype=torch.bool)
        if n >= 3:
            middle[1:-1] = bonded[:-1] & bonded[1:]
        index = torch.arange(n)
        before = torch.cat([torch.zeros(1, dtype=torch.bool), bonded])
        after = torch.cat([bonded, torch.zeros(1, dtype=torch.bool)])
        left = torch.roll(middle, 1) & before
        right = torch.roll(middle, -1) & after
        centre = torch.where(middle, index, torch.where(right, index + 1, torch.where(left, index - 1, -1)))
        framed = centre >= 0
        centre = centre.clamp(1, max(n - 2, 1)) if n >= 3 else torch.zeros_like(centre)
        self.register_buffer("triplet", torch.stack([centre - 1, centre, centre + 1]).clamp(0, n - 1))
        offset = (centres - reference).double()
        u, v = _edges(reference.double()[None], self.triplet)
        normal = torch.linalg.cross(u, v)[0]
        length = normal.norm(dim=-1)
        # Three beads in a line have no normal: such an offset cannot turn, and stays as it is.
        framed &= length > 1.0
        scale = torch.where(framed, 1.0 / length.clamp_min(1e-6), torch.zeros_like(length))
        frame = torch.stack([u[0], v[0], normal * scale[:, None]], dim=-1)
        frame = torch.where(framed[:, None, None], frame, torch.eye(3, dtype=frame.dtype))
        solved = torch.linalg.solve(frame, offset[..., None])[..., 0]
        self.register_buffer("scale", scale.float())
        self.register_buffer("coefficients", torch.where(framed[:, None], solved, 0.0).float())
        self.register_buffer("fixed", torch.where(framed[:, None], 0.0, offset).float())

    def forward(self, coords: Tensor) -> Tensor:
        """Beads (B, N, 3) to centres (B, N, 3), Angstrom."""
        u, v = _edges(coords, self.triplet)
        normal = torch.linalg.cross(u, v) * self.scale[:, None]
        a, b, d = self.coefficients.unbind(-1)
        return coords + self.fixed + a[:, None] * u + b[:, None] * v + d[:, None] * normal


def _edges(coords: Tensor, triplet: Tensor) -> tuple[Tensor, Tensor]:
    previous, here, following = (coords.index_select(1, i) for i in triplet)
    return following - previous, 2 * here - previous - following
