"""Graphs of Boltzmann machines: layers, complete graphs, colours; and all configurations of few bits."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from cryoscape.errors import InputError
from cryoscape.priors.samplers.base import IsingProblem


def layer_sizes(bits: int, layers: int) -> tuple[int, ...]:
    """Split bits into about equal layers, the larger ones first; no layer is empty.

    Raises
    ------
    InputError
        If there are fewer than two bits, so that nothing can be coupled.
    """
    if bits < 2:
        raise InputError(
            f"a Boltzmann machine couples bits, and {bits} cannot be coupled",
            remedy="Give --z-dim 2 or more, or --prior bernoulli.",
        )
    layers = min(layers, bits)
    return tuple(bits // layers + (layer < bits % layers) for layer in range(layers))


def layered_edges(sizes: Sequence[int]) -> Tensor:
    """Every bit of a layer with every bit of the next, shape (E, 2); bits are numbered layer by layer."""
    first = list(itertools.accumulate(sizes, initial=0))
    pairs = [
        torch.cartesian_prod(torch.arange(a, b), torch.arange(b, c))
        for a, b, c in zip(first, first[1:], first[2:])
    ]
    return torch.cat(pairs).view(-1, 2)


def complete_edges(bits: int) -> Tensor:
    """Every pair of bits, shape (bits (bits - 1) / 2, 2)."""
    return torch.combinations(torch.arange(bits), 2).view(-1, 2)


def configurations(bits: int) -> Tensor:
    """All configurations, shape (2^bits, bits), 0 and 1; the first bit changes last."""
    index = torch.arange(2**bits)[:, None]
    return (index >> torch.arange(bits - 1, -1, -1)) & 1


def graph_colours(units: int, edges: Tensor) -> tuple[Tensor, ...]:
    """Sets of units without edges among them; a single one where there are no edges."""
    return IsingProblem(torch.zeros(units), edges, torch.zeros(len(edges))).colours
