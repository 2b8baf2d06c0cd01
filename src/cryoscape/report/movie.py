"""The first component as a moving chain trace."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cryoscape.report.style import GREY, INK, MOTION, chain_spans
from cryoscape.structures.atomic_model import AtomicModel

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

# Beads drawn; larger complexes are thinned along their chains.
_BEADS = 1500
# Neighbours in sequence farther apart than this are not joined: a gap in the model.
_GAP = 9.0
# Height of the structure in units of plotly's scene, found by eye.
_FILL = 1.6


def movie(model: AtomicModel, coords: NDArray, position: NDArray) -> tuple[Figure, dict[str, Any]]:
    """Draw the chains, coloured by how far each residue moves, and every frame's coordinates.

    Parameters
    ----------
    model : AtomicModel
        The model of N residues.
    coords : ndarray, shape (f, N, 3)
        The frames, A.
    position : ndarray, shape (f,)
        Where each frame lies on the component, A.

    Returns
    -------
    Figure
        Traces: both ends as faint lines, the moving chains last.
    dict
        `x`, `y`, `z` of the moving trace (one list a frame) and `position`; breaks are null.
    """
    from plotly.graph_objects import Figure

    coords = np.asarray(coords, dtype=np.float64)
    centre = coords.reshape(-1, 3).mean(axis=0)
    drawn, breaks = _thinned(model)
    moved = np.linalg.norm(coords[-1] - coords[0], axis=1)
    frames = [_broken(frame[drawn] - centre, breaks) for frame in coords]
    middle = len(coords) // 2
    figure = Figure()
    for end in (frames[0], frames[-1]):
        figure.add_scatter3d(
            **_xyz(end), mode="lines", line={"color": GREY, "width": 2}, opacity=0.6, hoverinfo="skip"
        )
    colour = _broken(np.repeat(moved[drawn, None], 3, axis=1), breaks)[:, 0]
    names = [str(model.chain_id[i]) + ":" + str(model.residue_number[i]) for i in drawn]
    for at in reversed(breaks):
        names.insert(at, "")
    figure.add_scatter3d(
        **_xyz(frames[middle]),
        mode="lines",
        line={
            "width": 7 if len(drawn) < 600 else 4,
            "color": np.nan_to_num(colour).astype(np.float32),
            "colorscale": [list(stop) for stop in MOTION],
            "cmin": 0.0,
            "cmax": max(float(np.percentile(moved, 99)), 0.1),
            "colorbar": {
                "title": {"text": "moves (Å)", "font": {"size": 13}},
                "thickness": 10,
                "len": 0.6,
                "outlinewidth": 0,
            },
            "showscale": True,
        },
        text=names,
        hovertemplate="%{text}<extra></extra>",
    )
    view = _view(coords)
    everything = coords.reshape(-1, 3) - centre
    dress_scene(figure, everything, view)
    tracks: dict[str, Any] = {
        axis: [_listed(frame[:, k]) for frame in frames] for k, axis in enumerate("xyz")
    }
    labels = [f"{p:+.2f} Å" for p in position]
    return figure, tracks | {"position": [round(float(p), 2) for p in position], "label": labels, "trace": 2}


def dress_scene(figure: Figure, points: NDArray, view: NDArray) -> None:
    """Add the scale bar, the camera and the style of the page to a figure in space.

    Parameters
    ----------
    figure : Figure
        Holds what is to be seen.
    points : ndarray, shape (n, 3)
        The same as points, A.
    view : ndarray, shape (3, 3)
        Towards the eye, up and across as rows.
    """
    bar = _scale_bar(points, view)
    length = np.linalg.norm(bar[2] - bar[0])
    figure.add_scatter3d(
        **_xyz(bar), mode="lines+text", text=["", f"{length:.0f} Å", ""], textposition="top center",
        textfont={"size": 13}, line={"color": INK, "width": 5}, hoverinfo="skip",
    )  # fmt: skip
    figure.update_layout(
        template="none",
        height=520,
        showlegend=False,
        paper_bgcolor="rgba(0,0,0,0)",
        margin={"l": 0, "r": 0, "t": 0, "b": 0},
        font={"family": "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif", "size": 13, "color": INK},
        modebar={"bgcolor": "rgba(0,0,0,0)", "color": "#c3ccd4", "activecolor": "#147d92"},
        uirevision="movie",
        scene=_scene(np.concatenate([points, bar]), view),
    )


def _thinned(model: AtomicModel) -> tuple[NDArray[np.int64], list[int]]:
    """Residues drawn, and the places among them before which the line breaks."""
    step = max(1, -(-len(model) // _BEADS))
    drawn: list[int] = []
    breaks: list[int] = []
    reference = np.asarray(model.coords, dtype=np.float64)
    for span in chain_spans(model):
        if drawn:
            breaks.append(len(drawn))
        jump = np.linalg.norm(np.diff(reference[span.index], axis=0), axis=1) > _GAP
        piece = np.concatenate([[0], np.cumsum(jump)])
        for number in range(int(piece[-1]) + 1):
            members = span.index[piece == number]
            if number:
                breaks.append(len(drawn))
            kept = members[::step]
            drawn += kept.tolist() if kept[-1] == members[-1] else [*kept.tolist(), int(members[-1])]
    return np.array(drawn), breaks


def _broken(values: NDArray, breaks: list[int]) -> NDArray[np.float64]:
    return np.insert(values, breaks, np.nan, axis=0) if breaks else values


def _xyz(points: NDArray) -> dict[str, NDArray[np.float32]]:
    return {axis: points[:, k].astype(np.float32) for k, axis in enumerate("xyz")}


def _listed(values: NDArray) -> list[float | None]:
    return [None if np.isnan(v) else round(float(v), 2) for v in values]


def _view(coords: NDArray) -> NDArray[np.float64]:
    """Screen axes (towards the eye, up, across) as rows.

    Looking along the direction in which structure and motion together are thinnest shows the most.
    """
    shape = coords.reshape(-1, 3) - coords.reshape(-1, 3).mean(axis=0)
    move = coords[-1] - coords[0]
    extent, motion = shape.T @ shape / len(shape), move.T @ move / len(move)
    combined = extent / max(np.trace(extent), 1e-9) + motion / max(np.trace(motion), 1e-9)
    thin, first, second = np.linalg.eigh(combined)[1].T
    longer = np.ptp(shape @ first) > np.ptp(shape @ second)
    return np.stack([thin, second, first] if longer else [thin, first, second])


def _scene(points: NDArray, view: NDArray) -> dict[str, Any]:
    """Axes and camera with which the points fill the screen, undistorted, whatever their shape."""
    _, up, across = (np.ptp(points @ axis) for axis in view)
    # The scene is about twice as wide as high.
    scale = _FILL / max(up, across / 1.8, 1e-6)
    low, high = points.min(axis=0), np.maximum(points.max(axis=0), points.min(axis=0) + 1e-3)
    ranges = zip("xyz", low.tolist(), high.tolist())
    axes = {f"{name}axis": {"visible": False, "range": [start, end]} for name, start, end in ranges}
    eye, upward = (dict(zip("xyz", axis.tolist())) for axis in (2.4 * view[0], view[1]))
    return axes | {
        "aspectmode": "manual",
        "aspectratio": dict(zip("xyz", ((high - low) * scale).tolist())),
        "dragmode": "orbit",
        "camera": {"eye": eye, "up": upward, "projection": {"type": "orthographic"}},
    }


def _scale_bar(points: NDArray, view: NDArray) -> NDArray[np.float64]:
    """Start, middle and end of a bar of a round length across the screen, below the points."""
    _, up, across = (points @ axis for axis in view)
    size = max(float(np.ptp(across)), float(np.ptp(up)))
    length = 10.0 if size < 80 else 20.0 if size < 200 else 50.0
    start = across.min() * view[2] + (up.min() - 0.08 * size) * view[1]
    return start + np.array([0, 0.5, 1])[:, None] * length * view[2]
