"""Junk as a figure: how the odds fall apart, and what the classes are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cryoscape.analysis.junk.find import Junk
from cryoscape.analysis.junk.mixture import CLASSES
from cryoscape.report.plots import save_figure
from cryoscape.report.style import GREY, INK, MUTED, ORANGE, QUALITATIVE, TEAL

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLOURS = dict(zip(CLASSES, (TEAL, ORANGE, QUALITATIVE[2], GREY)))
_BINS = 60
_MOST = 1e4  # nats
_FAR = 4.0  # standard deviations of the whiteness that are shown on either side, at least


def write_junk_plot(found: Junk, folder: Path) -> Path:
    """Draw `junk.png` into a folder.

    Parameters
    ----------
    found : Junk
    folder : Path

    Returns
    -------
    Path
        The file written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    return save_figure(folder / "junk.png", (10.0, 3.8), lambda figure: draw_junk(figure, found))


def draw_junk(figure: Figure, found: Junk) -> None:
    """Draw log odds by class with the cut, the plane of two evidences, and the whiteness of residuals."""
    odds, plane, white = figure.subplots(1, 3)
    _draw_odds(odds, found)
    _draw_plane(plane, found)
    _draw_whiteness(white, found)


def _draw_odds(axes: Axes, found: Junk) -> None:
    # Odds reach thousands of nats, where nothing is in doubt any more; a signed root shows both.
    odds = np.clip(found.log_odds, -_MOST, _MOST)
    value = np.sign(odds) * np.sqrt(np.abs(odds))
    edges = np.linspace(value.min() - 0.01, value.max() + 0.01, _BINS + 1)
    names = [name for name in CLASSES if (found.kind == name).any()]
    parts = [value[found.kind == name] for name in names]
    axes.hist(parts, edges.tolist(), stacked=True, color=[_COLOURS[name] for name in names], label=names)
    if found.called.any():
        axes.axvline(float(value[found.called].min()), color=INK, lw=1.2, ls="--")
        axes.text(
            float(value[found.called].min()), 0.98, f" FDR {100 * found.rate:g} %", fontsize=8, color=INK,
            transform=axes.get_xaxis_transform(), va="top",
        )  # fmt: skip
    ticks = axes.get_xticks()
    axes.set_xticks(ticks, [f"{np.sign(t) * t**2:.0f}" for t in ticks])
    axes.set(xlabel="log odds of junk (nats)", ylabel="images", xlim=(edges[0], edges[-1]))
    share, low, high = (100 * v for v in found.share)
    axes.set_title(f"{share:.1f} % junk [{low:.1f}, {high:.1f}]")
    axes.legend(fontsize=8)


def _draw_plane(axes: Axes, found: Junk) -> None:
    evidence, kind = found.mixture.evidence, found.kind
    other = evidence[:, 1 : CLASSES.index("noise")].max(axis=1)
    for name in CLASSES:
        here = kind == name
        axes.plot(other[here], evidence[here, 0], ".", ms=2, alpha=0.5, color=_COLOURS[name], rasterized=True)
    axes.axhline(0, color=MUTED, lw=0.8)
    axes.axvline(0, color=MUTED, lw=0.8)
    axes.set(
        xlabel="evidence of another object (nats)", ylabel="evidence of the model (nats)", title="over noise"
    )


def _draw_whiteness(axes: Axes, found: Junk) -> None:
    kept, called = found.residual_z[~found.called], found.residual_z[found.called]
    far = max(_FAR, float(np.quantile(np.abs(found.residual_z), 0.99)))
    edges = np.linspace(-far, far, _BINS + 1)
    for values, colour, label in ((kept, TEAL, "kept"), (called, GREY, "called junk")):
        if len(values):
            axes.hist(
                np.clip(values, -far, far), edges.tolist(), density=True, alpha=0.6, color=colour, label=label
            )
    axes.plot(edges, np.exp(-0.5 * edges**2) / np.sqrt(2 * np.pi), color=INK, lw=1.2, label="white noise")
    axes.set(xlabel="whiteness of the residual (z)", title="what the best structure leaves")
    axes.legend(fontsize=8)
