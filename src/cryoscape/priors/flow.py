"""Neural spline flow: a learned bijection to a standard normal base.

log p(z) = log N(f(z); 0, I) + log |det df/dz| exactly, with f autoregressive rational-quadratic splines
(Durkan et al. 2019) whose knots come from masked networks (zuko). f itself is one pass of its networks, so
densities are fast; its inverse takes d of them.

The splines act within five whitened units of the origin; beyond, f is the identity and the density that of
the base. The base has one mode, and f is continuous: states that are apart stay connected by thin bridges.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from cryoscape.priors.base import FitSchedule, LogPartition
from cryoscape.priors.spline import inverse_spline, spline
from cryoscape.priors.transport import TransportPrior

BOX = 5.0
"""Half the side of the box of the splines, in whitened units."""

_PART = 8192


class SplineLayer(nn.Module):
    """One autoregressive layer: a spline for every dimension, its knots told by the dimensions before it.

    Parameters
    ----------
    order : Tensor, shape (d,), int64
        Rank of every dimension.
    hidden : tuple of int
        Widths of the network.
    bins : int
        Pieces of the spline.

    Attributes
    ----------
    network : MaskedMLP
        Its last layer is 0 at first, which makes the layer the identity.
    """

    def __init__(self, order: Tensor, hidden: tuple[int, ...], bins: int) -> None:
        super().__init__()
        from zuko.nn import MaskedMLP

        self.dim, self.bins = len(order), bins
        # A constant input stands for what the first dimension, which knows no other, may be told.
        before = torch.cat([order[:, None] > order, torch.ones(len(order), 1, dtype=torch.bool)], 1)
        self.network = MaskedMLP(before.repeat_interleave(3 * bins - 1, 0), hidden, nn.SiLU)
        for parameter in list(self.network.parameters())[-2:]:
            nn.init.zeros_(parameter)

    def _knots(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Sizes (..., d, 2, K) and slopes (..., d, K - 1) for points (..., d)."""
        told = self.network(pad(x, (0, 1), value=1.0))
        told = told.unflatten(-1, (self.dim, 3 * self.bins - 1))
        sizes, slopes = told.split([2 * self.bins, self.bins - 1], -1)
        return sizes.unflatten(-1, (2, self.bins)), slopes

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Points (..., d) to points (..., d), and log of the Jacobian's determinant (...)."""
        y, log_slope = spline(x, *self._knots(x), BOX)
        return y, log_slope.sum(-1)

    def invert(self, y: Tensor) -> Tensor:
        """The way back, (..., d) -> (..., d): d passes, in each of which one more dimension is right."""
        x = y
        for _ in range(self.dim):
            x = inverse_spline(y, *self._knots(x), BOX)
        return x


class FlowPrior(TransportPrior):
    """Neural spline flow.

    Parameters
    ----------
    z_dim : int
        Dimension d of z.
    transforms : int
        Autoregressive layers; every other one takes the dimensions in the opposite order.
    hidden : tuple of int
        Widths of the network of each layer.
    bins : int
        Pieces of each spline.

    Attributes
    ----------
    layers : ModuleList of SplineLayer
        From whitened units to the base. A new prior is N(0, I).
    """

    schedule = FitSchedule(steps=3000, batch=512, lr=2e-3)

    def __init__(
        self, z_dim: int, *, transforms: int = 3, hidden: tuple[int, ...] = (64, 64), bins: int = 8
    ) -> None:
        super().__init__(z_dim)
        order = torch.arange(z_dim)
        orders = [order if i % 2 == 0 else order.flip(0) for i in range(transforms)]
        self.layers = nn.ModuleList(SplineLayer(ranks, hidden, bins) for ranks in orders)

    def _transport(self, u: Tensor) -> tuple[Tensor, Tensor]:
        log_det = torch.zeros_like(u[..., 0])
        for layer in self.layers:
            u, part = layer(u)
            log_det = log_det + part
        return u, log_det

    def unit_energy(self, u: Tensor) -> Tensor:
        """Return -log p, shape (..., d) -> (...), nats."""
        base, log_det = self._transport(u)
        return 0.5 * base.square().sum(-1) + 0.5 * self.z_dim * math.log(2 * math.pi) - log_det

    def unit_log_partition(self) -> LogPartition:
        """Return 0: the energy is normalised."""
        return LogPartition.exact()

    def unit_encode(self, u: Tensor) -> Tensor:
        """Whitened points (..., d) to the base."""
        return self._transport(u)[0]

    def unit_decode(self, base: Tensor) -> Tensor:
        """Base (..., d) to whitened points."""
        for layer in reversed(self.layers):
            assert isinstance(layer, SplineLayer)
            base = layer.invert(base)
        return base

    @torch.no_grad()
    def unit_sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw n points of the base and decode them."""
        noise = torch.randn(n, self.z_dim, generator=generator, dtype=self.shift.dtype).to(self.shift.device)
        return torch.cat([self.unit_decode(part) for part in noise.split(_PART)])
