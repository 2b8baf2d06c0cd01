"""The structural restraints of a run: which terms, with which weights, on which pairs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cryoscape.structures import restraints as energies
from cryoscape.structures.atomic_model import AtomicModel
from cryoscape.structures.neighbours import NeighbourList
from cryoscape.training.config import RestraintsConfig


@dataclass(frozen=True)
class RestraintTerms:
    """Mean energies over a batch, nats per image.

    Attributes
    ----------
    bond, network, clash : Tensor
        Scalars.
    """

    bond: Tensor
    network: Tensor
    clash: Tensor

    @property
    def total(self) -> Tensor:
        """Sum of the three."""
        return self.bond + self.network + self.clash

    def scaled(self, factor: float) -> RestraintTerms:
        """All three times a factor."""
        return RestraintTerms(factor * self.bond, factor * self.network, factor * self.clash)


class Restraints:
    """Continuity, adaptively relaxed elastic network and clashes of one reference structure.

    Parameters
    ----------
    model : AtomicModel
        The reference.
    config : RestraintsConfig
    scale : float
        Degrees of freedom by which mean energies are multiplied where `config.mean` is set.
    device : torch.device
    """

    def __init__(
        self, model: AtomicModel, config: RestraintsConfig, scale: float, device: torch.device
    ) -> None:
        self.config = config
        self.scale = scale
        pairs = energies.find_pairs(
            model, config.amino_cutoff, config.nucleotide_cutoff, inter_chain=config.inter_chain
        )
        self.pairs = pairs.to(device)
        self.neighbours = NeighbourList(pairs.excluded, cutoff=config.clash_cutoff)

    def terms(self, coords: Tensor) -> RestraintTerms:
        """Mean energies of a batch of structures (B, N, 3)."""
        c, p = self.config, self.pairs
        zero = coords.new_zeros(())
        bond = network = clash = zero
        if c.bond > 0 and len(p.bonds):
            energy = energies.harmonic(energies.pair_distances(coords, p.bonds), p.bond_lengths, c.bond)
            bond = self._mean(energy, len(p.bonds))
        if c.network > 0 and len(p.network):
            d = energies.pair_distances(coords, p.network)
            keep = None
            kept = len(p.network)
            if c.keep < 100:
                keep = energies.adaptive_keep(
                    d, p.network_lengths, p.network_chain, c.keep, statistic=c.relax_on
                )
                kept = int(keep.sum())
            network = self._mean(energies.harmonic(d, p.network_lengths, c.network, keep), kept)
        if c.clash > 0:
            near = self.neighbours.pairs(coords.detach())
            if len(near):
                energy = energies.clash(coords, near, c.clash_cutoff, c.clash)
                overlapping = 1
                if c.mean:
                    with torch.no_grad():
                        d = energies.pair_distances(coords, near)
                        overlapping = max(1, int((d < c.clash_cutoff).sum()) // len(coords))
                clash = self._mean(energy, overlapping)
        return RestraintTerms(bond, network, clash)

    def _mean(self, energy: Tensor, n_terms: int) -> Tensor:
        if self.config.mean:
            # kappa / 2 d^2 summed becomes weight * mean d^2, on the scale of the correlation objective.
            return energy.mean() * (2.0 * self.scale / max(n_terms, 1))
        return energy.mean()
