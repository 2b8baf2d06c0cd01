"""Pictures of the maps of a run as PNG and GIF files, drawn without a display."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from cryoscape.analysis.summary import AnalysisSummary
from cryoscape.files import atomic_path
from cryoscape.report.map_series import MapSeries, read_groups, read_walk
from cryoscape.report.map_view import MapView, view_of
from cryoscape.report.plots import save_figure
from cryoscape.report.raycast import draw_surface
from cryoscape.report.style import INK, MUTED

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Frames of a walk in a still picture; pictures of groups in a row.
_STILLS, _ROW = 5, 6
# Picture elements of a frame along its longer side, and milliseconds between two in the movie.
_SIZE, _FRAME_TIME = 300, 110
_DPI = 140
_GAP, _HEAD = 14, 32


def write_map_plots(folder: Path, summary: AnalysisSummary) -> list[Path]:
    """Draw the walks, the groups and where the density changes into `analysis/`.

    Parameters
    ----------
    folder : Path
        The run.
    summary : AnalysisSummary
        Its analysis.

    Returns
    -------
    list of Path
        `pc1_maps.png`, ... (frames of the walks, seen from two sides), `pc1.gif`, `cluster_maps.png` and
        `map_slices.png`, as far as their maps are there.
    """
    target, drawn = folder / "analysis", []
    target.mkdir(parents=True, exist_ok=True)
    for number, walk in enumerate(summary.traversals):
        series = read_walk(folder, summary, number)
        if series is None:
            continue
        chosen = np.unique(np.linspace(0, len(series.maps) - 1, _STILLS).round().astype(int))
        view = view_of(series.maps, series.level, series.voxel_size)
        # The movie of the first walk needs every frame, the stills some of them from two sides.
        pixel = _pixel(view)
        seen = _draw(series, range(len(series.maps)) if number == 0 else chosen, view, pixel)
        rows = [[seen[k] for k in chosen], list(_draw(series, chosen, view.turned, pixel).values())]
        labels = [series.labels[k] for k in chosen]
        drawn.append(_write_pictures(target / f"{walk.name}_maps.png", rows, labels))
        if number == 0:
            drawn.append(_write_movie(target / f"{walk.name}.gif", list(seen.values())))
            drawn.append(save_figure(target / "map_slices.png", (10, 7.4), _slices(series)))
    groups = read_groups(folder, summary)
    if groups is not None:
        drawn.append(_write_groups(target / "cluster_maps.png", groups))
    return drawn


def _write_groups(path: Path, series: MapSeries) -> Path:
    view = view_of(series.maps, series.level, series.voxel_size)
    pictures = list(_draw(series, range(len(series.maps)), view, _pixel(view)).values())
    rows = [pictures[k : k + _ROW] for k in range(0, len(pictures), _ROW)]
    return _write_pictures(path, rows, list(series.labels))


def _pixel(view: MapView) -> float:
    """Size of a picture element, A."""
    return float((view.high - view.low)[1:].max() / _SIZE)


def _draw(
    series: MapSeries, chosen: Iterable[int], view: MapView, pixel: float
) -> dict[int, NDArray[np.float32]]:
    return {
        k: draw_surface(series.maps[k], series.level, view, pixel, tint=series.deviation, top=series.top)
        for k in chosen
    }


def _write_pictures(path: Path, rows: list[list[NDArray]], labels: list[str]) -> Path:
    """Rows of pictures, element for element; labels above the first rows, as far as they reach."""
    width = max(picture.shape[1] for row in rows for picture in row) + _GAP
    named = [labels[k : k + len(rows[0])] for k in range(0, len(labels), len(rows[0]))]
    heads = [_HEAD if k < len(named) else _GAP for k in range(len(rows))]
    whole = (width * len(rows[0]), sum(row[0].shape[0] for row in rows) + sum(heads))

    def draw(figure: Figure) -> None:
        figure.set_layout_engine("none")
        top = float(whole[1])
        for number, (row, head) in enumerate(zip(rows, heads)):
            for k, picture in enumerate(row):
                middle = (k + 0.5) * width
                tall, wide = picture.shape[:2]
                place = np.array([middle - wide / 2, top - head - tall, wide, tall])
                axes = figure.add_axes(tuple(place / np.array([*whole, *whole])))
                axes.imshow(picture, interpolation="none", aspect="auto")
                axes.set_axis_off()
                if number < len(named):
                    at = (middle / whole[0], (top - 0.55 * head) / whole[1])
                    figure.text(*at, named[number][k], ha="center", va="center")
            top -= head + row[0].shape[0]

    return save_figure(path, (whole[0] / _DPI, whole[1] / _DPI), draw)


def _write_movie(path: Path, pictures: list[NDArray[np.float32]]) -> Path:
    """The walk there and back, for slides."""
    from PIL import Image

    drawn = [(255 * picture).astype(np.uint8) for picture in pictures]
    # One palette for all frames, or colours would flicker.
    palette = Image.fromarray(np.concatenate(drawn[:: max(1, len(drawn) // 5)])).quantize(255)
    frames = [
        Image.fromarray(picture).quantize(palette=palette, dither=Image.Dither.NONE) for picture in drawn
    ]
    order = [*frames, *frames[-2:0:-1]]
    with atomic_path(path) as temporary:
        order[0].save(
            temporary, format="GIF", save_all=True, append_images=order[1:], duration=_FRAME_TIME, loop=0
        )
    return path


def _slices(series: MapSeries) -> Callable[[Figure], None]:
    """Sections through the place that varies most: both ends, their difference, the variation."""
    view = view_of(series.maps, series.level, series.voxel_size)
    first, last = (view.cut(series.maps[k]) for k in (0, -1))
    varies = view.cut(series.deviation)
    place = np.unravel_index(gaussian_filter(varies, 1.0).argmax(), varies.shape)
    dense = float(np.percentile(np.concatenate([first.ravel(), last.ravel()]), 99.8))
    apart = max(float(np.abs(last - first).max()), 1e-12)
    columns: list[tuple[str, NDArray, dict[str, Any]]] = [
        (f"start ({series.labels[0]})", first, {"cmap": "gray_r", "vmin": 0, "vmax": dense}),
        (f"end ({series.labels[-1]})", last, {"cmap": "gray_r", "vmin": 0, "vmax": dense}),
        ("end − start", last - first, {"cmap": "RdBu_r", "vmin": -apart, "vmax": apart}),
        ("sd over particles", varies, {"cmap": "YlOrRd", "vmin": 0, "vmax": varies.max()}),
    ]

    def draw(figure: Figure) -> None:
        sides = [varies.shape[axis] for axis in (1, 0, 0)]
        panels = figure.subplots(3, len(columns), height_ratios=sides, squeeze=False)
        for row, (axis, name) in enumerate(((0, "xy"), (1, "xz"), (2, "yz"))):
            for column, (title, data, style) in enumerate(columns):
                axes = panels[row, column]
                axes.imshow(data.take(place[axis], axis), origin="lower", interpolation="bicubic", **style)
                if style["cmap"] == "gray_r":
                    axes.contour(
                        data.take(place[axis], axis), levels=[series.level], colors=MUTED, linewidths=0.7
                    )
                axes.set(xticks=[], yticks=[])
                axes.spines[:].set_visible(False)
                axes.grid(False)
                if row == 0:
                    axes.set_title(title)
                if column == 0:
                    axes.set_ylabel(f"{name} section", color=INK)
        length = 10.0 if max(varies.shape) * series.voxel_size < 100 else 50.0
        corner = panels[-1, 0]
        corner.plot([1, 1 + length / series.voxel_size], [1, 1], color=INK, lw=3, solid_capstyle="butt")
        corner.text(1, 2, f"{length:.0f} Å", va="bottom", fontsize=9)

    return draw
