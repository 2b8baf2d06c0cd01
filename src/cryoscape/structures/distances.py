"""Distances of many pairs of residues in a batch of structures, with their gradient."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

# Floats of the difference vectors that are alive at one time (two such buffers of 1 MB): large enough
# that the small case is one piece, small enough that a spliceosome does not fill the memory.
_CHUNK = 2**18
# Below this distance (Angstrom) the direction of a pair is not defined and its gradient is set to zero.
_TINY = 1e-6


def _pieces(n_pairs: int, batch: int) -> list[slice]:
    step = max(1, _CHUNK // (3 * max(batch, 1)))
    return [slice(a, min(a + step, n_pairs)) for a in range(0, n_pairs, step)]


class _PairDistances(torch.autograd.Function):
    """|x_i - x_j| for coordinates laid out as (N, 3 B): one residue a row, so that rows move whole.

    Only the distances are kept for the gradient; the difference vectors are formed again, which costs
    less than storing three times as much. Measured with the gradient, on one thread, for 64 structures
    and 2,706 pairs: about 4 times faster than indexing (B, N, 3).
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, i: Tensor, j: Tensor) -> Tensor:
        batch = rows.shape[1] // 3
        d = rows.new_empty(len(i), batch)
        for piece in _pieces(len(i), batch):
            x, y, z = _differences(rows, i[piece], j[piece]).view(-1, 3, batch).unbind(1)
            torch.mul(x, x, out=d[piece]).addcmul_(y, y).addcmul_(z, z).sqrt_()
        ctx.save_for_backward(rows, i, j, d)
        return d

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        rows, i, j, d = ctx.saved_tensors
        batch = d.shape[1]
        out = torch.zeros_like(rows)
        for piece in _pieces(len(i), batch):
            pull = _differences(rows, i[piece], j[piece])
            scale = grad[piece] / d[piece].clamp(min=_TINY)
            pull.view(-1, 3, batch).mul_(scale[:, None])
            out.index_add_(0, i[piece], pull)
            out.index_add_(0, j[piece], pull, alpha=-1)
        return out, None, None


def _differences(rows: Tensor, i: Tensor, j: Tensor) -> Tensor:
    return torch.index_select(rows, 0, i).sub_(torch.index_select(rows, 0, j))


def pair_distances(coords: Tensor, pairs: Tensor) -> Tensor:
    """Distances of pairs of residues in every structure of a batch.

    Differentiable once with respect to `coords`; the gradient of a pair of coincident residues is zero.
    Memory: 4 B E bytes for the result and as much for its gradient, plus a few MB.

    Parameters
    ----------
    coords : Tensor, shape (B, N, 3)
        Angstrom.
    pairs : Tensor, shape (E, 2), int64
        Rows of residues.

    Returns
    -------
    Tensor, shape (B, E)
        Angstrom. Edges are the slow axis in memory.
    """
    batch, n = coords.shape[:2]
    rows = coords.permute(1, 2, 0).reshape(n, 3 * batch)
    i, j = pairs.unbind(1)
    return _PairDistances.apply(rows.contiguous(), i.contiguous(), j.contiguous()).t()
