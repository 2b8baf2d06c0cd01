"""Pictures of isosurfaces, computed ray by ray: no graphics card, no display, no mesh."""

from __future__ import annotations

import numpy as np
import torch
from matplotlib.colors import LinearSegmentedColormap
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from cryoscape.report.map_view import MapView
from cryoscape.report.style import MOTION

# Voxels along the longest side of the refined map that the rays see.
_VOXELS = 96
# Rays a picture element along either side, averaged against jagged edges.
_SAMPLES = 2
_KEY_LIGHT, _FILL_LIGHT = np.array([0.65, 0.55, -0.52]), np.array([0.75, -0.45, 0.48])
_AMBIENT, _KEY, _FILL, _GLOSS = 0.46, 0.54, 0.16, 0.16
_PLAIN = (0.50, 0.70, 0.77)


def draw_surface(
    volume: NDArray,
    level: float,
    view: MapView,
    pixel: float,
    *,
    tint: NDArray | None = None,
    top: float = 1.0,
) -> NDArray[np.float32]:
    """Draw the isosurface of a map on white.

    The map is refined by cubic splines and turned into the frame of the screen; every ray then looks for its
    first crossing of the level. The gradient there gives the shading, differences of depth give the shadow
    in clefts and the dark outline.

    Parameters
    ----------
    volume : ndarray, shape (D, D, D)
        The map.
    level : float
        Contour level.
    view : MapView
        What to look at and from where.
    pixel : float
        Size of a picture element, A.
    tint : ndarray, shape (D, D, D), optional
        A map that colours the surface, from 0 (blue) to `top` (red).
    top : float
        Value of `tint` at the red end.

    Returns
    -------
    ndarray, shape (rows, columns, 3), float32
        Colours from 0 to 1; the size follows from the view.
    """
    rows, columns = (int(np.ceil((view.high[k] - view.low[k]) / pixel)) * _SAMPLES for k in (1, 2))
    on_screen, voxel = _turned(volume, view)
    depth, hit = _march(on_screen, level, rows, columns)
    normal = _sample(np.stack(np.gradient(gaussian_filter(on_screen, 1.0))), depth)
    normal = -normal / np.maximum(np.linalg.norm(normal, axis=0), 1e-12)
    # Towards the eye, up, across: depth and rows of the picture run the other way.
    normal = np.stack([-normal[0], -normal[1], normal[2]], axis=-1)
    colour = np.tile(np.array(_PLAIN), (rows, columns, 1))
    if tint is not None:
        shade = _sample(_turned(tint, view)[0][None], depth)[0]
        scale = LinearSegmentedColormap.from_list("motion", list(MOTION))
        colour = scale(np.clip(shade / max(top, 1e-12), 0, 1))[..., :3]
    distance, step = -depth * voxel, pixel / _SAMPLES
    shaded = _shade(colour, normal) * _cleft(distance, hit, step)[..., None]
    picture = np.where(hit[..., None], np.clip(shaded, 0, 1), 1.0)
    picture *= 1 - 0.75 * _outline(distance, hit, voxel)[..., None]
    blocks = picture.reshape(rows // _SAMPLES, _SAMPLES, columns // _SAMPLES, _SAMPLES, 3)
    return blocks.mean(axis=(1, 3)).astype(np.float32)


def _turned(volume: NDArray, view: MapView) -> tuple[NDArray[np.float32], float]:
    """The refined map on a grid of the screen: (away from the eye, down, across), and its voxel size, A."""
    fine, voxel = view.fine(volume, _VOXELS)
    counts = [max(2, int(np.ceil((high - low) / voxel)) + 1) for low, high in zip(view.low, view.high)]
    away, down, across = (np.linspace(low, high, n) for low, high, n in zip(view.low, view.high, counts))
    eye, up, sideways = view.axes
    points = (
        away[::-1, None, None, None] * eye + down[::-1, None, None] * up + across[:, None] * sideways
    ) / voxel
    size = np.array(fine.shape[::-1])
    where = torch.from_numpy((points * (2 / (size - 1))).astype(np.float32))
    field = torch.from_numpy(fine)[None, None]
    found = torch.nn.functional.grid_sample(field, where[None], align_corners=True)
    return found[0, 0].numpy(), float(away[1] - away[0])


def _march(
    on_screen: NDArray[np.float32], level: float, rows: int, columns: int
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Where each ray first meets the level, in layers away from the eye, and whether it does."""
    layers = torch.from_numpy(on_screen)[None]
    depth = np.full((rows, columns), len(on_screen) - 1.0)
    hit = np.zeros((rows, columns), dtype=bool)
    before = np.full((rows, columns), -np.inf, dtype=np.float32)
    for k in range(len(on_screen)):
        if float(on_screen[k].max()) <= level:
            before[:] = -np.inf
            continue
        here = torch.nn.functional.interpolate(
            layers[:, k : k + 1], size=(rows, columns), mode="bilinear", align_corners=True
        )[0, 0].numpy()
        new = ~hit & (here > level)
        known = np.isfinite(before[new])
        part = np.ones(len(known))
        part[known] = (level - before[new][known]) / (here[new][known] - before[new][known])
        depth[new] = k - 1 + part
        hit |= new
        before = here
    return depth, hit


def _sample(fields: NDArray[np.float32], depth: NDArray) -> NDArray[np.float32]:
    """Trilinear values of maps on the screen's grid (c, layers, h, w) where the rays end."""
    rows, columns = depth.shape
    v, u = np.meshgrid(np.linspace(-1, 1, rows), np.linspace(-1, 1, columns), indexing="ij")
    where = np.stack([u, v, depth * (2 / (fields.shape[1] - 1)) - 1], axis=-1).astype(np.float32)
    found = torch.nn.functional.grid_sample(
        torch.from_numpy(np.ascontiguousarray(fields))[None],
        torch.from_numpy(where)[None, None],
        align_corners=True,
    )
    return found[0, :, 0].numpy()


def _shade(colour: NDArray, normal: NDArray) -> NDArray[np.float64]:
    """Light from the upper left, a weaker one from the lower right, and a soft gloss."""
    light = np.full(normal.shape[:-1], _AMBIENT)
    for direction, strength in ((_KEY_LIGHT, _KEY), (_FILL_LIGHT, _FILL)):
        light += strength * np.clip(normal @ (direction / np.linalg.norm(direction)), 0, 1)
    half = _KEY_LIGHT / np.linalg.norm(_KEY_LIGHT) + np.array([1.0, 0.0, 0.0])
    gloss = _GLOSS * np.clip(normal @ (half / np.linalg.norm(half)), 0, 1) ** 24
    return colour * light[..., None] + gloss[..., None]


def _cleft(distance: NDArray, hit: NDArray, step: float) -> NDArray[np.float64]:
    """Darkening where the surface lies behind its surroundings; `step` between rays and distance in A."""
    dark = np.zeros(distance.shape)
    size = step * np.sqrt(hit.sum())
    for reach in (0.04 * size, 0.1 * size):
        width = reach / step
        weight = gaussian_filter(hit.astype(np.float32), width, truncate=2.5)
        around = gaussian_filter(np.where(hit, distance, 0.0).astype(np.float32), width, truncate=2.5)
        dark += np.clip((around / np.maximum(weight, 1e-6) - distance) / max(reach, 1e-6), 0, 1) * weight
    return 1 - 0.45 * np.clip(dark, 0, 1)


def _outline(distance: NDArray, hit: NDArray, voxel: float) -> NDArray[np.float64]:
    """Lines along the rim of the molecule and where one part stands before another."""
    far = np.where(hit, distance, distance.min() - 100 * voxel)
    jump = np.zeros(far.shape)
    for axis in (0, 1):
        for shift in (-1, 1):
            jump = np.maximum(jump, np.roll(far, shift, axis=axis) - far)
    return np.clip((jump / voxel - 3.5) / 3.0, 0, 1)
