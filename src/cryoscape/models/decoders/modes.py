"""The normal-mode decoder (cryoSTAR's NMA baseline): amplitudes of elastic modes and a rigid correction.

Generative process: z ~ p(z); (a, w, t) = f(z); r = R(w) (r0 + sum_k a_k u_k) + t, about the centroid.
Nashed et al. 2022; Li et al. 2024, section 3.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from cryoscape.models.decoders.base import StructureDecoder
from cryoscape.models.networks import Activation, mlp, shrink_
from cryoscape.models.scattering import BeadScatterers, Scatterers
from cryoscape.physics.rotations import small_rotation


class ModesDecoder(StructureDecoder):
    """z -> amplitudes of normal modes, and a rotation and translation of the whole.

    Parameters
    ----------
    z_dim, reference, scatterers
        As in `StructureDecoder`.
    modes : Tensor, shape (K, N, 3)
        Orthonormal displacement patterns.
    hidden, activation
        The perceptron.
    rigid : bool
        Whether the rigid-body correction is predicted.
    """

    modes: Tensor

    def __init__(
        self,
        z_dim: int,
        reference: Tensor,
        scatterers: Scatterers | BeadScatterers,
        modes: Tensor,
        *,
        hidden: Sequence[int] = (32, 64, 128, 256, 512),
        activation: Activation = "relu",
        rigid: bool = True,
    ) -> None:
        super().__init__(z_dim, reference, scatterers)
        # Unit amplitude = 1 A root mean square over the residues, so that amplitudes read in Angstrom.
        scaled = modes.float() * modes.shape[1] ** 0.5
        self.register_buffer("modes", scaled)
        self.rigid = rigid
        self.network = mlp(z_dim, hidden, len(modes) + (6 if rigid else 0), activation)
        shrink_(cast(nn.Linear, self.network[-1]), 0.1)

    def coordinates(self, z: Tensor) -> Tensor:
        """(B, z_dim) -> (B, N, 3), Angstrom."""
        out = self.network(z)
        n_modes = len(self.modes)
        moved = self.reference + torch.einsum("bk,kni->bni", out[:, :n_modes], self.modes)
        if not self.rigid:
            return moved
        centre = self.reference.mean(0)
        turn = small_rotation(0.1 * out[:, n_modes : n_modes + 3])
        return torch.matmul(moved - centre, turn.transpose(1, 2)) + centre + out[:, None, n_modes + 3 :]
