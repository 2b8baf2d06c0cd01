"""Where a map ends: the contour level of its surface."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

_BINS = 512


def contour_level(data: ArrayLike) -> float:
    """Level that parts the molecule from the solvent (Otsu 1979).

    The voxels of the inscribed sphere fall into two classes, solvent and molecule; the level is the one
    between which the two class means differ most, weighted by the sizes of the classes: it maximises
    w0 w1 (m0 - m1)^2. For a map whose molecule has one density it lies half-way up its border. No mass
    is asked for, so a map of part of a complex has a level too, and one level, that of the mean map,
    serves a whole walk: what shrinks below it has really become weaker.

    Parameters
    ----------
    data : array_like, shape (D, D, D)
        The map, protein positive.

    Returns
    -------
    float
        In the map's unit; the value itself for a map of one value.
    """
    volume = np.asarray(data, dtype=np.float64)
    values = volume[inscribed_sphere(volume.shape[0])]
    # A handful of very bright voxels must not use up the bins.
    low, high = float(values.min()), float(np.percentile(values, 99.9))
    if not high > low:
        return low
    count, edge = np.histogram(np.clip(values, low, high), bins=_BINS, range=(low, high))
    share = count / count.sum()
    centre = 0.5 * (edge[1:] + edge[:-1])
    below = np.cumsum(share)[:-1]
    moment = np.cumsum(share * centre)
    with np.errstate(divide="ignore", invalid="ignore"):
        between = (moment[-1] * below - moment[:-1]) ** 2 / (below * (1 - below))
    return float(edge[1:-1][np.nanargmax(between)])


def inscribed_sphere(box: int) -> NDArray[np.bool_]:
    """Voxels that every rotation keeps inside the box.

    Parameters
    ----------
    box : int
        Side in voxels.

    Returns
    -------
    ndarray, shape (box, box, box), bool
    """
    axis = (np.arange(box) - box // 2) ** 2
    return axis[:, None, None] + axis[None, :, None] + axis <= (box / 2) ** 2
