"""The report card as a figure: what each motion is worth to the images, and what moves beyond the floor."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cryoscape.analysis.validation.results import JudgedMotion, ReportCard, Verdict
from cryoscape.report.plots import save_figure
from cryoscape.report.style import GREY, INK, MUTED, ORANGE, TEAL, chain_spans
from cryoscape.structures.atomic_model import AtomicModel

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PICTURE = "validation.png"
_COLOURS = {
    Verdict.SUPPORTED: TEAL,
    Verdict.PRIOR_LIMITED: ORANGE,
    Verdict.POSE_ENTANGLED: ORANGE,
    Verdict.NULL: MUTED,
}
_KINDS = (
    ("gain", "held-out images", TEAL, "o"),
    ("gain_beyond_poses", "beyond wrong poses", INK, "s"),
    ("null_gain", "where nothing moves", GREY, "D"),
    ("expected_gain", "if it were as claimed", ORANGE, "^"),
)


def write_validation_plot(
    card: ReportCard, arrays: dict[str, NDArray[Any]], model: AtomicModel | None, folder: Path
) -> Path:
    """Draw `validation.png` into a folder.

    Parameters
    ----------
    card : ReportCard
    arrays : dict of ndarray
        With `rmsf` and `rmsf_floor` (N,) where structures were judged.
    model : AtomicModel or None
    folder : Path

    Returns
    -------
    Path
        The file written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    structures = model is not None and "rmsf" in arrays

    def draw(figure: Figure) -> None:
        panels = figure.subplots(1, 2 if structures else 1, squeeze=False)[0]
        _draw_gains(panels[0], card.motions)
        if structures and model is not None:
            _draw_floor(panels[1], arrays["rmsf"], arrays["rmsf_floor"], model)

    return save_figure(folder / PICTURE, (10.4 if structures else 6.0, 4.2), draw)


def _draw_gains(axes: Axes, motions: tuple[JudgedMotion, ...]) -> None:
    """Nats an image that each motion is worth, on a scale that is linear about zero."""
    for place, motion in enumerate(motions):
        for k, (name, label, colour, marker) in enumerate(_KINDS):
            value, error = motion.values.get(name), motion.values.get(f"{name}_error")
            if value is None or error is None:
                continue
            axes.errorbar(
                [value], [place + 0.16 * (k - 1.5)], xerr=[2 * error], fmt=marker, color=colour, ms=5, lw=1.2,
                label=label if place == 0 else None,
            )  # fmt: skip
        axes.text(
            0.02, place - 0.42, f"{motion.name}: {motion.verdict}", color=_COLOURS[motion.verdict],
            fontsize=9, transform=axes.get_yaxis_transform(), va="center", weight="bold",
        )  # fmt: skip
    axes.axvline(0.0, color=MUTED, lw=0.8)
    axes.set(
        ylim=(len(motions) - 0.4, -0.6), yticks=[], xlabel="nats an image (± 2 standard errors)",
        title="what each motion is worth to the images",
    )  # fmt: skip
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="lower right", fontsize=8)


def _draw_floor(axes: Axes, rmsf: NDArray, floor: NDArray, model: AtomicModel) -> None:
    """Fluctuation of every residue over the floor; grey where it does not reach beyond."""
    for span in chain_spans(model):
        x, y, f = span.position, rmsf[span.index], floor[span.index]
        axes.fill_between(x, 0, f, color=GREY, alpha=0.35, lw=0)
        axes.plot(x, y, color=GREY, lw=1.5)
        axes.plot(x, np.where(y > f, y, np.nan), color=TEAL, lw=2)
        if len(chain_spans(model)) > 1:
            axes.text(float(x.mean()), 1.0, span.name, transform=axes.get_xaxis_transform(), va="bottom")
    axes.fill_between([], [], [], color=GREY, alpha=0.35, lw=0, label="floor: one structure, 99 %")
    axes.plot([], [], color=TEAL, lw=2, label="beyond the floor")
    axes.set(xlabel="residue", ylabel="rms fluctuation (Å)", title="what moves beyond noise")
    axes.set_ylim(bottom=0)
    axes.legend(loc="upper right", fontsize=8)
