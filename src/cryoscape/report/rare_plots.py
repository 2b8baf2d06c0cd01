"""Rare states as a figure: populations with intervals, and how surely particles belong to them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cryoscape.analysis.rare.states import RareFindings
from cryoscape.report.plots import save_figure
from cryoscape.report.style import GREY, INK, MUTED, ORANGE, QUALITATIVE, TEAL

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLOURS = {"populated": TEAL, "rare": ORANGE, "tail": GREY, "unsure": MUTED}
_BINS = 40


def write_rare_plot(found: RareFindings, folder: Path) -> Path:
    """Draw `rare.png` into a folder.

    Parameters
    ----------
    found : RareFindings
    folder : Path

    Returns
    -------
    Path
        The file written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    height = max(3.2, 1.6 + 0.35 * len(found.states))
    return save_figure(folder / "rare.png", (10.0, height), lambda f: draw_rare(f, found))


def draw_rare(figure: Figure, found: RareFindings) -> None:
    """Draw both panels."""
    left, right = figure.subplots(1, 2)
    draw_populations(left, found)
    draw_probabilities(right, found)


def draw_populations(axes: Axes, found: RareFindings) -> None:
    """Draw the population of every state with its 95 % interval, on a logarithmic axis."""
    seen = set()
    for k, state in enumerate(found.states):
        label = None if state.kind in seen else state.kind
        seen.add(state.kind)
        colour, least = _COLOURS[state.kind], 0.1 / found.n_images
        axes.plot([max(state.low, least), max(state.high, least)], [k, k], color=colour, lw=3, alpha=0.5)
        axes.plot(max(state.population, least), k, "o", color=colour, ms=7, label=label)
        axes.annotate(
            f"{100 * state.population:.2g} %", (max(state.population, least), k), (0, 7),
            textcoords="offset points", ha="center", fontsize=8, color=INK,
        )  # fmt: skip
    axes.axvline(1 / found.n_images, color=MUTED, lw=0.8, ls=":")
    axes.set_yticks(range(len(found.states)), [state.name for state in found.states])
    axes.set(xscale="log", xlabel="population", ylim=(len(found.states) - 0.3, -0.7))
    axes.set(xlim=(0.5 / found.n_images, 1.6), title="states, 95 % intervals (dotted: one image)")
    axes.legend(loc="lower left", fontsize=8)


def draw_probabilities(axes: Axes, found: RareFindings) -> None:
    """Draw how many particles have which probability of each rare state."""
    edges = np.linspace(0, 1, _BINS + 1).tolist()
    for k in found.rare:
        state, colour = found.states[k], QUALITATIVE[(k + 1) % len(QUALITATIVE)]
        p = found.probability[:, k]
        label = f"{state.name}: {len(state.retrieved)} particles at {100 * found.fdr:.3g} % false"
        axes.hist(p, bins=edges, color=colour, alpha=0.4, label=label)
        if len(state.retrieved):
            axes.axvline(p[state.retrieved].min(), color=colour, lw=1.2, ls="--")
    if not found.rare:
        axes.text(0.5, 0.5, "no rare state", transform=axes.transAxes, ha="center", color=MUTED)
        axes.set_yticks([])
    else:
        axes.set(yscale="log")
        axes.legend(fontsize=8)
    axes.set(xlim=(0, 1), xlabel="probability of the rare state", ylabel="particles")
    axes.set(title="who belongs to it (dashed: end of the list)")
