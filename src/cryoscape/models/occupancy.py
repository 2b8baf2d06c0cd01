"""Chains of a structure that may be absent."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cryoscape.errors import InputError
from cryoscape.models.scattering import BeadScatterers, Scatterers


class Chains(nn.Module):
    """Which chain every scattering point belongs to, and which chains may be absent.

    The core, the largest chain, is always there: otherwise the scale of the images and the share that is
    present could not be told apart. Weights keep the scale of the whole reference, so that of an incomplete
    structure they sum to less than 1.

    Parameters
    ----------
    chain : Tensor, shape (N,), int64
        Number of the chain of each residue, from 0.
    scatterers : Scatterers or BeadScatterers
        Where the residues scatter from.

    Attributes
    ----------
    core : int
        The chain with most residues; the first of equals.
    optional : tuple of int
        All others that have residues, in the order of their numbers.

    Raises
    ------
    InputError
        If there is only one chain.
    """

    membership: Tensor
    places: Tensor

    def __init__(self, chain: Tensor, scatterers: Scatterers | BeadScatterers) -> None:
        super().__init__()
        sizes = torch.bincount(chain.cpu())
        self.core = int(sizes.argmax())
        self.optional = tuple(c for c in range(len(sizes)) if c != self.core and int(sizes[c]) > 0)
        if not self.optional:
            raise InputError(
                "the model has one chain only, and no other that could be absent",
                remedy="Give parts that come and go chain names of their own, or set occupancy to none.",
            )
        self.register_buffer("places", torch.tensor(self.optional), persistent=False)
        # One product with this matrix is faster than a gather, and so is its gradient.
        belongs = nn.functional.one_hot(scatterers.per_point(chain), len(sizes)).T
        self.register_buffer("membership", belongs * scatterers.weights, persistent=False)

    def __len__(self) -> int:
        return len(self.membership)

    def complete(self, optional: Tensor) -> Tensor:
        """Occupancies of the optional chains (B, len(optional)) -> of all chains (B, chains)."""
        out = optional.new_ones(len(optional), len(self))
        return out.index_copy(1, self.places, optional)

    def point_weights(self, occupancy: Tensor) -> Tensor:
        """Scattering weights of the points, (B, chains) -> (B, P)."""
        # Mixed precision is for the products of the projection.
        with torch.autocast(occupancy.device.type, enabled=False):
            return occupancy.to(self.membership.dtype) @ self.membership
