"""The plain networks that encoders and decoders are made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

Activation = Literal["relu", "silu", "gelu", "leaky_relu"]
_ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "silu": nn.SiLU,
    "gelu": nn.GELU,
    "leaky_relu": nn.LeakyReLU,
}


def mlp(n_in: int, hidden: Sequence[int], n_out: int, activation: Activation = "relu") -> nn.Sequential:
    """Multi-layer perceptron n_in -> hidden ... -> n_out, linear at the end."""
    layers: list[nn.Module] = []
    for width in hidden:
        layers += [nn.Linear(n_in, width), _ACTIVATIONS[activation]()]
        n_in = width
    return nn.Sequential(*layers, nn.Linear(n_in, n_out))


class ResidualBlock(nn.Module):
    """x + f(x) with f two linear layers of the same width."""

    def __init__(self, width: int, activation: Activation = "relu") -> None:
        super().__init__()
        act = _ACTIVATIONS[activation]
        self.body = nn.Sequential(nn.Linear(width, width), act(), nn.Linear(width, width))
        self.act = act()

    def forward(self, x: Tensor) -> Tensor:
        """(B, width) -> (B, width)."""
        return self.act(x + self.body(x))


def residual_mlp(
    n_in: int, hidden: Sequence[int], n_out: int, activation: Activation = "relu"
) -> nn.Sequential:
    """Linear to the first width, a residual block for every further entry of `hidden`, linear to n_out."""
    width = hidden[0]
    blocks: list[nn.Module] = [nn.Linear(n_in, width), _ACTIVATIONS[activation]()]
    blocks += [ResidualBlock(width, activation) for _ in hidden[1:]]
    return nn.Sequential(*blocks, nn.Linear(width, n_out))


class ConvolutionalNetwork(nn.Module):
    """Strided convolutions on a square image, then a linear head.

    Parameters
    ----------
    side : int
        Side of the image that arrives flattened.
    hidden : sequence of int
        Width of the last hidden layer is its last entry; the channels double from 16.
    n_out : int
        Size of the result.
    """

    def __init__(self, side: int, hidden: Sequence[int], n_out: int) -> None:
        super().__init__()
        self.side = side
        layers: list[nn.Module] = []
        channels, size = 1, side
        out = 16
        while size > 6:
            layers += [nn.Conv2d(channels, out, 5, stride=2, padding=2), nn.ReLU()]
            channels, out, size = out, min(2 * out, 128), (size + 1) // 2
        self.body = nn.Sequential(*layers, nn.Flatten())
        self.head = nn.Sequential(
            nn.Linear(channels * size * size, hidden[-1]), nn.ReLU(), nn.Linear(hidden[-1], n_out)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, side * side) -> (B, n_out)."""
        return self.head(self.body(x.reshape(-1, 1, self.side, self.side)))


def shrink_(layer: nn.Linear, factor: float) -> None:
    """Scale the weights of a layer and zero its bias, so that a network starts near zero output."""
    with torch.no_grad():
        layer.weight.mul_(factor)
        layer.bias.zero_()
