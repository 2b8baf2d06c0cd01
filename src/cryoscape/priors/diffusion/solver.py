"""An adaptive Runge-Kutta solver of order 5(4) (Dormand and Prince 1980) for batches of states."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

Field = Callable[[float, Tensor], Tensor]
"""Time and states (n, m) -> their derivatives (n, m)."""

_TIMES = (0.0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0)
_STAGES = (
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
# Weights of order 5 less those of order 4.
_ERROR = (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)
_LEAST = 1e-6
"""Steps are not made shorter than this share of the way, whatever the error."""


def integrate(field: Field, state: Tensor, start: float, end: float, tolerance: float) -> Tensor:
    """Follow a differential equation.

    The step is the same for all states of a batch, so that the worst of them sets it. Gradients pass through
    the steps taken, whose lengths count as constants; every step is computed again on the way back, so that
    memory does not grow with their number.

    Parameters
    ----------
    field : Field
    state : Tensor, shape (n, m)
    start, end : float
        Times; the end may come before the start.
    tolerance : float
        Local error allowed, both absolute and relative. In single precision it is not taken below 4e-6.

    Returns
    -------
    Tensor, shape (n, m)
        States at the end; not finite where the field is not.
    """
    tolerance = max(tolerance, 30 * torch.finfo(state.dtype).eps)
    way = end - start
    time, step = start, 0.02 * way
    differentiable = torch.is_grad_enabled() and state.requires_grad

    def attempt(
        time: float, step: float, state: Tensor, slope: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """States after a step, their error, and their slope, which is the first of the next step."""
        slopes = [field(time, state) if slope is None else slope]
        for part, weights in zip(_TIMES[1:], _STAGES, strict=True):
            at = state + step * _combined(weights, slopes)
            slopes.append(field(time + part * step, at))
        # The last stage is at the end of the step.
        return at, step * _combined(_ERROR, slopes), slopes[-1]

    with torch.no_grad():
        slope = field(start, state)

    while abs(end - time) > 1e-12 * abs(way):
        step = max(min(abs(step), abs(end - time)), min(_LEAST * abs(way), abs(end - time)))
        step = step if way > 0 else -step
        with torch.no_grad():
            following, error, last = attempt(time, step, state, slope)
            size = 1 + torch.maximum(state.abs(), following.abs())
            worst = float((error / (tolerance * size)).square().mean(-1).max().sqrt()) if len(state) else 0.0
        if not worst < float("inf") and abs(step) <= 2 * _LEAST * abs(way):
            return torch.full_like(state, float("nan"))
        if worst <= 1 or abs(step) <= 1.01 * _LEAST * abs(way):
            if differentiable:
                following, *_ = checkpoint(attempt, time, step, state, use_reentrant=False)
            state, time, slope = following, time + step, last
        step *= 0.2 if not worst < float("inf") else min(5.0, max(0.2, 0.9 * max(worst, 1e-8) ** -0.2))
    return state


def _combined(weights: tuple[float, ...], slopes: list[Tensor]) -> Tensor:
    total = weights[0] * slopes[0]
    for weight, slope in zip(weights[1:], slopes[1:], strict=True):
        if weight:
            total = total + weight * slope
    return total
