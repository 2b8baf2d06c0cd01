"""Points of a cloud that lie far apart."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def farthest_points(points: NDArray, count: int) -> NDArray[np.int64]:
    """Points chosen one by one, each the farthest from all before (Gonzalez 1985).

    Parameters
    ----------
    points : ndarray, shape (n, k)
    count : int
        How many; fewer where there are fewer different ones.

    Returns
    -------
    ndarray, shape (m,), int64
        Their indices; the first is the nearest to the mean.
    """
    points = np.asarray(points, dtype=np.float64)
    chosen = [int(np.square(points - points.mean(axis=0)).sum(axis=1).argmin())]
    distance = np.square(points - points[chosen[0]]).sum(axis=1)
    while len(chosen) < count and distance.max() > 0:
        chosen.append(int(distance.argmax()))
        distance = np.minimum(distance, np.square(points - points[chosen[-1]]).sum(axis=1))
    return np.array(chosen, dtype=np.int64)


def farthest_pair(points: NDArray) -> tuple[int, int]:
    """Indices of the two of points (n, k) that lie farthest apart."""
    distance = np.square(points[:, None] - points[None]).sum(-1)
    first, second = np.unravel_index(distance.argmax(), distance.shape)
    return int(first), int(second)
