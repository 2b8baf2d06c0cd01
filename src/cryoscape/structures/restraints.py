"""Restraints on decoded structures: which pairs, and their energies in nats.

The pairs come from the reference once, at a cost linear in the number of edges. The energies are sums
over pairs, one number a structure, and run at every training step.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from torch import Tensor

from cryoscape.structures.atomic_model import AMINO, NUCLEOTIDE, AtomicModel
from cryoscape.structures.distances import pair_distances

__all__ = [
    "EdgeMoments",
    "RestraintPairs",
    "adaptive_keep",
    "clash",
    "edge_moments",
    "find_pairs",
    "harmonic",
    "pair_distances",
]

# Usual distance of neighbouring beads, Angstrom: CA-CA of a trans peptide; P-P or C1'-P of a nucleic acid.
USUAL_BOND = {AMINO: 3.8, NUCLEOTIDE: 6.0}
# A longer step than this multiple of the usual one is a break of the chain, whatever its numbering says.
BREAK = 1.5

Statistic = Literal["distance", "squared_error"]


@dataclass(frozen=True, eq=False)
class RestraintPairs:
    """Pairs of residues tied in the reference, with their distances there.

    Attributes
    ----------
    bonds : Tensor, shape (E_b, 2), int64
        Neighbours along a chain, i < j.
    bond_lengths : Tensor, shape (E_b,), float32
        Angstrom.
    network : Tensor, shape (E_n, 2), int64
        Edges of the elastic network, i < j, without the bonds.
    network_lengths : Tensor, shape (E_n,), float32
        Angstrom.
    network_chain : Tensor, shape (E_n,), int64
        Group in which an edge is ranked by `adaptive_keep`, from 0 without gaps: one for each chain, and
        one for each pair of chains that share edges.
    excluded : Tensor, shape (E_x, 2), int64
        Pairs that are never a clash, i < j: one or two bonds apart, or next to each other in the chain
        and no farther than a bond, although a number is skipped between them.
    """

    bonds: Tensor
    bond_lengths: Tensor
    network: Tensor
    network_lengths: Tensor
    network_chain: Tensor
    excluded: Tensor

    def to(self, device: torch.device | str) -> RestraintPairs:
        """Copy on another device."""
        return RestraintPairs(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})


def find_pairs(
    model: AtomicModel,
    amino_cutoff: float = 12.0,
    nucleotide_cutoff: float = 15.0,
    inter_chain: bool = False,
) -> RestraintPairs:
    """Bonds and elastic network of a reference structure.

    Two residues are bonded when they follow each other in the file, belong to one chain and one kind,
    their numbers differ by one (or only by the insertion code), and they are no farther apart than 1.5
    times the usual distance (3.8 A for CA, 6 A for P and C1'). A gap in the numbering is not a bond.

    The network joins residues within a cut-off: amino acids of one chain; nucleotides of any chains;
    across protein chains, and between a protein and a nucleic acid chain, only with `inter_chain` (at
    the amino-acid cut-off).

    Parameters
    ----------
    model : AtomicModel
        The reference, in any frame.
    amino_cutoff, nucleotide_cutoff : float
        Angstrom; 0 for no such edges.
    inter_chain : bool
        Whether protein chains are tied to other chains.

    Returns
    -------
    RestraintPairs
    """
    coords = model.coords.astype(np.float64)
    bonded, adjacent = _chain_steps(model, coords)
    bonds = np.flatnonzero(bonded)[:, None] + np.array([0, 1])
    angles = np.flatnonzero(bonded[:-1] & bonded[1:])[:, None] + np.array([0, 2])
    skipped = np.flatnonzero(adjacent & ~bonded)[:, None] + np.array([0, 1])
    network = _network(model, coords, amino_cutoff, nucleotide_cutoff, inter_chain, bonded)
    return RestraintPairs(
        bonds=torch.as_tensor(bonds),
        bond_lengths=_lengths(coords, bonds),
        network=torch.as_tensor(network),
        network_lengths=_lengths(coords, network),
        network_chain=torch.as_tensor(_edge_groups(model.chain_index, network)),
        excluded=torch.as_tensor(np.concatenate([bonds, angles, skipped])),
    )


def _chain_steps(
    model: AtomicModel, coords: NDArray[np.float64]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """For each residue but the last: is the next one bonded to it; is it near enough to be, (N - 1,)."""
    if len(model) < 2:
        return np.zeros(0, dtype=bool), np.zeros(0, dtype=bool)
    same = (model.chain_id[1:] == model.chain_id[:-1]) & (model.kind[1:] == model.kind[:-1])
    usual = np.where(model.kind[:-1] == AMINO, USUAL_BOND[AMINO], USUAL_BOND[NUCLEOTIDE])
    near = np.linalg.norm(np.diff(coords, axis=0), axis=1) <= BREAK * usual
    step = np.diff(model.residue_number)
    follows = (step == 1) | ((step == 0) & (model.insertion_code[1:] != model.insertion_code[:-1]))
    return same & near & follows, same & near


def _network(
    model: AtomicModel,
    coords: NDArray[np.float64],
    amino_cutoff: float,
    nucleotide_cutoff: float,
    inter_chain: bool,
    bonded: NDArray[np.bool_],
) -> NDArray[np.int64]:
    has_nucleotides = bool((model.kind == NUCLEOTIDE).any())
    reach = max(amino_cutoff, nucleotide_cutoff if has_nucleotides else 0.0)
    if reach <= 0 or len(model) < 2:
        return np.zeros((0, 2), dtype=np.int64)
    pairs = cKDTree(coords).query_pairs(reach, output_type="ndarray").astype(np.int64)
    i, j = pairs.T
    both_nucleotides = (model.kind[i] == NUCLEOTIDE) & (model.kind[j] == NUCLEOTIDE)
    cutoff = np.where(both_nucleotides, nucleotide_cutoff, amino_cutoff)
    length = np.linalg.norm(coords[i] - coords[j], axis=1)
    chain = model.chain_index
    allowed = (chain[i] == chain[j]) | both_nucleotides | inter_chain
    bond = (j == i + 1) & np.append(bonded, False)[i]
    pairs = pairs[(length <= cutoff) & allowed & ~bond]
    return pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]


def _lengths(coords: NDArray[np.float64], pairs: NDArray[np.int64]) -> Tensor:
    length = np.linalg.norm(coords[pairs[:, 0]] - coords[pairs[:, 1]], axis=1)
    return torch.as_tensor(length, dtype=torch.float32)


def _edge_groups(chain: NDArray[np.int64], pairs: NDArray[np.int64]) -> NDArray[np.int64]:
    ends = np.sort(chain[pairs], axis=1)
    n = int(chain.max(initial=0)) + 1
    return np.unique(ends[:, 0] * n + ends[:, 1], return_inverse=True)[1].reshape(-1).astype(np.int64)


def harmonic(d: Tensor, d0: Tensor, kappa: float = 1.0, keep: Tensor | None = None) -> Tensor:
    """Energy of springs, sum over pairs of kappa / 2 (d - d0)^2.

    Parameters
    ----------
    d : Tensor, shape (B, E)
        Distances, Angstrom.
    d0 : Tensor, shape (E,)
        Lengths at rest, Angstrom.
    kappa : float
        Nats per square Angstrom.
    keep : Tensor, shape (E,), bool, optional
        Pairs that count (see `adaptive_keep`).

    Returns
    -------
    Tensor, shape (B,)
        Nats.
    """
    # Edges as rows, as the distances lie in memory, so that the gradient comes out in the same order.
    residual = d.t() - d0.to(d.dtype)[:, None]
    weight = torch.full_like(d0, 0.5 * kappa, dtype=d.dtype)
    if keep is not None:
        weight = weight * keep
    return weight @ residual.square()


@dataclass(frozen=True, eq=False)
class EdgeMoments:
    """Mean and variance of a statistic of each edge over a batch.

    Several processes combine theirs with `combine`; the variance is then that of all structures.
    """

    count: int
    mean: Tensor
    variance: Tensor

    def combine(self, other: EdgeMoments) -> EdgeMoments:
        """Moments of the union of two batches (Chan, Golub and LeVeque 1983, pooled variance)."""
        n = self.count + other.count
        share = other.count / n
        delta = other.mean - self.mean
        variance = (1 - share) * self.variance + share * other.variance + share * (1 - share) * delta**2
        return EdgeMoments(n, self.mean + share * delta, variance)


@torch.no_grad()
def edge_moments(d: Tensor, d0: Tensor, statistic: Statistic = "distance") -> EdgeMoments:
    """Moments over the batch of the distance, or of its squared error, of every edge.

    Parameters
    ----------
    d : Tensor, shape (B, E)
        Distances, Angstrom.
    d0 : Tensor, shape (E,)
        Distances in the reference.
    statistic : {"distance", "squared_error"}
        The first is cryoSTAR's paper, the second what its code does.

    Returns
    -------
    EdgeMoments
        With tensors of shape (E,).
    """
    # Centred by the reference, so that single precision does not lose small variances; rows are edges,
    # which is how the distances lie in memory.
    value = d.detach().t() - d0.to(d.dtype)[:, None]
    if statistic == "squared_error":
        value = value.square_()
    elif statistic != "distance":
        raise ValueError(f"unknown statistic {statistic!r}")
    mean = value.mean(1)
    variance = value.sub_(mean[:, None]).square_().mean(1)
    return EdgeMoments(d.shape[0], mean + d0.to(d.dtype) if statistic == "distance" else mean, variance)


@torch.no_grad()
def adaptive_keep(
    d: Tensor,
    d0: Tensor,
    chain: Tensor,
    percentile: float,
    statistic: Statistic = "distance",
    variance: Tensor | None = None,
) -> Tensor:
    """Edges that vary little over the batch, and so stay springs in this step.

    An edge is kept when its variance lies at or below the given percentile of its chain's edges
    (adaptive relaxation, Li et al. 2024).

    Parameters
    ----------
    d : Tensor, shape (B, E)
        Distances, Angstrom.
    d0 : Tensor, shape (E,)
        Distances in the reference.
    chain : Tensor, shape (E,), int64
        `RestraintPairs.network_chain`.
    percentile : float
        From 0 to 100; 100 keeps all.
    statistic : {"distance", "squared_error"}
        See `edge_moments`.
    variance : Tensor, shape (E,), optional
        To be used in place of the batch's own, where several processes have combined theirs.

    Returns
    -------
    Tensor, shape (E,), bool
    """
    if not 0 <= percentile <= 100:
        raise ValueError(f"a percentile lies between 0 and 100, got {percentile}")
    if variance is None:
        variance = edge_moments(d, d0, statistic).variance
    order = torch.argsort(variance)
    order = order[torch.argsort(chain[order], stable=True)]
    size = torch.bincount(chain)
    start = torch.cumsum(size, 0) - size
    # The last edge at or below the percentile (linear between ranks, as numpy) has rank floor(p (n - 1)).
    # The tiny increment undoes rounding of p (n - 1) where it is whole.
    last = start + (size.clamp(min=1) - 1).double().mul(percentile / 100).add(1e-9).floor().long()
    limit = variance[order[last.clamp(max=max(len(order) - 1, 0))]] if len(order) else variance
    return variance <= limit[chain]


def clash(coords: Tensor, pairs: Tensor, cutoff: float = 4.0, kappa: float = 1.0) -> Tensor:
    """Repulsion of residues that are too close, sum over pairs of kappa / 2 (cutoff - d)^2 where d < cutoff.

    Parameters
    ----------
    coords : Tensor, shape (B, N, 3)
        Angstrom.
    pairs : Tensor, shape (E, 2), int64
        Candidates, from `cryoscape.structures.neighbours.NeighbourList`.
    cutoff : float
        Angstrom.
    kappa : float
        Nats per square Angstrom.

    Returns
    -------
    Tensor, shape (B,)
        Nats.
    """
    # Most candidates of a neighbour list are no clash; only the others enter the gradient.
    with torch.no_grad():
        near = pair_distances(coords, pairs).amin(0) < cutoff if len(pairs) else pairs.new_zeros(0).bool()
    overlap = torch.relu(cutoff - pair_distances(coords, pairs[near]).t())
    return 0.5 * kappa * overlap.square().sum(0)
