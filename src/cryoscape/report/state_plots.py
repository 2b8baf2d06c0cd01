"""Plots of state maps: half-map correlation, and every map against every model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cryoscape.analysis.states.state_maps import FSC_THRESHOLD
from cryoscape.analysis.states.states import StatesSummary
from cryoscape.report.plots import save_figure
from cryoscape.report.style import GREY, INK, MUTED, QUALITATIVE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def write_state_plots(summary: StatesSummary) -> list[Path]:
    """Draw `fsc.png` and `specificity.png` into the folder of the states.

    Parameters
    ----------
    summary : StatesSummary

    Returns
    -------
    list of Path
        The files written.
    """
    k = len(summary.maps)
    return [
        save_figure(summary.folder / "fsc.png", (7.5, 4.2), lambda f: draw_fsc(f, summary)),
        save_figure(
            summary.folder / "specificity.png",
            (5.0 + 0.9 * k, 2.4 + 0.45 * k),
            lambda f: draw_specificity(f, summary),
        ),
    ]


def draw_fsc(figure: Figure, summary: StatesSummary) -> None:
    """Draw the corrected curve of every state, with the unmasked and the randomised one in the background."""
    axes = figure.subplots()
    for k, (name, state) in enumerate(zip(summary.membership.names, summary.maps)):
        colour, x = QUALITATIVE[k % len(QUALITATIVE)], state.frequency[1:]
        curves = state.correlation
        found = "no resolution" if np.isinf(state.resolution) else f"{state.resolution:.1f} Å"
        label = f"{name.replace('_', ' ')}: {'≤ ' if state.at_the_limit else ''}{found}"
        axes.plot(x, curves.unmasked[1:], color=colour, lw=0.9, ls="--", alpha=0.6)
        axes.plot(x, curves.randomised[1:], color=colour, lw=0.9, ls=":", alpha=0.6)
        axes.plot(x, curves.corrected[1:], color=colour, lw=2, label=label)
    axes.axhline(FSC_THRESHOLD, color=GREY, lw=1)
    axes.text(axes.get_xlim()[1], FSC_THRESHOLD, "0.143 ", color=MUTED, va="bottom", ha="right", fontsize=8)
    for style, text in (("--", "no mask"), (":", "random phases, masked")):
        axes.plot([], [], color=MUTED, lw=0.9, ls=style, label=text)
    ticks = [t for t in axes.get_xticks() if t > 0 and t <= axes.get_xlim()[1]]
    axes.set_xticks(ticks, [f"{1 / t:.2g}" for t in ticks])
    axes.set(
        xlabel="resolution (Å)",
        ylabel="Fourier shell correlation",
        title="half maps of each state, corrected for the mask",
        ylim=(-0.1, 1.05),
    )
    axes.legend()


def draw_specificity(figure: Figure, summary: StatesSummary) -> None:
    """Draw the plain correlation of maps and models, and that of their differences from the mean."""
    score = summary.specificity
    names = [name.replace("_", " ") for name in summary.membership.names]
    left, right = figure.subplots(1, 2)
    _matrix(left, score.plain, names, "correlation", "Blues", (0.0, float(max(score.plain.max(), 0.01))))
    _matrix(right, score.difference, names, "of differences from the mean", "RdBu_r", (-1.0, 1.0))


def _matrix(
    axes: Axes,
    values: NDArray[np.float64],
    names: list[str],
    title: str,
    colours: str,
    span: tuple[float, float],
) -> None:
    axes.imshow(values, cmap=colours, vmin=span[0], vmax=span[1])
    axes.grid(False)
    for (row, column), value in np.ndenumerate(values):
        dark = abs(value) > 0.6 * max(abs(span[0]), abs(span[1]))
        best = np.isfinite(values[row]).all() and value == values[row].max()
        axes.text(
            column,
            row,
            "–" if np.isnan(value) else f"{value:.2f}",
            ha="center",
            va="center",
            color="white" if dark else INK,
            weight="bold" if best else "normal",
        )
    axes.set_xticks(range(len(names)), names)
    axes.set_yticks(range(len(names)), names)
    axes.set(title=title, xlabel="model", ylabel="map")
