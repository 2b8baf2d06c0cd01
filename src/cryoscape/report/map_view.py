"""How a series of maps is looked at: what part of the box, from which side, on which grid."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import zoom

# Voxels of margin about the density.
_MARGIN = 3
# Voxels of white about the drawn surface.
_EDGE = 1.5


@dataclass(frozen=True)
class MapView:
    """A cut-out of the box that holds the density of every frame, and the screen that shows it.

    Parameters
    ----------
    corner : ndarray, shape (3,), int
        First voxel (z, y, x) of the cut-out.
    shape : ndarray, shape (3,), int
        Its voxels.
    axes : ndarray, shape (3, 3)
        Towards the eye, up and across the screen as rows of (x, y, z).
    low, high : ndarray, shape (3,)
        What the screen shows along these axes, A from the middle of the cut-out.
    voxel_size : float
        Angstrom.
    """

    corner: NDArray[np.int64]
    shape: NDArray[np.int64]
    axes: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    voxel_size: float

    def cut(self, volume: NDArray) -> NDArray:
        """Cut the part out of a map, shape (D, D, D) -> `shape`."""
        z, y, x = (slice(start, start + count) for start, count in zip(self.corner, self.shape))
        return volume[z, y, x]

    def fine(self, volume: NDArray, voxels: int) -> tuple[NDArray[np.float32], float]:
        """Cut the part out and interpolate it by cubic splines to so many voxels along its longest side.

        Parameters
        ----------
        volume : ndarray, shape (D, D, D)
            The map.
        voxels : int
            Along the longest side.

        Returns
        -------
        ndarray, float32
            The values; its first and last voxels are those of the cut-out.
        float
            Size of the new voxels, A.
        """
        part = self.cut(volume)
        # Counted between the centres of the first and the last voxel, which both grids share.
        factor = (voxels - 1) / (max(part.shape) - 1)
        counts = [round((side - 1) * factor) + 1 for side in part.shape]
        out = part.astype(np.float32)
        for axis, count in enumerate(counts):
            # Splines are separable: one small matrix an axis does what a walk over all voxels would.
            matrix = zoom(np.eye(part.shape[axis]), (count / part.shape[axis], 1), order=3)
            out = np.moveaxis(np.tensordot(matrix.astype(np.float32), out, (1, axis)), 0, axis)
        return np.ascontiguousarray(out), self.voxel_size / factor

    @property
    def turned(self) -> MapView:
        """The same seen from the right: turned by 90 degrees about the upward axis."""
        eye, up, across = self.axes
        low, high = self.low.copy(), self.high.copy()
        low[[0, 2]], high[[0, 2]] = (self.low[2], -self.high[0]), (self.high[2], -self.low[0])
        return replace(self, axes=np.stack([across, up, -eye]), low=low, high=high)


def view_of(maps: NDArray, level: float, voxel_size: float) -> MapView:
    """Choose the view that shows most of a walk.

    The direction in which the density and what changes of it are together thinnest points to the eye, the
    longest lies across.

    Parameters
    ----------
    maps : ndarray, shape (f, D, D, D)
        Frames of the walk.
    level : float
        Contour level.
    voxel_size : float
        Angstrom.

    Returns
    -------
    MapView
    """
    highest = maps.max(axis=0)
    inside = np.argwhere(highest > level)
    side = np.array(highest.shape)
    if not len(inside):
        inside = np.array([np.zeros(3, dtype=int), side - 1])
    low = np.maximum(inside.min(axis=0) - _MARGIN, 0)
    high = np.minimum(inside.max(axis=0) + _MARGIN + 1, side)
    change = np.abs(maps[-1] - maps[0])
    extent, motion = _moments(inside, np.ones(len(inside))), _moments(inside, change[tuple(inside.T)])
    combined = extent / max(np.trace(extent), 1e-9) + motion / max(np.trace(motion), 1e-9)
    thin, middle, long = np.linalg.eigh(combined)[1].T
    axes = np.stack([thin, middle, long])
    if np.linalg.det(axes) > 0:
        # Across and up and towards the eye must be right-handed: a mirrored screen shows the wrong hand.
        axes[0] = -axes[0]
    shown = (inside[:, ::-1] - 0.5 * (low + high - 1)[::-1]) @ axes.T * voxel_size
    edge = _EDGE * voxel_size
    return MapView(low, high - low, axes, shown.min(axis=0) - edge, shown.max(axis=0) + edge, voxel_size)


def _moments(voxels: NDArray, weight: NDArray) -> NDArray[np.float64]:
    """Second moments of weighted voxels about their centre, as (x, y, z)."""
    points = voxels[:, ::-1].astype(np.float64)
    total = max(float(weight.sum()), 1e-30)
    centred = points - weight @ points / total
    return (centred * weight[:, None]).T @ centred / total
