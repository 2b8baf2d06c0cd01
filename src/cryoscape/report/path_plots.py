"""A path as a figure: where it goes, how high the ways are, and the profile that the images give."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from cryoscape.analysis.paths.free_energy_path import FreeEnergyPath
from cryoscape.report.plots import save_figure
from cryoscape.report.style import GREY, INK, MUTED, ORANGE, QUALITATIVE, TEAL

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLOURS = (TEAL, ORANGE, QUALITATIVE[2])
_STYLES = ("-", "--", "-.")
_HIGHEST = 8.0  # kT


def write_path_plot(found: FreeEnergyPath, folder: Path) -> Path:
    """Draw `path.png` into a folder.

    Parameters
    ----------
    found : FreeEnergyPath
    folder : Path

    Returns
    -------
    Path
        The file written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    return save_figure(folder / "path.png", (12.6, 4.0), lambda f: draw_path(f, found))


def draw_path(figure: Figure, found: FreeEnergyPath) -> None:
    """Draw the ways among the population, the model's free energy on each, and the images' profile."""
    where, model, images = figure.subplots(1, 3)
    _draw_plane(where, found)
    _draw_ways(model, found)
    _draw_profile(images, found)


def _draw_plane(axes: Axes, found: FreeEnergyPath) -> None:
    """The plane of the two directions in which what is decoded differs most."""
    with torch.no_grad():
        parts = [found.cloud, *(way.z for way in found.ways)]
        places = [found.decoded.places(torch.from_numpy(z)).double().numpy() for z in parts]
    mean = places[0].mean(axis=0)
    plane = np.linalg.svd(np.concatenate(places) - mean, full_matrices=False)[2][:2]
    cloud, *lines = [(one - mean) @ plane.T for one in places]
    axes.scatter(
        cloud[:, 0], cloud[:, 1], s=6, color=GREY, alpha=0.45, lw=0, rasterized=True, label="population"
    )
    for way, line, colour, style in zip(found.ways, lines, _COLOURS, _STYLES):
        axes.plot(
            line[:, 0],
            line[:, 1],
            style,
            color=colour,
            lw=2.2 if way is found.ways[0] else 1.6,
            label=way.name,
        )
    for name, point in zip("AB", (lines[0][0], lines[0][-1])):
        axes.plot(point[0], point[1], "o", ms=7, color=INK)
        axes.annotate(name, point, (5, 6), textcoords="offset points", color=INK, weight="bold")
    axes.text(
        0.02, 0.02, "\n".join(f"{name}: {end.name}" for name, end in zip("AB", found.ends)),
        transform=axes.transAxes, fontsize=8, color=INK, va="bottom",
    )  # fmt: skip
    unit = _unit(found)
    axes.set(xlabel=f"component 1 ({unit})", ylabel=f"component 2 ({unit})", title="where it goes")
    low, high = axes.get_ylim()
    width = float(np.ptp(axes.get_xlim()))
    axes.legend(loc="upper left", fontsize=8)
    if high - low < 0.4 * width:
        # A direction in which hardly anything differs must not look like one.
        middle = 0.5 * (low + high)
        axes.set_ylim(middle - 0.2 * width, middle + 0.2 * width)


def _draw_ways(axes: Axes, found: FreeEnergyPath) -> None:
    for way, colour, style in zip(found.ways, _COLOURS, _STYLES):
        label = f"{way.name}: {way.length:.1f} {_unit(found)}, {way.highest:.1f} kT"
        axes.plot(way.travelled, way.free_energy, style, color=colour, lw=2, label=label)
    top = max(4.0, min(way.highest for way in found.ways) * 1.5)
    shown = min(max(way.highest for way in found.ways), 2.5 * top)
    axes.set(ylim=(min(0.0, *(float(w.free_energy.min()) for w in found.ways)) - 0.2, 1.45 * shown))
    axes.set(
        xlabel=f"length from A ({_unit(found)})",
        ylabel="free energy of the population model (kT)",
        title="three ways" if len(found.ways) == 3 else "two ways",
    )
    axes.legend(loc="upper left", fontsize=8)


def _draw_profile(axes: Axes, found: FreeEnergyPath) -> None:
    images, profile = found.images, found.images.profile
    x, lost = profile.axes[0].centres, images.unresolved
    barriers = images.barriers
    length = found.ways[0].length
    seen = profile.free_energy[np.isfinite(profile.free_energy)]
    high = min(_HIGHEST, max(2.0, 1.3 * float(seen.max(initial=0.0))))
    band = np.minimum(profile.high, high)
    for where, colour, strength in ((~lost, TEAL, 0.22), (lost, GREY, 0.4)):
        if where.any():
            axes.fill_between(x, profile.low, band, where=where, color=colour, alpha=strength, lw=0)
    axes.plot(x, profile.free_energy, color=TEAL, lw=2)
    axes.plot(x, np.where(lost, profile.free_energy, np.nan), color=MUTED, lw=2)
    low = float(np.fmin(0.0, np.nanmin(profile.low, initial=0.0)))
    for name, place in (("A", 0.0), ("B", length)):
        axes.axvline(place, color=MUTED, lw=0.8, ls=":")
        axes.annotate(
            name, (place, low - 0.02 * high), (4, 0), textcoords="offset points", color=INK, weight="bold"
        )
    forth, back = barriers.forth, barriers.back
    sign = "≥ " if barriers.at_least else ""
    text = (
        f"A to B: {sign}{forth.value:.1f} [{forth.low:.1f}, {forth.high:.1f}] kT\n"
        f"B to A: {sign}{back.value:.1f} [{back.low:.1f}, {back.high:.1f}] kT"
    )
    axes.text(0.5, 0.98, text, transform=axes.transAxes, ha="center", va="top", fontsize=8, color=INK)
    axes.set(
        xlim=(profile.axes[0].edges[0], profile.axes[0].edges[-1]), ylim=(low - 0.06 * high, 1.22 * high)
    )
    axes.set(
        xlabel=f"progress along the path ({_unit(found)})",
        ylabel="free energy (kT)",
        title="from the images, 95 % band",
    )
    if lost.any():
        axes.fill_between([], [], [], color=GREY, alpha=0.4, lw=0, label="not resolved by the images")
        axes.legend(loc="lower right", fontsize=8)


def _unit(found: FreeEnergyPath) -> str:
    return found.decoded.unit.replace("A", "Å")
