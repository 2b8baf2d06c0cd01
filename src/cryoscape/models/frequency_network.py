"""A residual perceptron of (k, z) for many k and few z, fast on a processor.

z enters every hidden layer as a bias. A bias is the same for all points of an image, so z costs one small
product an image, and the layers work on one image at a time: its activations then stay in the cache, where
the passes between two matrix products are nearly free. Products run in the type of `torch.autocast`; phases,
gradients of the biases and sums of gradients over images stay in float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from cryoscape.models.positional import encode

FrequencyActivation = Literal["relu", "leaky_relu"]
KEPT_MEMORY = 512 * 2**20
"""Bytes of activations that are kept for the gradient; beyond them it computes the layers again."""


class FrequencyNetwork(nn.Module):
    """Perceptron h <- f(h + W h + b(z)) on plane waves of k, linear at the end.

    Parameters
    ----------
    z_dim : int
    positions : Tensor, shape (3, F)
        Of the encoding, in sides of the box.
    hidden : sequence of int
        Widths, all the same: one layer from the encoding to the first, and one residual layer for each (three
        entries are cryoDRGN's "256x3").
    n_out : int
    activation : "relu" or "leaky_relu"

    Raises
    ------
    ValueError
        If the widths differ.
    """

    positions: Tensor

    def __init__(
        self,
        z_dim: int,
        positions: Tensor,
        hidden: Sequence[int] = (256, 256, 256),
        n_out: int = 2,
        activation: FrequencyActivation = "relu",
    ) -> None:
        super().__init__()
        if len(set(hidden)) != 1:
            raise ValueError(f"residual layers need one width, got {tuple(hidden)}")
        width, depth = hidden[0], len(hidden)
        self.slope = 0.01 if activation == "leaky_relu" else 0.0
        self.register_buffer("positions", positions.float())
        self.first = nn.Parameter(torch.randn(width, 2 * positions.shape[1]) / positions.shape[1] ** 0.5)
        self.residual = nn.Parameter((2 * torch.rand(depth, width, width) - 1) / width**0.5)
        self.last = nn.Parameter(torch.randn(n_out, width) / width**0.5)
        self.condition = nn.Linear(z_dim, (depth + 1) * width + n_out)
        with torch.no_grad():
            # One value at all frequencies is a point at the centre of the map: nothing to start from.
            self.condition.weight[:n_out].zero_()
            self.condition.bias[:n_out].zero_()

    def conditions(self, z: Tensor) -> Tensor:
        """Biases of all layers, (B, z_dim) -> (B, C)."""
        return cast(Tensor, self.condition(z))

    def forward(self, frequencies: Tensor, conditions: Tensor) -> Tensor:
        """Evaluate the field.

        Parameters
        ----------
        frequencies : Tensor, shape (B, P, 3)
            k in units of 1 / box side.
        conditions : Tensor, shape (B, C)
            From `conditions`.

        Returns
        -------
        Tensor, shape (B, P, n_out)
            In the type of the frequencies.
        """
        device = frequencies.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else frequencies.dtype
        with torch.autocast(device, enabled=False):
            n_out, width = self.last.shape
            shift, biases = conditions.split([n_out, conditions.shape[1] - n_out], dim=1)
            # The identity is part of the weights: a residual layer then is one product.
            whole = self.residual + torch.eye(width, device=self.residual.device)
            weights = [self.first, *whole, self.last]
            settings = (dtype, self.slope)
            positions = self.positions.to(frequencies.dtype)
            out = _Layers.apply(frequencies, positions, biases.unflatten(1, (-1, width)), settings, *weights)
            return cast(Tensor, out + shift[:, None])


class _Layers(torch.autograd.Function):
    """Encoding and layers, image by image, with their gradients."""

    @staticmethod
    def forward(
        ctx: Any,
        frequencies: Tensor,
        positions: Tensor,
        biases: Tensor,
        settings: tuple[torch.dtype, float],
        *weights: Tensor,
    ) -> Tensor:
        ctx.settings = settings
        dtype, _ = settings
        cast_weights = [w.to(dtype) for w in weights]
        kept: list[Tensor] | None = None
        if any(ctx.needs_input_grad) and _bytes(frequencies, weights, dtype) <= KEPT_MEMORY:
            kept = []
        out = frequencies.new_empty(*frequencies.shape[:2], len(weights[-1]))
        for image, k in enumerate(frequencies):
            layers = _activations(k, positions, biases[image], cast_weights, settings)
            out[image] = torch.mm(layers[-1], cast_weights[-1].t())
            if kept is not None:
                kept += layers
        ctx.n = len(weights)
        ctx.save_for_backward(frequencies, positions, biases, *cast_weights, *(kept or ()))
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        frequencies, positions, biases, *rest = ctx.saved_tensors
        n, (dtype, slope) = ctx.n, ctx.settings
        weights, kept = rest[:n], rest[n:]
        to_weights = [torch.zeros_like(w, dtype=grad.dtype) for w in weights]
        to_biases = torch.empty_like(biases)
        to_frequencies = torch.empty_like(frequencies) if ctx.needs_input_grad[0] else None
        for image, k in enumerate(frequencies):
            layers = kept[image * n : (image + 1) * n]
            if not layers:
                layers = _activations(k, positions, biases[image], weights, ctx.settings)
            g = grad[image].to(dtype)
            for i in range(n - 1, 0, -1):
                to_weights[i] += torch.mm(g.t(), layers[i])
                g = torch.mm(g, weights[i])
                g = torch.ops.aten.leaky_relu_backward(g, layers[i], slope, True)
                to_biases[image, i - 1] = g.sum(0, dtype=grad.dtype)
            to_weights[0] += torch.mm(g.t(), layers[0])
            if to_frequencies is not None:
                # d cos = -sin and d sin = cos, times the positions.
                cos, sin = layers[0].to(grad.dtype).chunk(2, dim=1)
                to_cos, to_sin = torch.mm(g, weights[0]).to(grad.dtype).chunk(2, dim=1)
                phase = to_sin * cos - to_cos * sin
                to_frequencies[image] = torch.mm(phase, 2 * torch.pi * positions.t())
        return to_frequencies, None, to_biases, None, *to_weights


def _bytes(frequencies: Tensor, weights: Sequence[Tensor], dtype: torch.dtype) -> int:
    """Memory of all activations of a batch."""
    each = sum(w.shape[1] for w in weights) * torch.empty(0, dtype=dtype).element_size()
    return frequencies.shape[0] * frequencies.shape[1] * each


def _activations(
    frequencies: Tensor,
    positions: Tensor,
    biases: Tensor,
    weights: Sequence[Tensor],
    settings: tuple[torch.dtype, float],
) -> list[Tensor]:
    """Encoding and hidden layers of the points of one image, (P, 2 F) and (P, width) each."""
    dtype, slope = settings
    layers = [encode(frequencies, positions, dtype)]
    for bias, weight in zip(biases.to(dtype), weights[:-1]):
        layer = torch.addmm(bias, layers[-1], weight.t())
        layers.append(nn.functional.leaky_relu_(layer, slope))
    return layers
