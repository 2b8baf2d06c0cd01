"""Samples of priors over the data that they were judged on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cryoscape.analysis.prior_fitting.comparison import JudgedPrior, PriorComparison
from cryoscape.report.plots import save_figure
from cryoscape.report.style import GREY, INK, ORANGE, TEAL

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_ACROSS = 4
_BINS = 50
_SCATTERED = 3000


def write_prior_plot(path: Path, comparison: PriorComparison) -> Path:
    """Draw a comparison as a PNG file.

    Parameters
    ----------
    path : Path
        The file; written atomically.
    comparison : PriorComparison

    Returns
    -------
    Path
        The file.
    """
    count = len(comparison.rows)
    across, down = min(count, _ACROSS), -(-count // _ACROSS)
    size = (max(3.4 * across, 5.0), 4.6 * down)
    return save_figure(path, size, lambda figure: draw_priors(figure, comparison))


def draw_priors(figure: Figure, comparison: PriorComparison) -> None:
    """Draw a panel a prior: histogram along the first component above samples over data in the plane.

    All panels of a kind have the range of the data, with a margin; what falls outside of it is counted.
    """
    count = len(comparison.rows)
    across, down = min(count, _ACROSS), -(-count // _ACROSS)
    grid = figure.subplots(2 * down, across, squeeze=False, height_ratios=[1.0, 1.6] * down)
    data = comparison.data @ comparison.axes.T
    limits = _limits(data)
    for k, row in enumerate(comparison.rows):
        top, plane = (grid[2 * (k // across) + below, k % across] for below in (0, 1))
        samples = row.points @ comparison.axes.T
        _histogram(top, data[:, 0], samples[:, 0], limits[0], row)
        _plane(plane, data, samples, limits)
        if k == 0:
            top.legend(loc="upper right", fontsize=8)
    for k in range(count, across * down):
        for below in (0, 1):
            grid[2 * (k // across) + below, k % across].set_axis_off()
    for panels in grid[1::2]:
        panels[0].set_ylabel("component 2" if data.shape[1] > 1 else "")
    for panels in grid[::2]:
        panels[0].set_ylabel("density")


def _limits(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Range of the data, shape (k, 2), a sixth wider on either side."""
    low, high = points.min(axis=0), points.max(axis=0)
    margin = np.maximum((high - low) / 6, 1e-9)
    return np.stack([low - margin, high + margin], axis=1)


def _histogram(
    axes: Axes,
    data: NDArray[np.float64],
    samples: NDArray[np.float64],
    span: NDArray[np.float64],
    row: JudgedPrior,
) -> None:
    edges = np.linspace(span[0], span[1], _BINS + 1)
    width = edges[1] - edges[0]
    shown, drawn = (np.histogram(x, edges)[0] / (len(x) * width) for x in (data, samples))
    axes.stairs(shown, edges, fill=True, color=GREY, alpha=0.45, label="held-out data")
    axes.stairs(drawn, edges, color=TEAL, lw=1.6, label="samples")
    axes.set(title=row.name, xlim=tuple(span), ylim=(0, 1.15 * max(shown.max(), drawn.max())))
    axes.set_yticks([])
    axes.grid(False)
    axes.tick_params(labelbottom=False)


def _plane(
    axes: Axes, data: NDArray[np.float64], samples: NDArray[np.float64], limits: NDArray[np.float64]
) -> None:
    flat = data.shape[1] == 1
    for points, colour, size in ((data, GREY, 4.0), (samples, TEAL, 3.0)):
        shown = points[:_SCATTERED]
        # One dimension is spread out to be seen.
        second = np.random.default_rng(0).uniform(-1, 1, len(shown)) if flat else shown[:, 1]
        axes.scatter(shown[:, 0], second, c=colour, s=size, lw=0, alpha=0.45, rasterized=True)
    axes.set(xlabel="component 1", xlim=tuple(limits[0]))
    if flat:
        axes.set_yticks([])
    else:
        axes.set_ylim(*limits[1])
    outside = ((samples < limits[:, 0]) | (samples > limits[:, 1])).any(axis=1).mean()
    if outside >= 0.0005:
        axes.text(
            0.98, 0.02, f"{100 * outside:.1f} % outside", transform=axes.transAxes,
            ha="right", va="bottom", fontsize=8, color=ORANGE if outside > 0.01 else INK,
        )  # fmt: skip
