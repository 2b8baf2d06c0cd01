"""The atomic decoder of cryoSTAR: every residue of a reference is displaced.

Generative process: z ~ p(z); r_n = r0_n + f_n(z); V = sum_n w_n delta(r_n), blurred by the likelihood's
radial gain. Li et al., Nature Methods 2024. Where chains may be absent, w_n is their weight times the
occupancy of their chain: an output of the network (`free`), or a bit of z (`tied`), so that the spins of a
Boltzmann prior are subunits, and its couplings their cooperativity.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, cast

import torch
from torch import Tensor, nn

from cryoscape.errors import InputError
from cryoscape.models.decoders.base import AtomicScene, StructureDecoder
from cryoscape.models.networks import Activation, mlp, shrink_
from cryoscape.models.occupancy import Chains
from cryoscape.models.scattering import BeadScatterers, Scatterers

Occupancy = Literal["none", "free", "tied"]

NEARLY_PRESENT = 3.0
"""Log odds of the presence of a chain at the start of training, where it is free: 0.95."""


class AtomicDecoder(StructureDecoder):
    """z -> displacement of every residue, by a perceptron, and the occupancy of chains.

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
    occupancy : {"none", "free", "tied"}
        All chains are always there; or all but the largest have an occupancy that the network gives, near 1
        at the start; or that is the k-th coordinate of z for the k-th of them, as of bits or relaxed bits.
    chain : Tensor, shape (N,), int64, optional
        Number of the chain of each residue; needed for occupancies.
    displace : bool
        Whether residues move. If not, the structure is the reference with chains absent.

    Raises
    ------
    InputError
        If there is only one chain to have an occupancy, z has too few coordinates to tie, or nothing is left
        that depends on z.
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
        occupancy: Occupancy = "none",
        chain: Tensor | None = None,
        displace: bool = True,
    ) -> None:
        super().__init__(z_dim, reference, scatterers, _chains(occupancy, chain, scatterers, z_dim))
        self.occupancy_kind: Occupancy = occupancy
        self.scale = scale
        self._moved = 3 * len(reference) if displace else 0
        n_out = self._moved + (self._optional if occupancy == "free" else 0)
        if not n_out and occupancy == "none":
            raise InputError(
                "neither positions nor occupancies depend on z",
                remedy="Let residues move, or set occupancy to free or tied.",
            )
        self.network = mlp(z_dim, hidden, n_out, activation) if n_out else None
        if self.network is not None:
            shrink_(cast(nn.Linear, self.network[-1]), initial)

    def coordinates(self, z: Tensor) -> Tensor:
        """(B, z_dim) -> (B, N, 3), Angstrom."""
        return self._displaced(self._answer(z)).expand(len(z), -1, -1)

    def occupancy(self, z: Tensor) -> Tensor | None:
        """Share of every chain that is there, (B, z_dim) -> (B, chains); None where all always are."""
        return self._present(z, self._answer(z) if self.occupancy_kind == "free" else None)

    def forward(self, z: Tensor) -> AtomicScene:
        """Decode a batch of latents to conformations; where nothing moves, to one with many occupancies."""
        answer = self._answer(z)
        return self.scene(self._displaced(answer), self._present(z, answer))

    @property
    def _optional(self) -> int:
        """How many chains may be absent."""
        return 0 if self.chains is None else len(self.chains.optional)

    def _answer(self, z: Tensor) -> Tensor | None:
        """What the network gives, (B, n_out), if there is one."""
        return None if self.network is None else self.network(z)

    def _displaced(self, answer: Tensor | None) -> Tensor:
        """Positions (B, N, 3), or those of the reference (1, N, 3)."""
        if answer is None or not self._moved:
            return self.reference[None]
        moved = answer[:, : self._moved].view(len(answer), len(self.reference), 3)
        return self.reference + self.scale * moved

    def _present(self, z: Tensor, answer: Tensor | None) -> Tensor | None:
        """Occupancies (B, chains) from z and what the network gave."""
        if self.chains is None:
            return None
        if self.occupancy_kind == "tied":
            return self.chains.complete(z[:, : self._optional])
        assert answer is not None
        return self.chains.complete(torch.sigmoid(answer[:, self._moved :] + NEARLY_PRESENT))


def _chains(
    occupancy: Occupancy, chain: Tensor | None, scatterers: Scatterers | BeadScatterers, z_dim: int
) -> Chains | None:
    if occupancy == "none":
        return None
    if chain is None:
        raise ValueError("occupancies need the chain of each residue")
    chains = Chains(chain, scatterers)
    if occupancy == "tied" and z_dim < len(chains.optional):
        raise InputError(
            f"z has {z_dim} coordinates, and {len(chains.optional)} chains may be absent",
            remedy=f"Set --z-dim {len(chains.optional)} or more.",
        )
    return chains
