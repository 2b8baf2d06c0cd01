"""Figures of the page, as plotly JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cryoscape.analysis.components import PrincipalComponents
from cryoscape.analysis.evaluation.evaluation import Evaluation
from cryoscape.analysis.summary import AnalysisSummary
from cryoscape.report.curves import RESTRAINT_FLOOR, curve, progress_column, restraint_curves
from cryoscape.report.style import (
    GREY,
    GRID,
    INK,
    MUTED,
    ORANGE,
    QUALITATIVE,
    SEQUENTIAL,
    TEAL,
    chain_spans,
    second_range,
)
from cryoscape.structures.atomic_model import AtomicModel

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

# Points drawn as SVG: more would make the page slow and add nothing to see.
MAP_POINTS = 4000
_CURVE_POINTS = 600


def learning_figure(metrics: dict[str, np.ndarray] | None) -> Figure | None:
    """Fit, information and any restraints against the images seen; None without a record."""
    from plotly.subplots import make_subplots

    column, label = progress_column(metrics)
    if not curve(metrics, column) and not curve(metrics, column, held_out=True):
        return None
    terms = restraint_curves(metrics)
    titles = (label, "information in the code (KL)", *(["restraint terms"] if terms else []))
    figure = make_subplots(1, len(titles), subplot_titles=titles, horizontal_spacing=0.07)
    for place, name in enumerate((column, "kl"), start=1):
        trained, unseen = curve(metrics, name), curve(metrics, name, held_out=True)
        first = {"showlegend": place == 1}
        for data, text, colour, mode in (
            (trained, "training batches", TEAL, "lines"),
            (unseen, "held-out particles", ORANGE, "lines+markers"),
        ):
            if data:
                x, y = _thin(data.images, data.smoothed() if data is trained else data.values)
                line = {"color": colour, "width": 2}
                figure.add_scatter(
                    x=x, y=y, name=text, mode=mode, line=line, legendgroup=text, **first, row=1, col=place
                )
    for (text, term), colour in zip(terms.items(), QUALITATIVE[2:]):
        x, y = _thin(term.images, np.maximum(term.smoothed(), RESTRAINT_FLOOR))
        figure.add_scatter(x=x, y=y, name=text, mode="lines", line={"color": colour}, row=1, col=3)
    if terms:
        figure.update_yaxes(type="log", dtick=1, row=1, col=3)
    figure.update_xaxes(title="images seen")
    figure.update_yaxes(title="nats a particle", row=1, col=1)
    dressed(figure, height=350, legend={"orientation": "h", "y": -0.28, "x": 0})
    # Titles of the panels stay clear of the tool bar.
    return figure.update_layout(margin={"t": 60})


def map_figures(
    summary: AnalysisSummary, elbo: NDArray | None, gain: NDArray | None
) -> tuple[dict[str, Figure], list[dict[str, Any]]]:
    """Maps of the particles, and the ways to colour them.

    Parameters
    ----------
    summary : AnalysisSummary
        The analysis.
    elbo, gain : ndarray, shape (n,), optional
        Evidence bound of each particle and its gain over the homogeneous model, nats.

    Returns
    -------
    figures : dict of Figure
        "structures" (A) or "maps" (share of the density), "codes" and "umap" (where made). The first trace
        holds the particles.
    colourings : list of dict
        `name`, and `marker`: what to set on the first trace of every map.
    """
    n = len(summary.row)
    shown = np.sort(np.random.default_rng(0).permutation(n)[:MAP_POINTS])
    clouds: dict[str, tuple[NDArray, tuple[str, str], str]] = {}
    if summary.motion is not None:
        clouds["structures"] = (
            *_plane(summary.motion.components),
            "component {} of the structures (Å rms){}",
        )
    if summary.density is not None:
        clouds["maps"] = (
            *_plane(summary.density.components),
            "component {} of the maps (share of density){}",
        )
    clouds["codes"] = (*_plane(summary.latent), "component {} of the codes{}")
    if summary.umap is not None:
        clouds["umap"] = (summary.umap, ("", ""), "UMAP {}{}")
    colourings = _colourings(summary, shown, elbo, gain)
    return {
        name: _map(summary, shown, colourings[0]["marker"], *cloud) for name, cloud in clouds.items()
    }, colourings


def couplings_figure(summary: AnalysisSummary) -> Figure | None:
    """Couplings of a Boltzmann prior's switches as a matrix, kT; None where the prior has none."""
    from plotly.graph_objects import Figure, Heatmap

    prior = summary.prior
    if prior is None or prior.couplings is None or len(prior.couplings) < 2:
        return None
    names = [str(k + 1) for k in range(len(prior.couplings))]
    values = np.where(np.eye(len(names), dtype=bool), np.nan, prior.couplings)
    top = max(float(np.nanmax(np.abs(values))), 1e-3)
    text = [["" if np.isnan(v) else f"{v:+.2f}" for v in line] for line in values]
    figure = Figure(
        Heatmap(
            z=values,
            x=names,
            y=names,
            text=text,
            texttemplate="%{text}" if len(names) <= 12 else None,
            zmin=-top,
            zmax=top,
            colorscale="RdBu_r",
            colorbar={"title": "kT"},
            hovertemplate="switches %{y} and %{x}: %{z:+.2f} kT<extra></extra>",
        )
    )
    figure.update_xaxes(title="switch", type="category")
    figure.update_yaxes(title="switch", type="category", autorange="reversed", scaleanchor="x")
    return dressed(figure, height=360)


def _plane(components: PrincipalComponents) -> tuple[NDArray, tuple[str, str]]:
    scores, explained = components.scores, components.explained
    if scores.shape[1] == 1:
        return np.column_stack([scores[:, 0], np.zeros(len(scores))]), (f", {100 * explained[0]:.0f} %", "")
    return scores[:, :2], (f", {100 * explained[0]:.0f} %", f", {100 * explained[1]:.0f} %")


def _colourings(
    summary: AnalysisSummary, shown: NDArray, elbo: NDArray | None, gain: NDArray | None
) -> list[dict[str, Any]]:
    scores = summary.decoded.scores
    ways = [{"name": "group", "marker": _discrete(summary.clusters.label[shown])}]
    ways.append({"name": "first component", "marker": _continuous(scores[shown, 0])})
    if len(summary.mixture.weight) > 1:
        ways.append({"name": "mixture component", "marker": _discrete(summary.mixture.label[shown])})
    for name, values in (("evidence (nats)", elbo), ("gain over one structure (nats)", gain)):
        if values is not None and np.isfinite(values).any():
            ways.append({"name": name, "marker": _continuous(np.asarray(values, dtype=np.float32)[shown])})
    return ways


def _discrete(label: NDArray) -> dict[str, Any]:
    return {"color": [QUALITATIVE[k % len(QUALITATIVE)] for k in label], "showscale": False}


def _continuous(values: NDArray) -> dict[str, Any]:
    finite = values[np.isfinite(values)]
    low, high = np.percentile(finite, [1, 99])
    return {
        "color": [round(float(v), 3) if np.isfinite(v) else None for v in values],
        "colorscale": SEQUENTIAL,
        "cmin": float(low),
        "cmax": float(max(high, low + 1e-6)),
        "showscale": True,
    }


def _map(
    summary: AnalysisSummary,
    shown: NDArray,
    marker: dict[str, Any],
    xy: NDArray,
    notes: tuple[str, str],
    label: str,
) -> Figure:
    from plotly.graph_objects import Figure

    figure = Figure()
    size = 6 if len(shown) < 1500 else 4
    bar = {"thickness": 10, "outlinewidth": 0, "len": 0.8}
    figure.add_scatter(
        x=_short(xy[shown, 0]),
        y=_short(xy[shown, 1]),
        mode="markers",
        marker={"size": size, "opacity": 0.65, "line": {"width": 0}, "colorbar": bar} | marker,
        customdata=np.column_stack([summary.row[shown] + 1, summary.clusters.label[shown] + 1]),
        hovertemplate="particle %{customdata[0]}, group %{customdata[1]}<extra></extra>",
        showlegend=False,
    )
    at = summary.clusters.particle
    figure.add_scatter(
        x=_short(xy[at, 0]),
        y=_short(xy[at, 1]),
        mode="markers+text",
        text=[f"<b>{k + 1}</b>" for k in range(len(at))],
        textfont={"size": 11, "color": INK},
        marker={"size": 19, "color": "white", "line": {"color": INK, "width": 1.2}},
        hovertemplate="representative of group %{text}<extra></extra>",
        showlegend=False,
    )
    figure.update_xaxes(title=label.format(1, notes[0]))
    figure.update_yaxes(title=label.format(2, notes[1]), range=second_range(xy))
    return dressed(figure, height=400)


def residue_figure(summary: AnalysisSummary, model: AtomicModel, ends: NDArray | None) -> Figure:
    """Motion of every residue along the chains.

    Parameters
    ----------
    summary : AnalysisSummary
        With the fluctuations.
    model : AtomicModel
        The model of N residues.
    ends : ndarray, shape (N,), optional
        Displacement of each residue between the two ends of the first component, A.

    Returns
    -------
    Figure
    """
    from plotly.graph_objects import Figure

    assert summary.motion is not None
    figure = Figure()
    spans = chain_spans(model)
    names = np.array([model.label(i) for i in range(len(model))])
    for k, span in enumerate(spans):
        x = span.position.astype(np.float32)
        text = names[span.index]
        figure.add_scatter(
            x=x, y=_short(summary.motion.rmsf[span.index]), name="rms over all particles", mode="lines",
            line={"color": TEAL, "width": 2}, fill="tozeroy", fillcolor="rgba(20,125,146,0.12)", text=text,
            hovertemplate="%{text}: %{y:.2f} Å<extra></extra>", legendgroup="rms", showlegend=k == 0,
        )  # fmt: skip
        if ends is not None:
            figure.add_scatter(
                x=x, y=_short(ends[span.index]), name="between the ends of the first component", mode="lines",
                line={"color": ORANGE, "width": 1.5, "dash": "dot"}, text=text,
                hovertemplate="%{text}: %{y:.2f} Å<extra></extra>", legendgroup="ends", showlegend=k == 0,
            )  # fmt: skip
        if len(spans) > 1:
            figure.add_annotation(
                x=float(x.mean()),
                y=1.0,
                yref="paper",
                yanchor="bottom",
                text=f"chain {span.name}" if len(spans) <= 8 else span.name,
                showarrow=False,
            )
    figure.update_xaxes(title="residue number" if len(spans) == 1 else "residues, chain by chain")
    if len(spans) > 1:
        figure.update_xaxes(showticklabels=False, ticks="")
    figure.update_yaxes(title="displacement (Å)", rangemode="tozero")
    dressed(figure, height=350, legend={"orientation": "h", "y": -0.25, "x": 0})
    return figure.update_layout(margin={"t": 60 if len(spans) > 1 else 32})


def histogram_figure(summary: AnalysisSummary) -> Figure:
    """How many particles lie where along the first component of the structures or maps."""
    from plotly.graph_objects import Figure

    count, edge = np.histogram(summary.decoded.scores[:, 0], bins=60)
    what, unit, form = (
        ("structures", "Å rms", ".2f} Å") if summary.density is None else ("maps", "share of density", ".0%}")
    )
    figure = Figure()
    figure.add_bar(
        x=_short(0.5 * (edge[1:] + edge[:-1])), y=count, width=float(edge[1] - edge[0]),
        marker={"color": TEAL, "opacity": 0.75},
        hovertemplate="%{x:" + form + ": %{y} particles<extra></extra>", showlegend=False,
    )  # fmt: skip
    figure.update_xaxes(title=f"first component of the {what} ({unit})")
    figure.update_yaxes(title="particles")
    return dressed(figure, height=260, bargap=0)


def mixture_figure(summary: AnalysisSummary) -> Figure | None:
    """BIC against the number of Gaussian components; None where only one was tried."""
    from plotly.graph_objects import Figure

    mixture = summary.mixture
    if len(mixture.sizes) < 2:
        return None
    figure = Figure()
    figure.add_scatter(
        x=mixture.sizes,
        y=_short(mixture.bic - mixture.bic.min()),
        mode="lines+markers",
        line={"color": TEAL},
        showlegend=False,
    )
    figure.update_xaxes(title="Gaussian components", dtick=1)
    figure.update_yaxes(title="BIC above the best", rangemode="tozero")
    return dressed(figure, height=260)


def states_figure(evaluation: Evaluation) -> Figure:
    """Rmsd of every true state, and the two predictors that know no particle."""
    from plotly.graph_objects import Figure

    rows = [row for row in evaluation.states if row.rmsd is not None]
    x = [row.state for row in rows]
    mode = "lines+markers" if len(rows) < 15 else "lines"
    figure = Figure()
    for values, name, dash in (
        ([row.trivial for row in rows], "reference everywhere", "dash"),
        ([row.constant for row in rows], "best single structure", "dot"),
    ):
        figure.add_scatter(
            x=x, y=_short(np.array(values)), name=name, mode=mode, line={"color": GREY, "dash": dash}
        )
    spread = _short(np.array([row.rmsd_sd for row in rows]))
    figure.add_scatter(
        x=x, y=_short(np.array([row.rmsd for row in rows])), name="recovered (± sd)",
        mode="lines+markers", line={"color": TEAL, "width": 3},
        error_y={"type": "data", "array": spread, "thickness": 1, "width": 2},
    )  # fmt: skip
    figure.update_xaxes(title="true state", **({"dtick": 1} if len(rows) < 15 else {}))
    figure.update_yaxes(title="CA rmsd (Å)", rangemode="tozero")
    return dressed(figure, height=340, legend={"orientation": "h", "y": -0.25, "x": 0})


def population_figure(evaluation: Evaluation) -> Figure:
    """True populations beside the counts of nearest states."""
    from plotly.graph_objects import Figure

    figure = Figure()
    x = [row.state for row in evaluation.states]
    for values, name, colour in (
        ([100 * row.population for row in evaluation.states], "true population", GREY),
        ([100 * row.nearest for row in evaluation.states], "nearest to the state", TEAL),
    ):
        figure.add_bar(x=x, y=_short(np.array(values)), name=name, marker={"color": colour})
    figure.update_xaxes(title="true state", **({"dtick": 1} if len(x) < 15 else {}))
    figure.update_yaxes(title="share (%)")
    return dressed(figure, height=340, legend={"orientation": "h", "y": -0.25, "x": 0}, bargap=0.25)


def _short(values: NDArray) -> NDArray[np.float32]:
    return np.asarray(values, dtype=np.float32)


def _thin(x: NDArray, y: NDArray) -> tuple[NDArray, NDArray]:
    step = max(1, len(x) // _CURVE_POINTS)
    return _short(x[::step]), _short(y[::step])


def dressed(figure: Figure, **layout: Any) -> Figure:
    """The figure with the looks of the page."""
    axis = {
        "gridcolor": GRID, "zeroline": False, "linecolor": MUTED, "showline": True, "ticks": "outside",
        "tickcolor": MUTED, "ticklen": 4, "tickfont": {"color": MUTED}, "title_standoff": 8,
        "automargin": True, "exponentformat": "power", "title_font": {"size": 13},
    }  # fmt: skip
    figure.update_xaxes(**axis)
    figure.update_yaxes(**axis)
    figure.update_annotations(font={"size": 13, "color": INK})
    figure.update_layout(
        template="none",
        font={"family": "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif", "size": 13, "color": INK},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        margin={"l": 56, "r": 16, "t": 32, "b": 48},
        modebar={"bgcolor": "rgba(0,0,0,0)", "color": "#c3ccd4", "activecolor": TEAL},
        hoverlabel={"bgcolor": "white", "font": {"color": INK}},
        **layout,
    )
    return figure
