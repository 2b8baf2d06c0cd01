"""Minimum free-energy paths by the simplified string method.

A path of least free energy follows G^-1 grad F: what is left of the gradient beside the path is zero,

    g - (g . t) / (t . G t) G t = 0,

with g = grad F and t the tangent. Points of a string go down that slope and are then spread out again to
equal lengths (E, Ren and Vanden-Eijnden 2007); G makes the path that of the structures (Maragliano et al.
2006). Where the slope is zero does not depend on the metric of the steps, so these are in units of the
population's standard deviation, with a little of the step before: with G^-1, directions in which little moves
would have to be followed with steps hundreds of times shorter.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline
from torch import Tensor

from cryoscape.analysis.paths.metric import DecoderMetric
from cryoscape.progress import ProgressTask

Array = NDArray[np.float64]

ITERATIONS = 400
"""At most."""

_MOMENTUM = 0.8
# How fast a steep place, such as the edge of two linear pieces, is forgotten.
_FORGET = 0.95
# Longest move in an iteration, as a share of the distance of two points; it is halved after so many, because
# on a rough surface points would wander for ever.
_LONGEST, _HALVED = 0.3, 50
# Change of the highest free energy in so many iterations below which the string has settled, kT.
_PATIENCE, _SETTLED = 25, 0.01
_MOVED = 0.01


class Surface(Protocol):
    """A free energy with a metric."""

    metric: DecoderMetric

    def __call__(self, u: Tensor) -> Tensor:
        """F (n,) at u (n, d), float64."""
        ...

    def slope(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Gradient (n, d) and metric (n, d, d) at u, float64."""
        ...


@dataclass(frozen=True, eq=False)
class StringPath:
    """A string that has come to rest, or not.

    Attributes
    ----------
    u : Tensor, shape (n, d)
        Equally spaced in A.
    iterations : int
    settled : bool
        Whether its highest free energy and its shape no longer change.
    force : float
        Root mean square of the slope beside the path, kT for a standard deviation of the population.
    """

    u: Tensor
    iterations: int
    settled: bool
    force: float


def minimum_path(
    surface: Surface, start: Tensor, *, iterations: int = ITERATIONS, task: ProgressTask | None = None
) -> StringPath:
    """Let a string go down to a path of least free energy, with its ends where they are.

    Parameters
    ----------
    surface : Surface
    start : Tensor, shape (n, d)
        Points of the first string.
    iterations : int
        At most.
    task : ProgressTask, optional
        Advanced by one an iteration.

    Returns
    -------
    StringPath
    """
    u = spread_evenly(surface.metric, start, len(start))
    velocity = torch.zeros_like(u, dtype=torch.float64)
    curvature, before = 1.0, None
    peak, shape, quiet, force = torch.inf, u, False, torch.inf
    done = 0
    for done in range(1, iterations + 1):
        slope, metric = surface.slope(u)
        beside = _beside(slope, metric, u.double())
        force = float(beside.square().sum(1).mean().sqrt())
        if before is not None:
            curvature = max(_FORGET * curvature, _curvature(u.double() - before[0], slope - before[1]))
        before = u.double(), slope
        # Where the last move leads uphill it is forgotten, point by point.
        downhill = (velocity * beside).sum(1, keepdim=True) <= 0
        velocity = _MOMENTUM * velocity * downhill - (1 - _MOMENTUM) * beside * (2 / curvature)
        longest = _LONGEST / (1 + done / _HALVED) * (u[1:] - u[:-1]).norm(dim=1).mean().double()
        size = velocity.norm(dim=1, keepdim=True)
        velocity = velocity * (longest / size.clamp_min(1e-30)).clamp_max(1)
        u = spread_evenly(surface.metric, u + velocity.to(u), len(u))
        if task is not None:
            task.advance()
        if done % _PATIENCE == 0:
            highest = float(surface(u).max())
            moved = float((u - shape).norm(dim=1).mean() / (u[-1] - u[0]).norm())
            quiet = abs(highest - peak) < _SETTLED and moved < _MOVED
            if quiet:
                break
            peak, shape = highest, u
    return StringPath(u, done, quiet, force)


def _beside(slope: Tensor, metric: Tensor, u: Tensor) -> Tensor:
    """The slope less what is along the path, (n, d); zero at both ends."""
    tangent = torch.zeros_like(u)
    tangent[1:-1] = u[2:] - u[:-2]
    along = torch.einsum("nij,nj->ni", metric, tangent)
    share = (slope * tangent).sum(1) / (tangent * along).sum(1).clamp_min(1e-30)
    out = slope - share[:, None] * along
    out[0], out[-1] = 0.0, 0.0
    return out


def _curvature(moved: Tensor, change: Tensor) -> float:
    """Largest change of the slope for its move, among the points that moved."""
    size = moved.norm(dim=1)
    kept = size > 1e-3 * size.max().clamp_min(1e-12)
    kept &= size > 1e-6
    return float((change[kept].norm(dim=1) / size[kept]).max()) if bool(kept.any()) else 0.0


def spread_evenly(metric: DecoderMetric, u: Tensor, n: int, *, rounds: int = 2, between: int = 1) -> Tensor:
    """Points on the cubic spline through u (m, d) at equal lengths in A, shape (n, d).

    The first and the last stay. Lengths are those of chords between points, so the spacing is put right once
    more after the first time; `between` chords for each interval follow the bends closely.
    """
    first, last = u[0], u[-1]
    for _ in range(rounds):
        travelled = metric.travelled(u).numpy()
        if between > 1:
            places = np.arange(between * (len(u) - 1) + 1) / between
            u = along_spline(u, travelled, np.interp(places, np.arange(len(u)), travelled))
            travelled = metric.travelled(u).numpy()
        u = along_spline(u, travelled, np.linspace(0, travelled[-1], n))
        u[0], u[-1] = first, last
    return u


def along_spline(u: Tensor, travelled: Array, places: Array) -> Tensor:
    """Points at lengths `places` (k,) of the cubic spline through u (m, d) at lengths `travelled` (m,)."""
    knots, kept = np.unique(travelled, return_index=True)
    points = u.double().numpy()[kept]
    if len(points) < 2:
        return u[:1].repeat(len(places), 1)
    return torch.as_tensor(CubicSpline(knots, points)(places)).to(u)
