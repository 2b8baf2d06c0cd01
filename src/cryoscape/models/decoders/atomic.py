"""The atomic decoder of cryoSTAR: every residue of a reference is displaced.

Generative process: z ~ p(z); r_n = r0_n + f_n(z); V = sum_n w_n delta(r_n), blurred by the likelihood's
radial gain. Li et al., Nature Methods 2024.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from torch import Tensor, nn

from cryoscape.models.decoders.base import StructureDecoder
from cryoscape.models.networks import Activation, mlp, shrink_
from cryoscape.models.scattering import BeadScatterers, Scatterers


class AtomicDecoder(StructureDecoder):
    """z -> displacement of every residue, by a perceptron.

    Parameters
    ----------
    z_dim : int
        Dimension of z.
    reference : Tensor, shape (N, 3)
        World frame, Angstrom.
    scatterers : Scatterers or BeadScatterers
        Where the residues scatter from.
    hidden : sequence of int
        Widths of the hidden layers.
    activation : str
        Of the hidden layers.
    scale : float
        Angstrom per unit of the network's output.
    initial : float
        Factor on the last layer's weights at the start; small, so that training starts at the reference.
    """

    def __init__(
        self,
        z_dim: int,
        reference: Tensor,
        scatterers: Scatterers | BeadScatterers,
        *,
        hidden: Sequence[int] = (32, 64, 128, 256, 512),
        activation: Activation = "relu",
        scale: float = 1.0,
        initial: float = 0.1,
    ) -> None:
        super().__init__(z_dim, reference, scatterers)
        self.network = mlp(z_dim, hidden, 3 * len(reference), activation)
        self.scale = scale
        shrink_(cast(nn.Linear, self.network[-1]), initial)

    def coordinates(self, z: Tensor) -> Tensor:
        """(B, z_dim) -> (B, N, 3), Angstrom."""
        moved = self.network(z).view(len(z), len(self.reference), 3)
        return self.reference + self.scale * moved
