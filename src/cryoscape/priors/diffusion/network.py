"""The network of a denoiser: a residual perceptron that is told the noise level."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from cryoscape.priors.diffusion.noise import SIGMA_MAX, SIGMA_MIN

_WAVES = 8


class NoiseEmbedding(nn.Module):
    """What the network is told of the noise: waves in ln sigma over its range, and a layer.

    Parameters
    ----------
    width : int
        Length of the embedding.
    """

    waves: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        span = math.log(SIGMA_MAX / SIGMA_MIN)
        self.register_buffer("waves", math.pi / span * torch.arange(1, _WAVES + 1))
        self.layer = nn.Linear(2 * _WAVES, width)

    def forward(self, sigma: Tensor) -> Tensor:
        """Noise levels (...) -> (..., width)."""
        phase = (sigma.log() - math.log(SIGMA_MIN))[..., None] * self.waves
        return silu(self.layer(torch.cat([phase.cos(), phase.sin()], -1)))


class ResidualNetwork(nn.Module):
    """F as h <- h + silu(W h + V e(sigma)), layer after layer; 0 at first.

    Parameters
    ----------
    dim : int
        d.
    layers : int
        Hidden layers.
    width : int
        Of each.
    """

    def __init__(self, dim: int, layers: int, width: int) -> None:
        super().__init__()
        self.embedding = NoiseEmbedding(width)
        self.entry = nn.Linear(dim, width)
        self.hidden = nn.ModuleList(nn.Linear(width, width) for _ in range(layers))
        self.noise = nn.ModuleList(nn.Linear(width, width, bias=False) for _ in range(layers))
        self.exit = nn.Linear(width, dim)
        self.reset()

    def reset(self) -> None:
        """Set the output to 0."""
        nn.init.zeros_(self.exit.weight)
        nn.init.zeros_(self.exit.bias)

    def forward(self, scaled: Tensor, sigma: Tensor) -> Tensor:
        """F at scaled points (n, d) and noise levels () or (n,), shape (n, d)."""
        told = self.embedding(sigma)
        h = self.entry(scaled)
        for hidden, noise in zip(self.hidden, self.noise, strict=True):
            h = h + silu(hidden(h) + noise(told))
        value: Tensor = self.exit(h)
        return value

    def with_trace(self, scaled: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """F (n, d) and the trace of its Jacobian in the scaled points, (n,), with d tangents."""
        told = self.embedding(sigma)
        h, tangent = self.entry(scaled), self.entry.weight.T[:, None]
        for hidden, noise in zip(self.hidden, self.noise, strict=True):
            assert isinstance(hidden, nn.Linear)
            before = hidden(h) + noise(told)
            gate = before.sigmoid()
            h = h + before * gate
            slope = gate * (1 + before * (1 - gate))
            tangent = tangent + slope * (tangent @ hidden.weight.T)
        return self.exit(h), torch.einsum("inw,iw->n", tangent.expand(-1, len(h), -1), self.exit.weight)


class MovingAverage(nn.Module):
    """A network whose weights follow those of another one, as buffers: they are saved, and never trained.

    Parameters
    ----------
    network : ResidualNetwork
        Which is copied.
    decay : float
        Share of the average that a step keeps; fewer in the first steps, (1 + n) / (10 + n).
    """

    updates: Tensor

    def __init__(self, network: ResidualNetwork, decay: float) -> None:
        super().__init__()
        self.decay = decay
        self.network = copy.deepcopy(network)
        for module in self.network.modules():
            for name, parameter in list(module.named_parameters(recurse=False)):
                delattr(module, name)
                module.register_buffer(name, parameter.detach().clone())
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Move towards the weights of a network."""
        n = int(self.updates)
        keep = min(self.decay, (1 + n) / (10 + n))
        mine = dict(self.network.named_buffers())
        for name, parameter in network.named_parameters():
            mine[name].lerp_(parameter, 1 - keep)
        self.updates += 1

    @torch.no_grad()
    def copy(self, network: nn.Module) -> None:
        """Take the weights of a network as they are, and begin anew."""
        mine = dict(self.network.named_buffers())
        for name, parameter in network.named_parameters():
            mine[name].copy_(parameter)
        self.updates.zero_()

    def forward(self, scaled: Tensor, sigma: Tensor) -> Tensor:
        """F of the average, (n, d)."""
        value: Tensor = self.network(scaled, sigma)
        return value

    def with_trace(self, scaled: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """F of the average (n, d), and the trace of its Jacobian (n,)."""
        return self.network.with_trace(scaled, sigma)
