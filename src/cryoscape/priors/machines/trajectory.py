"""Snapshots of a machine's parameters along its training.

They are a path from a law that is easy to sample to the one that was learned, along which neighbouring laws
overlap: annealed importance sampling along it (Bereux et al. 2024) needs fewer steps than a change of
temperature.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ParameterTrajectory(nn.Module):
    """Up to `slots` snapshots, evenly spaced over however many steps there were.

    When all slots are taken, every second snapshot is dropped and the distance doubled.

    Parameters
    ----------
    slots : int
        Even; 0 to keep none.
    units, edges : int
        n biases and E weights.
    """

    bias: Tensor
    weight: Tensor
    count: Tensor
    stride: Tensor
    steps: Tensor

    def __init__(self, slots: int, units: int, edges: int) -> None:
        super().__init__()
        self.register_buffer("bias", torch.zeros(slots, units))
        self.register_buffer("weight", torch.zeros(slots, edges))
        for name, value in (("count", 0), ("stride", 1), ("steps", 0)):
            self.register_buffer(name, torch.tensor(value))

    def __len__(self) -> int:
        return int(self.count)

    @torch.no_grad()
    def clear(self) -> None:
        """Forget all snapshots."""
        self.count.zero_()
        self.steps.zero_()
        self.stride.fill_(1)

    @torch.no_grad()
    def store(self, bias: Tensor, weight: Tensor) -> None:
        """Keep one snapshot of the biases (n,) and weights (E,)."""
        slots = len(self.bias)
        if len(self) == slots:
            for kept in (self.bias, self.weight):
                kept[: slots // 2] = kept[::2].clone()
            self.count.fill_(slots // 2)
            self.stride.mul_(2)
        self.bias[len(self)], self.weight[len(self)] = bias, weight
        self.count.add_(1)

    @torch.no_grad()
    def next_step(self) -> bool:
        """Count a step; whether a snapshot is due in it."""
        due = len(self.bias) > 0 and int(self.steps) % int(self.stride) == 0
        self.steps.add_(1)
        return due

    def snapshots(self) -> list[tuple[Tensor, Tensor]]:
        """Biases and weights, oldest first."""
        return [(self.bias[i], self.weight[i]) for i in range(len(self))]
