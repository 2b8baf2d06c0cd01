"""The Boltzmann machines that `--prior` offers for bits: independent, complete, restricted, deep."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from cryoscape.errors import InputError
from cryoscape.priors.machines.graph import complete_edges, layer_sizes, layered_edges
from cryoscape.priors.machines.machine import BoltzmannMachine
from cryoscape.priors.samplers.base import IsingSampler


def independent_bits(z_dim: int) -> BoltzmannMachine:
    """Independent bits: the machine without edges, with everything in closed form."""
    return BoltzmannMachine(z_dim, torch.zeros(0, 2, dtype=torch.long), chains=0, snapshots=0)


def restricted_machine(
    z_dim: int,
    hidden: int = 0,
    *,
    chains: int = 512,
    sampler: IsingSampler | None = None,
    decay: float = 1e-4,
) -> BoltzmannMachine:
    """Restricted Boltzmann machine: two sides, every bit of one coupled to every bit of the other.

    Parameters
    ----------
    z_dim : int
    hidden : int
        Units of the second side, summed over. With 0 the latents themselves are split into two sides.
    chains, sampler, decay
        See `BoltzmannMachine`.
    """
    sizes = (z_dim, hidden) if hidden else layer_sizes(z_dim, 2)
    edges = layered_edges(sizes)
    return BoltzmannMachine(z_dim, edges, hidden=hidden, chains=chains, sampler=sampler, decay=decay)


def complete_machine(
    z_dim: int, *, chains: int = 512, sampler: IsingSampler | None = None, decay: float = 1e-4
) -> BoltzmannMachine:
    """Boltzmann machine without restriction: every bit is coupled to every other.

    Parameters
    ----------
    z_dim : int
    chains, sampler, decay
        See `BoltzmannMachine`.
    """
    edges = complete_edges(layer_sizes(z_dim, 1)[0])
    return BoltzmannMachine(z_dim, edges, chains=chains, sampler=sampler, decay=decay)


def layered_machine(
    z_dim: int,
    layers: Sequence[int] = (),
    *,
    hidden: Sequence[int] = (),
    chains: int = 512,
    sampler: IsingSampler | None = None,
    decay: float = 1e-4,
    pretrain: bool = False,
) -> BoltzmannMachine:
    """Deep Boltzmann machine: layers of bits, every bit coupled to those of the next layer.

    Parameters
    ----------
    z_dim : int
    layers : sequence of int
        Sizes of the layers of latents, which add up to z_dim; three about equal ones by default, or, with
        hidden layers, a single one.
    hidden : sequence of int
        Sizes of further layers, which are summed over by the mean-field bound.
    chains, sampler, decay
        See `BoltzmannMachine`.
    pretrain : bool
        Start from a stack of restricted machines; see `cryoscape.priors.machines.pretraining`.

    Raises
    ------
    InputError
        If the layers do not add up to the latents.
    """
    latent = tuple(layers) or ((z_dim,) if hidden else layer_sizes(z_dim, 3))
    if sum(latent) != z_dim:
        raise InputError(
            f"layers of {' + '.join(map(str, latent))} bits do not make {z_dim}",
            remedy="Give sizes that add up to --z-dim.",
        )
    sizes = (*latent, *hidden)
    if len(sizes) < 2:
        raise InputError("a single layer has no couplings", remedy="Give two layers or more.")
    return BoltzmannMachine(
        z_dim,
        layered_edges(sizes),
        hidden=sum(hidden),
        chains=chains,
        sampler=sampler,
        decay=decay,
        pretrain=sizes if pretrain else (),
    )
