"""Rigid segments with soft borders along the chains (cryoSPHERE).

Generative process: z ~ p(z); every segment s gets a rotation R_s(z) about its own centroid and a translation
t_s(z); residue n moves by the mean over segments with its responsibilities,
r_n = sum_s g_ns (R_s (r0_n - c_s) + c_s + t_s). The responsibilities are learnt, are the same for every
particle, and are not sampled, so one z always decodes to one structure. Ducrocq et al., ICLR 2025.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from cryoscape.models.decoders.base import StructureDecoder
from cryoscape.models.networks import Activation, mlp, shrink_
from cryoscape.physics.rotations import small_rotation


class SegmentsDecoder(StructureDecoder):
    """z -> rigid motion of every segment.

    Parameters
    ----------
    z_dim, reference, weights
        As in `StructureDecoder`.
    chain : Tensor, shape (N,), int64
        Chain of every residue; a segment belongs to one chain.
    n_segments : int
        In all; shared out over the chains by length, at least one each.
    hidden, activation
        The perceptron.
    temperature : float
        Of the softmax over segments; small values give sharp borders.
    """

    position: Tensor
    segment_chain: Tensor
    chain: Tensor

    def __init__(
        self,
        z_dim: int,
        reference: Tensor,
        weights: Tensor,
        chain: Tensor,
        *,
        n_segments: int = 20,
        hidden: Sequence[int] = (512, 512),
        activation: Activation = "leaky_relu",
        temperature: float = 0.05,
    ) -> None:
        super().__init__(z_dim, reference, weights)
        self.temperature = temperature
        lengths = torch.bincount(chain)
        counts = (n_segments * lengths / len(chain)).round().long().clamp_min(1)
        counts = torch.minimum(counts, lengths)
        means, spreads, owners = [], [], []
        start = 0
        for c, (length, count) in enumerate(zip(lengths.tolist(), counts.tolist())):
            means.append(start + (torch.arange(count) + 0.5) * length / count)
            spreads.append(torch.full((count,), length / count))
            owners.append(torch.full((count,), c))
            start += length
        self.register_buffer("position", torch.arange(len(chain)).float() + 0.5)
        self.register_buffer("chain", chain.clone())
        self.register_buffer("segment_chain", torch.cat(owners))
        self.means = nn.Parameter(torch.cat(means))
        self.log_spreads = nn.Parameter(torch.cat(spreads).log())
        self.logits = nn.Parameter(torch.zeros(len(self.means)))
        self.network = mlp(z_dim, hidden, 6 * len(self.means), activation)
        shrink_(cast(nn.Linear, self.network[-1]), 0.1)

    def responsibilities(self) -> Tensor:
        """Share of every segment in every residue, shape (N, S), rows add up to 1.

        A 1-D Gaussian mixture over the position along the chain, sharpened by the temperature.
        """
        apart = (self.position[:, None] - self.means) / self.log_spreads.exp()
        log_density = -0.5 * apart.square() - self.log_spreads + torch.log_softmax(self.logits, 0)
        foreign = self.chain[:, None] != self.segment_chain
        return torch.softmax((log_density / self.temperature).masked_fill(foreign, -torch.inf), dim=1)

    def coordinates(self, z: Tensor) -> Tensor:
        """(B, z_dim) -> (B, N, 3), Angstrom."""
        share = self.responsibilities()
        centroid = (share.T @ self.reference) / share.sum(0).clamp_min(1e-6)[:, None]
        out = self.network(z).view(z.shape[0], -1, 6)
        turn = small_rotation(out[..., :3])
        # sum_s g_ns (R_s (r_n - c_s) + c_s + t_s) = (sum_s g_ns R_s) r_n + sum_s g_ns (c_s + t_s - R_s c_s)
        mixed = torch.einsum("ns,bsij->bnij", share, turn)
        rest = centroid + out[..., 3:] - torch.einsum("bsij,sj->bsi", turn, centroid)
        return torch.einsum("bnij,nj->bni", mixed, self.reference) + torch.matmul(share, rest)
