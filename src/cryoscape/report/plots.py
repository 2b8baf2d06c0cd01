"""Plots of a run as PNG files, drawn without a display."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cryoscape.analysis.evaluation.evaluation import Evaluation
from cryoscape.analysis.summary import AnalysisSummary
from cryoscape.files import atomic_path
from cryoscape.report.curves import RESTRAINT_FLOOR, curve, progress_column, restraint_curves
from cryoscape.report.style import (
    GREY,
    GRID,
    INK,
    MUTED,
    ORANGE,
    QUALITATIVE,
    TEAL,
    chain_spans,
    second_range,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from cryoscape.structures.atomic_model import AtomicModel
    from cryoscape.training.run import Run

_STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "legend.frameon": False,
}
_POINTS = 20_000


def write_plots(
    run: Run, summary: AnalysisSummary | None = None, evaluation: Evaluation | None = None
) -> list[Path]:
    """Draw what is known into `analysis/*.png`.

    Parameters
    ----------
    run : Run
        The run; its training record gives `learning_curve.png`.
    summary : AnalysisSummary, optional
        Gives `latent.png` and, with an atomic model, `motion_per_residue.png`.
    evaluation : Evaluation, optional
        Gives `rmsd_per_state.png`.

    Returns
    -------
    list of Path
        The files written.
    """
    folder = Path(run.path) / "analysis"
    folder.mkdir(parents=True, exist_ok=True)
    drawn = []
    if curve(run.metrics, "elbo") or curve(run.metrics, "gain_nats"):
        drawn.append(
            save_figure(folder / "learning_curve.png", (10, 3.2), lambda f: draw_learning(f, run.metrics))
        )
    if summary is not None:
        drawn.append(save_figure(folder / "latent.png", (10, 4.4), lambda f: draw_latent(f, summary)))
        if summary.motion is not None and run.model is not None:
            draw = _residues(run.model, summary)
            drawn.append(save_figure(folder / "motion_per_residue.png", (10, 3.4), draw))
    if evaluation is not None:
        drawn.append(
            save_figure(folder / "rmsd_per_state.png", (8, 3.8), lambda f: draw_states(f, evaluation))
        )
    return drawn


def draw_learning(figure: Figure, metrics: dict[str, np.ndarray]) -> None:
    """Draw the improvement of the fit, the information used and, where there are any, the restraint terms."""
    column, label = progress_column(metrics)
    terms = restraint_curves(metrics)
    panels = figure.subplots(1, 3 if terms else 2)
    left, middle = panels[:2]
    for axes, name, title in ((left, column, label), (middle, "kl", "information in the code (KL)")):
        trained, unseen = curve(metrics, name), curve(metrics, name, held_out=True)
        if trained:
            axes.plot(trained.images, trained.values, color=TEAL, alpha=0.25, lw=0.8)
            axes.plot(trained.images, trained.smoothed(), color=TEAL, label="training batches")
        if unseen:
            axes.plot(unseen.images, unseen.values, "o-", ms=3, color=ORANGE, label="held-out particles")
        axes.set(title=title)
    left.legend()
    for (title, term), colour in zip(terms.items(), QUALITATIVE):
        values = np.maximum(term.smoothed(), RESTRAINT_FLOOR)
        panels[2].plot(term.images, values, color=colour, label=title)
    if terms:
        panels[2].set(title="restraint terms", yscale="log")
        panels[2].legend()
    for axes in panels:
        axes.set(xlabel="images seen", ylabel="nats a particle")
        axes.ticklabel_format(axis="x", style="sci", scilimits=(0, 4))


def draw_latent(figure: Figure, summary: AnalysisSummary) -> None:
    """Draw the particles along the components, coloured by group and by position."""
    shown = np.random.default_rng(0).permutation(len(summary.row))[:_POINTS]
    left, right = figure.subplots(1, 2)
    maps = [(left, summary.latent.scores, "latent codes", "")]
    if summary.decoded is not summary.latent:
        of = ("structures", " (Å rms)") if summary.density is None else ("maps", " (share of density)")
        maps.insert(0, (left, summary.decoded.scores, f"decoded {of[0]}", of[1]))
        maps[1] = (right, *maps[1][1:])
    groups = summary.clusters
    colours = np.array(QUALITATIVE)[groups.label[shown] % len(QUALITATIVE)]
    for axes, scores, title, unit in maps:
        second = scores[:, 1] if scores.shape[1] > 1 else np.zeros(len(scores))
        size = 12 if len(shown) < 2000 else 4
        axes.scatter(scores[shown, 0], second[shown], c=colours, s=size, lw=0, alpha=0.6, rasterized=True)
        for k, particle in enumerate(groups.particle):
            axes.annotate(
                str(k + 1), (scores[particle, 0], second[particle]), ha="center", va="center", fontsize=9,
                bbox={"boxstyle": "circle,pad=0.25", "fc": "white", "ec": INK, "lw": 0.8},
            )  # fmt: skip
        axes.set_ylim(second_range(np.column_stack([scores[:, 0], second])))
        axes.set(title=title, xlabel=f"component 1{unit}", ylabel=f"component 2{unit}")
    if len(maps) == 1:
        _bic(right, summary)


def _bic(axes: Axes, summary: AnalysisSummary) -> None:
    axes.plot(summary.mixture.sizes, summary.mixture.bic - summary.mixture.bic.min(), "o-", color=TEAL)
    axes.set(title="Gaussian mixture", xlabel="components", ylabel="BIC above the best")


def _residues(model: AtomicModel, summary: AnalysisSummary) -> Callable[[Figure], None]:
    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        assert summary.motion is not None
        spans = chain_spans(model)
        for k, span in enumerate(spans):
            values, colour = summary.motion.rmsf[span.index], QUALITATIVE[k % len(QUALITATIVE)]
            axes.fill_between(span.position, values, color=colour, alpha=0.15, lw=0)
            axes.plot(span.position, values, color=colour, lw=1.3)
            if len(spans) > 1:
                middle = 0.5 * (span.position[0] + span.position[-1])
                axes.text(
                    middle, 1.0, span.name, transform=axes.get_xaxis_transform(), ha="center", color=colour
                )
        axes.set(
            ylabel="rms fluctuation (Å)", xlabel="residue number" if len(spans) == 1 else "residues, by chain"
        )
        axes.set_ylim(bottom=0)
        axes.margins(x=0.01)
        if len(spans) > 1:
            axes.set_xticks([])
        axes.set_title("motion of each residue over all particles", pad=18 if len(spans) > 1 else 6)

    return draw


def draw_states(figure: Figure, evaluation: Evaluation) -> None:
    """Draw the rmsd of every true state beside the two predictors that know no particle."""
    axes = figure.subplots()
    rows = [row for row in evaluation.states if row.rmsd is not None]
    x = np.array([row.state for row in rows])
    mean, sd = np.array([row.rmsd for row in rows]), np.array([row.rmsd_sd for row in rows])
    mark: dict[str, Any] = {"marker": "o", "ms": 4} if len(rows) < 15 else {}
    axes.plot(
        x, [row.trivial for row in rows], color=GREY, ls="--", label="reference model everywhere", **mark
    )
    axes.plot(x, [row.constant for row in rows], color=GREY, ls=":", label="best single structure", **mark)
    axes.fill_between(x, np.maximum(mean - sd, 0), mean + sd, color=TEAL, alpha=0.18, lw=0)
    axes.plot(x, mean, color=TEAL, lw=2, label=f"recovered (mean {evaluation.rmsd:.2f} Å)", **mark)
    axes.set(xlabel="true state", ylabel="CA rmsd without superposition (Å)", title="recovered against true")
    axes.set_ylim(bottom=0)
    if len(rows) < 15:
        axes.set_xticks(x)
    axes.legend()


def save_figure(path: Path, size: tuple[float, float], draw: Callable[[Figure], None]) -> Path:
    """Draw one figure in the house style and write it as PNG.

    Parameters
    ----------
    path : Path
        The file; written atomically.
    size : tuple of float
        Width and height, inches.
    draw : callable
        Given the empty figure.

    Returns
    -------
    Path
        The file.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasAgg(figure)
        draw(figure)
        with atomic_path(path) as temporary:
            figure.savefig(temporary, dpi=140, format="png")
    return path
