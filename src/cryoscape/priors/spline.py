"""Monotone rational-quadratic splines on a square box, the identity outside.

Source: Gregory and Delbourgo, IMA J. Numer. Anal. 2 (1982); as layers of flows: Durkan et al., Neural Spline
Flows (2019), equations 4 to 8 and 19 to 25.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import pad, softplus

_LEAST = 1e-3
"""Smallest width and height of a bin, as a share of the box, and smallest slope at a knot."""
_UNIT = math.log(math.expm1(1 - _LEAST))
_STEEPEST = 15.0
"""Logits of the sizes beyond this make no difference."""


@dataclass(frozen=True)
class _Bins:
    """The pieces that numbers (...) fall into; lengths are shares of the box.

    Attributes
    ----------
    inside : Tensor, shape (...), bool
        Whether a number is in the box.
    place : Tensor, shape (...)
        Where in the box, 0 to 1.
    index : Tensor, shape (..., 1), int64
        Of K pieces.
    share : Tensor, shape (..., 2, K)
        Softmax of the logits.
    width, height, left, bottom : Tensor, shape (...)
        Of the piece.
    first, last : Tensor, shape (...)
        Slopes at its two knots.
    """

    inside: Tensor
    place: Tensor
    index: Tensor
    share: Tensor
    width: Tensor
    height: Tensor
    left: Tensor
    bottom: Tensor
    first: Tensor
    last: Tensor

    @classmethod
    def of(cls, x: Tensor, sizes: Tensor, slopes: Tensor, bound: float, axis: int) -> _Bins:
        """Look numbers up among the widths (axis 0) or the heights (axis 1)."""
        # By hand: much faster than softmax along so few entries.
        weight = sizes.contiguous().clamp(-_STEEPEST, _STEEPEST).exp_()
        share = weight.div_(weight.sum(-1, keepdim=True))
        length = share * (1 - sizes.shape[-1] * _LEAST) + _LEAST
        ends = length.cumsum(-1)
        place = (x + bound) / (2 * bound)
        inside = (place - 0.5).abs() < 0.5
        place = place.clamp(0, 1)
        index = (ends[..., axis, :-1] <= place[..., None]).sum(-1, keepdim=True)
        both = index[..., None, :].expand(*sizes.shape[:-1], 1)
        size = length.gather(-1, both)[..., 0]
        start = ends.gather(-1, both)[..., 0] - size
        knots = pad(softplus(slopes + _UNIT) + _LEAST, (1, 1), value=1.0)
        first, last = knots.gather(-1, index)[..., 0], knots.gather(-1, index + 1)[..., 0]
        (width, height), (left, bottom) = size.unbind(-1), start.unbind(-1)
        return cls(inside, place, index, share, width, height, left, bottom, first, last)


class _Spline(torch.autograd.Function):
    """The spline with its derivatives in closed form, which takes a third of the time of recorded ones."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, sizes: Tensor, slopes: Tensor, bound: float) -> tuple[Tensor, Tensor]:
        b = _Bins.of(x, sizes, slopes, bound, 0)
        t = (b.place - b.left) / b.width
        mean, square = b.height / b.width, t * t
        across = t - square
        bend = b.first + b.last - 2 * mean
        below = torch.addcmul(mean, bend, across)
        above = torch.addcmul(mean * square, b.first, across)
        # Of the numerator of the slope: first (1 - t)^2 + 2 mean t (1 - t) + last t^2.
        slope = torch.addcmul(b.first + 2 * (mean - b.first) * t, bend, square)
        steep = (mean / below).square() * slope
        y = b.bottom + b.height * above / below
        ctx.bins, ctx.bound = b, bound
        ctx.save_for_backward(t, mean, across, bend, below, above, slope, steep, slopes)
        return torch.where(b.inside, (2 * bound) * y - bound, x), torch.where(b.inside, steep.log(), 0.0)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g_y: Tensor, g_log: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        b: _Bins = ctx.bins
        t, mean, across, bend, below, above, slope, steep, slopes = ctx.saved_tensors
        # Of y as a share of the box; outside of it nothing but x counts.
        up = torch.where(b.inside, (2 * ctx.bound) * g_y, 0.0)
        log = torch.where(b.inside, g_log, 0.0)
        in_slope, in_below = log / slope, -2 * log / below
        pull = up * b.height / below.square()
        square, turn = t * t, 1 - 2 * across
        # Derivatives in t (half of that of log slope), the mean slope and the slopes at the knots.
        half = torch.addcmul(torch.addcmul(mean - b.first, bend, t) * in_slope, in_below, bend * (0.5 - t))
        by_t = torch.addcmul(2 * half, up * b.width, steep)
        by_mean = (
            pull * (square * below - above * turn) + in_below * turn + 2 * (log / mean + in_slope * across)
        )
        shared = in_below * across
        pull = pull * across
        by_first = torch.addcmul(shared + in_slope * (1 - t).square(), pull, below - above)
        by_last = torch.addcmul(shared + in_slope * square, pull, above, value=-1)
        # In what these are made of.
        by_place = by_t / b.width
        by_width = -(by_place * t + by_mean * mean / b.width)
        by_height = up * above / below + by_mean / b.width
        g_sizes = _through_sizes(b, torch.stack((by_width, by_height, -by_place, up), -1))
        g_slopes = _through_slopes(b.index, slopes, by_first, by_last)
        return torch.where(b.inside, by_place / (2 * ctx.bound), g_y), g_sizes, g_slopes, None


def _through_sizes(b: _Bins, given: Tensor) -> Tensor:
    """Derivatives in the logits (..., 2, K) from those in sizes and starts of the pieces, (..., 4)."""
    bins = b.share.shape[-1]
    number, index = torch.arange(bins, device=b.index.device), b.index[..., None, :]
    by_size, by_start = given[..., :2, None], given[..., 2:, None]
    g = torch.where(number < index, by_start, torch.where(number == index, by_size, 0.0))
    g = (1 - bins * _LEAST) * b.share * g
    return torch.addcmul(g, b.share, g.sum(-1, keepdim=True), value=-1)


def _through_slopes(index: Tensor, slopes: Tensor, by_first: Tensor, by_last: Tensor) -> Tensor:
    """Derivatives in the numbers behind the inner slopes (..., K - 1)."""
    number = torch.arange(slopes.shape[-1], device=index.device)
    first = torch.where(number == index - 1, by_first[..., None], 0.0)
    g = torch.where(number == index, by_last[..., None], first)
    return g * torch.sigmoid(slopes + _UNIT)


def spline(x: Tensor, sizes: Tensor, slopes: Tensor, bound: float) -> tuple[Tensor, Tensor]:
    """Apply a spline of K pieces to every number; differentiable once.

    Parameters
    ----------
    x : Tensor, shape (...)
    sizes : Tensor, shape (..., 2, K)
        Logits of the widths and heights of the pieces; equal ones where they are 0.
    slopes : Tensor, shape (..., K - 1)
        At the inner knots, before a softplus; 1 where they are 0. At the ends of the box the slope is 1.
    bound : float
        The box is [-bound, bound] in both directions.

    Returns
    -------
    y : Tensor, shape (...)
    log_slope : Tensor, shape (...)
    """
    return _Spline.apply(x, sizes, slopes, bound)


def inverse_spline(y: Tensor, sizes: Tensor, slopes: Tensor, bound: float) -> Tensor:
    """The x of which `spline` makes y, shape (...); parameters as there."""
    b = _Bins.of(y, sizes, slopes, bound, 1)
    mean, rise = b.height / b.width, b.place - b.bottom
    bend = rise * (b.first + b.last - 2 * mean)
    # a t^2 + b t = c with the root between 0 and 1.
    quadratic, linear = b.height * (mean - b.first) + bend, b.height * b.first - bend
    constant = mean * rise
    root = (linear.square() + 4 * quadratic * constant).clamp_min(0).sqrt()
    t = (2 * constant / (linear + root)).clamp(0, 1)
    return torch.where(b.inside, bound * (2 * (b.left + b.width * t) - 1), y)
