"""A start for deep Boltzmann machines: a stack of restricted ones, each trained on two layers.

A machine of two layers knows nothing of the layer beyond, and would put the correlations that this one causes
into its own weights as well: in the stack they would be counted twice. As in Salakhutdinov and Hinton (2009),
the outermost layer of a stack therefore stands in for the missing one: it is trained in two copies that share
their weights, so that a middle layer sees twice the input it gets from one side, and half of it is taken away
again in the stack. A pair in the middle has a missing layer on either side: it is trained once, and its
weights are halved. Where all layers are latents their bits are known, and no layer has to be inferred;
of a hidden layer, samples given the layer below are the data of the next pair.

Every pair is trained by persistent contrastive divergence.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from cryoscape.priors.machines.graph import layered_edges
from cryoscape.priors.machines.negative_phase import coins

if TYPE_CHECKING:
    from cryoscape.priors.machines.machine import BoltzmannMachine

STEPS = 1000
"""Steps of Adam for every pair of layers."""

RATE = 1e-2
"""Their learning rate, which falls to 0."""

_BATCH = 256


@dataclass(frozen=True)
class _Pair:
    """Two layers, and how often each stands in the machine that is trained on them."""

    lower: int
    upper: int
    lower_copies: int
    upper_copies: int

    def by_unit(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Mean over the copies of values of all units -> (lower,), (upper,)."""
        split = self.lower * self.lower_copies
        return values[:split].view(-1, self.lower).mean(0), values[split:].view(-1, self.upper).mean(0)

    def by_edge(self, values: Tensor) -> Tensor:
        """Mean over the copies of values of all edges -> (lower, upper)."""
        return values.view(self.lower_copies, self.lower, self.upper_copies, self.upper).mean((0, 2))

    def tie(self, unit_values: Tensor, edge_values: Tensor) -> None:
        """Give all copies the mean of their values, in place."""
        lower, upper = self.by_unit(unit_values)
        unit_values.copy_(torch.cat([lower.repeat(self.lower_copies), upper.repeat(self.upper_copies)]))
        shape = (self.lower_copies, self.lower, self.upper_copies, self.upper)
        edge_values.view(shape).copy_(self.by_edge(edge_values)[None, :, None, :].expand(shape))


@torch.no_grad()
def pretrain(
    machine: BoltzmannMachine, sizes: Sequence[int], z: Tensor, generator: torch.Generator | None = None
) -> None:
    """Set weights, biases and offset of a layered machine from a stack of restricted ones.

    Parameters
    ----------
    machine : BoltzmannMachine
        With the edges `layered_edges(sizes)`.
    sizes : sequence of int
        Units of the layers, hidden ones last; a layer is either all latent or all hidden.
    z : Tensor, shape (N, d)
        Bits or probabilities of the latents.
    generator : torch.Generator, optional
    """
    pairs = machine.pairs
    first = list(itertools.accumulate(sizes, initial=0))
    if machine.z_dim not in first or not torch.equal(pairs.edges.cpu(), layered_edges(sizes)):
        raise ValueError(f"the machine has no layers of {tuple(sizes)} units")
    known = first.index(machine.z_dim)
    layers: list[Tensor] = list(z.to(pairs.weight).split(list(sizes[:known]), -1))
    biases: list[list[Tensor]] = [[] for _ in sizes]
    means: list[list[Tensor]] = [[] for _ in sizes]
    blocks = []
    for i in range(len(sizes) - 1):
        alone = len(sizes) == 2
        inner = 0 < i < len(sizes) - 2
        copies = (2 if i == 0 and not alone else 1, 2 if i == len(sizes) - 2 and not alone else 1)
        pair = _Pair(sizes[i], sizes[i + 1], *copies)
        upper = layers[i + 1] if i + 1 < len(layers) else None
        trained = _trained(pair, layers[i], upper, generator)
        if upper is None:
            layers.append(_upper_samples(trained, pair, layers[i], generator))
        blocks.append(pair.by_edge(trained.pairs.weight).flatten() * (0.5 if inner else 1.0))
        for found, values in ((biases, trained.pairs.centred_bias), (means, trained.pairs.data_mean)):
            for layer, part in zip((i, i + 1), pair.by_unit(values)):
                found[layer].append(part)
    pairs.weight.copy_(torch.cat(blocks))
    pairs.centred_bias.copy_(torch.cat([torch.stack(parts).mean(0) for parts in biases]))
    pairs.data_mean.copy_(torch.cat([torch.stack(parts).mean(0) for parts in means]))


def _expanded(pair: _Pair, lower: Tensor, upper: Tensor | None) -> Tensor:
    """Bits of all copies of the layers that are known."""
    parts = [lower] * pair.lower_copies + ([] if upper is None else [upper] * pair.upper_copies)
    return torch.cat(parts, -1)


@torch.enable_grad()
def _trained(
    pair: _Pair, lower: Tensor, upper: Tensor | None, generator: torch.Generator | None
) -> BoltzmannMachine:
    """A machine of the copies of two layers, fitted to data (N, lower) and, where known, (N, upper)."""
    from cryoscape.priors.machines.machine import BoltzmannMachine

    below, above = pair.lower * pair.lower_copies, pair.upper * pair.upper_copies
    known = below + (0 if upper is None else above)
    edges = layered_edges((below, above))
    machine = BoltzmannMachine(known, edges, hidden=below + above - known, snapshots=0).to(lower)
    machine.warm_start(_expanded(pair, lower, upper), generator)
    pairs = machine.pairs
    with torch.no_grad():
        pair.tie(pairs.centred_bias, pairs.weight)
    optimizer = torch.optim.Adam(machine.parameters(), lr=RATE)
    for step in range(STEPS):
        optimizer.param_groups[0]["lr"] = RATE * 0.5 * (1 + math.cos(math.pi * step / STEPS))
        rows = torch.randint(len(lower), (min(_BATCH, len(lower)),), generator=generator).to(lower.device)
        # The copies of a bit are the same bit, so probabilities are drawn before they are copied.
        bits = coins(lower[rows], generator)
        bits = _expanded(pair, bits, None if upper is None else coins(upper[rows], generator))
        optimizer.zero_grad()
        machine.loss(bits, generator=generator).backward()
        assert pairs.centred_bias.grad is not None
        assert pairs.weight.grad is not None
        pair.tie(pairs.centred_bias.grad, pairs.weight.grad)
        optimizer.step()
    return machine


@torch.no_grad()
def _upper_samples(
    machine: BoltzmannMachine, pair: _Pair, lower: Tensor, generator: torch.Generator | None
) -> Tensor:
    """Bits of the hidden upper layer given the lower one, shape (N, upper)."""
    bits = _expanded(pair, coins(lower, generator), None)
    units = machine.completed(bits, generator)[:, machine.z_dim :]
    return coins(units[:, : pair.upper], generator)
