"""The first component as a moving isosurface that can be turned."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

from cryoscape.report.isosurface import isosurface
from cryoscape.report.map_series import MapSeries
from cryoscape.report.map_view import MapView, view_of
from cryoscape.report.movie import dress_scene
from cryoscape.report.style import MOTION

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

# Voxels along the longest side tried, the finest first, and the vertices a frame that a page carries well.
_SIDES, _VERTICES = (64, 56, 48, 40, 32), 7000
_WHOLE = 65535


def map_movie(series: MapSeries) -> tuple[Figure, dict[str, Any]]:
    """Draw the surface, coloured by how much the density varies there, and every frame's triangles.

    Parameters
    ----------
    series : MapSeries
        The walk.

    Returns
    -------
    Figure
        Traces: the surface first, the scale bar.
    dict
        `mesh`: for every frame `v` (vertices, 16-bit steps), `f` (triangles, 16-bit) and `c` (colours,
        8-bit), little-endian in base64; `origin` and `step` (A) of the vertices; `position`, `label` and
        `trace`.
    """
    from plotly.graph_objects import Figure

    view = view_of(series.maps, series.level, series.voxel_size)
    side = _affordable_side(series, view)
    frames = [_frame(series, volume, view, side) for volume in series.maps]
    half = (view.shape[::-1] - 1) * series.voxel_size / 2
    step = float(2 * half.max() / _WHOLE)
    middle = frames[len(frames) // 2]
    figure = Figure()
    figure.add_mesh3d(
        **dict(zip("xyz", (middle[0] - half).T.astype(np.float32))),
        **dict(zip("ijk", middle[1].T.astype(np.int32))),
        intensity=middle[2].astype(np.int32),
        colorscale=[list(stop) for stop in MOTION],
        cmin=0,
        cmax=255,
        colorbar={
            "title": {"text": "density varies", "font": {"size": 13}, "side": "right"},
            "tickvals": [0, 255],
            "ticktext": ["least", "most"],
            "thickness": 10,
            "len": 0.6,
            "outlinewidth": 0,
        },
        lighting={"ambient": 0.45, "diffuse": 0.75, "specular": 0.15, "roughness": 0.6, "fresnel": 0.1},
        # From beside the eye, above and to the left, as in the still pictures.
        lightposition=dict(zip("xyz", (np.array([0.6, 0.65, -0.6]) @ view.axes * 1e4).tolist())),
        hoverinfo="skip",
    )
    dress_scene(figure, np.concatenate([frame[0] for frame in frames]) - half, view.axes)
    return figure, {
        "mesh": [
            {
                "v": _packed(np.round(vertices / step).clip(0, _WHOLE), "<u2"),
                "f": _packed(triangles, "<u2"),
                "c": _packed(colours, "u1"),
            }
            for vertices, triangles, colours in frames
        ],
        "origin": [-float(h) for h in half],
        "step": step,
        "position": list(range(len(frames))),
        "label": list(series.labels),
        "trace": 0,
    }


def _affordable_side(series: MapSeries, view: MapView) -> int:
    middle = series.maps[len(series.maps) // 2]
    for side in _SIDES:
        if len(isosurface(view.fine(middle, side)[0], series.level)[0]) <= _VERTICES:
            return side
    return _SIDES[-1]


def _frame(
    series: MapSeries, volume: NDArray, view: MapView, side: int
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """Vertices (A from the first voxel of the cut-out), triangles and colours from 0 to 255."""
    fine, voxel = view.fine(volume, side)
    vertices, triangles = isosurface(fine, series.level)
    if not len(vertices):
        # A frame below the level everywhere is an empty picture, which plotly draws as one point.
        vertices, triangles = np.zeros((1, 3)), np.zeros((0, 3), dtype=np.int64)
    varies = map_coordinates(view.fine(series.deviation, side)[0], vertices.T[::-1], order=1, mode="nearest")
    colours = np.clip(255 * varies / max(series.top, 1e-12), 0, 255).astype(np.int64)
    return vertices * voxel, triangles, colours


def _packed(values: NDArray, kind: str) -> str:
    return base64.b64encode(np.ascontiguousarray(values, dtype=kind).tobytes()).decode("ascii")
