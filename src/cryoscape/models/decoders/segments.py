"""Rigid segments with soft borders along the chains (cryoSPHERE).

Generative process: z ~ p(z); every segment s gets a rotation R_s(z) about its own centroid c_s and a
translation t_s(z); residue n moves by the mean over segments with its shares,
r_n = sum_s g_ns (R_s (r0_n - c_s) + c_s + t_s). The shares are learnt, are the same for every particle, and
are not sampled, so one z always decodes to one structure. Ducrocq et al., ICLR 2025.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from torch import Tensor, nn

from cryoscape.models.decoders.base import StructureDecoder
from cryoscape.models.networks import Activation, mlp, shrink_
from cryoscape.models.scattering import BeadScatterers, Scatterers
from cryoscape.structures import segments
from cryoscape.structures.segments import Segments


class SegmentsDecoder(StructureDecoder):
    """z -> rigid motion of every segment.

    Parameters
    ----------
    z_dim, reference, scatterers
        As in `StructureDecoder`.
    division : Segments
        Where the segments start from.
    hidden, activation
        The perceptron.
    temperature : float
        Of the softmax over segments; small values give sharp borders.
    """

    position: Tensor
    chain: Tensor
    segment_chain: Tensor

    def __init__(
        self,
        z_dim: int,
        reference: Tensor,
        scatterers: Scatterers | BeadScatterers,
        division: Segments,
        *,
        hidden: Sequence[int] = (512, 512),
        activation: Activation = "leaky_relu",
        temperature: float = segments.TAU,
    ) -> None:
        super().__init__(z_dim, reference, scatterers)
        self.temperature = temperature
        self.register_buffer("position", division.position.clone())
        self.register_buffer("chain", division.chain.clone())
        self.register_buffer("segment_chain", division.segment_chain.clone())
        self.means = nn.Parameter(division.means.clone())
        self.log_stds = nn.Parameter(division.stds.log())
        self.logits = nn.Parameter(division.logits.clone())
        self.network = mlp(z_dim, hidden, 6 * len(self.means), activation)
        shrink_(cast(nn.Linear, self.network[-1]), 0.1)

    def shares(self) -> Tensor:
        """Share of every segment in every residue, shape (N, S), rows add up to 1."""
        return segments.responsibilities(
            self.position,
            self.chain,
            self.segment_chain,
            self.means,
            self.log_stds.exp(),
            self.logits,
            self.temperature,
        )

    def coordinates(self, z: Tensor) -> Tensor:
        """(B, z_dim) -> (B, N, 3), Angstrom."""
        shares = self.shares()
        centroids = segments.segment_centroids(self.reference, shares)
        out = self.network(z).view(len(z), len(self.means), 6)
        turns = segments.rotations_from_imaginary(out[..., :3])
        return segments.apply_rigid(self.reference, shares, centroids, turns, out[..., 3:])
