"""How far along a path a structure is: a collective variable whose value is a length, A."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_END = 0.15
"""Share of a path whose chord gives the direction in which it goes on beyond its end."""


class PathProgress:
    """Length of a polyline up to the nearest point of it.

    Beyond its ends it goes on straight, by half its length, so that what lies behind an end has a place of
    its own.

    Parameters
    ----------
    places : ndarray, shape (n, P)
        Points of the path whose distances are lengths, A.
    travelled : ndarray, shape (n,)
        Length up to each.

    Attributes
    ----------
    length : float
        Of the path, A.
    """

    def __init__(self, places: Array, travelled: Array) -> None:
        self.length = float(travelled[-1])
        beyond = 0.5 * self.length
        inner = max(1, round(_END * (len(places) - 1)))
        first = places[0] + beyond * _direction(places[inner], places[0])
        last = places[-1] + beyond * _direction(places[-1 - inner], places[-1])
        self._places = np.concatenate([first[None], places, last[None]])
        self._travelled = np.concatenate([[-beyond], travelled, [self.length + beyond]])

    def __call__(self, places: Array) -> tuple[Array, Array]:
        """Progress and distance from the path, A, of points (m, P): shapes (m,) and (m,)."""
        starts, steps = self._places[:-1], np.diff(self._places, axis=0)
        squared = np.square(steps).sum(axis=1)
        # Distances of nearly equal places: those from the middle keep their digits.
        middle = self._places.mean(axis=0)
        moved, starts = places - middle, starts - middle
        along = moved @ steps.T - (starts * steps).sum(axis=1)
        share = np.clip(along / np.maximum(squared, 1e-300), 0, 1)
        away = np.square(moved).sum(axis=1)[:, None] + np.square(starts).sum(axis=1) - 2 * moved @ starts.T
        away = away - 2 * share * along + np.square(share) * squared
        nearest = away.argmin(axis=1)
        rows = np.arange(len(places))
        stretch = np.diff(self._travelled)[nearest]
        progress = self._travelled[nearest] + share[rows, nearest] * stretch
        return progress, np.sqrt(np.maximum(away[rows, nearest], 0))


def _direction(start: Array, end: Array) -> Array:
    step = end - start
    return step / max(float(np.linalg.norm(step)), 1e-300)
