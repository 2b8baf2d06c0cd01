"""The landscape as a figure: a profile with its band, or a surface."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cryoscape.analysis.landscape.landscape import Landscape
from cryoscape.analysis.landscape.profile import Axis
from cryoscape.report.plots import save_figure
from cryoscape.report.style import GREY, INK, MUTED, TEAL

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_HIGHEST = 8.0  # kT


def write_landscape_plot(found: Landscape, folder: Path) -> Path:
    """Draw `landscape.png` into a folder.

    Parameters
    ----------
    found : Landscape
    folder : Path

    Returns
    -------
    Path
        The file written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if len(found.profile.axes) == 1:
        return save_figure(folder / "landscape.png", (6.4, 4.2), lambda f: draw_profile(f, found))
    return save_figure(folder / "landscape.png", (10.0, 4.2), lambda f: draw_surface(f, found))


def draw_profile(figure: Figure, found: Landscape) -> None:
    """Draw the free energy with its 95 % band, grey where the images do not resolve it."""
    axes, profile = figure.subplots(), found.profile
    axis = profile.axes[0]
    x, lost = axis.centres, found.unresolved
    seen = profile.free_energy[np.isfinite(profile.free_energy)]
    high = float(min(_HIGHEST, max(2.0, 1.25 * seen.max())))
    for where, colour, strength in ((~lost, TEAL, 0.22), (lost, GREY, 0.4)):
        if where.any():
            axes.fill_between(
                x,
                profile.low,
                np.minimum(profile.high, high),
                where=where,
                color=colour,
                alpha=strength,
                lw=0,
            )
    axes.plot(x, profile.free_energy, color=TEAL, lw=2)
    axes.plot(x, np.where(lost, profile.free_energy, np.nan), color=MUTED, lw=2)
    low = float(np.fmin(0.0, np.nanmin(profile.low, initial=0.0)))
    # Strips above and below are for names and the bar.
    axes.set(xlim=(axis.edges[0], axis.edges[-1]), ylim=(low - 0.16 * high, 1.25 * high))
    axes.set_yticks([t for t in axes.get_yticks() if 0 <= t <= high])
    axes.set(xlabel=_label(axis), ylabel="free energy (kT)", title="vitrified sample, 95 % band")
    _name_states(axes, found)
    _detail_bar(axes, found)
    if lost.any():
        axes.fill_between([], [], [], color=GREY, alpha=0.4, lw=0, label="not resolved by the images")
        axes.legend(loc="lower right", fontsize=8)


def draw_surface(figure: Figure, found: Landscape) -> None:
    """Draw the free energy over two variables, and beside it the half width of its band."""
    left, right = figure.subplots(1, 2)
    profile = found.profile
    first, second = profile.axes
    width = np.where(np.isfinite(profile.free_energy), 0.5 * (profile.high - profile.low), np.nan)
    panels = (
        (left, profile.free_energy, "viridis", "free energy (kT)", "vitrified sample"),
        (right, width, "magma", "half of the 95 % band (kT)", "how sure"),
    )
    for axes, values, colours, label, title in panels:
        highest = min(_HIGHEST, float(np.nanmax(values)))
        mesh = axes.pcolormesh(
            first.edges, second.edges, values.T, cmap=colours, vmin=0, vmax=highest, rasterized=True
        )
        figure.colorbar(mesh, ax=axes, label=label)
        if found.unresolved.any():
            shown = np.where(found.unresolved & np.isfinite(values), 1.0, np.nan)
            axes.pcolormesh(first.edges, second.edges, shown.T, cmap="Greys", vmin=0, vmax=2, alpha=0.6)
        axes.set(xlabel=_label(first), ylabel=_label(second), title=title)
        axes.grid(False)
    for state, column in zip(found.states, found.member.T):
        weight = found.fit.fine * column
        if weight.sum() > 0:
            x, y = np.average(found.values, axis=1, weights=weight)
            # Names stand on the side that is farther from the state, or they would hide it.
            side = x < 0.5 * (first.edges[0] + first.edges[-1])
            place = min(max((y - second.edges[0]) / np.ptp(second.edges), 0.08), 0.92)
            text = f"{state.name}\n{100 * state.population:.1f} %"
            left.annotate(
                text, (x, y), (0.98 if side else 0.02, place), textcoords="axes fraction",
                fontsize=8, color=INK, ha="right" if side else "left", va="center",
                arrowprops={"arrowstyle": "-", "color": MUTED, "lw": 0.8}, annotation_clip=False,
            )  # fmt: skip


def _name_states(axes: Axes, found: Landscape) -> None:
    """Population of every state above where it lies."""
    left, right = axes.get_xlim()
    for state, column in zip(found.states, found.member.T):
        weight = found.fit.fine * column
        if weight.sum() <= 0:
            continue
        place = (float(np.average(found.values[0], weights=weight)) - left) / (right - left)
        interval = f"[{100 * state.low:.1f}, {100 * state.high:.1f}]"
        axes.text(
            min(max(place, 0.1), 0.9), 0.99, f"{state.name}\n{100 * state.population:.1f} %\n{interval}",
            transform=axes.transAxes, ha="center", va="top", fontsize=8, color=INK,
        )  # fmt: skip


def _detail_bar(axes: Axes, found: Landscape) -> None:
    """A bar as long as the finest period that the images show."""
    axis = found.profile.axes[0]
    if found.finest is None or not found.finest[0] < np.ptp(axis.edges):
        return
    start = float(axis.edges[0]) + 0.03 * float(np.ptp(axis.edges))
    end = start + found.finest[0]
    axes.plot([start, end], [0.03, 0.03], color=INK, lw=2.5, transform=axes.get_xaxis_transform())
    text = f"finest detail {found.finest[0]:.2g} {axis.unit.replace('A', 'Å')}".rstrip()
    axes.text(start, 0.04, text, transform=axes.get_xaxis_transform(), fontsize=8, color=INK, va="bottom")


def _label(axis: Axis) -> str:
    return f"{axis.text} ({axis.unit.replace('A', 'Å')})" if axis.unit else axis.text
