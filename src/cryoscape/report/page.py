"""One self-contained page that shows a run; it opens offline in any browser."""

from __future__ import annotations

import base64
import json
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cryoscape.analysis.evaluation.evaluate import EVALUATION
from cryoscape.analysis.evaluation.evaluation import Evaluation, read_evaluation
from cryoscape.analysis.summary import AnalysisSummary
from cryoscape.analysis.validation.results import ReportCard
from cryoscape.errors import InputError
from cryoscape.files import atomic_path
from cryoscape.report import figures
from cryoscape.report.facts import (
    PICTURES,
    File,
    found_by,
    headline,
    list_files,
    preflight_lines,
    provenance,
    settings,
    source,
)
from cryoscape.report.map_movie import map_movie
from cryoscape.report.map_plots import write_map_plots
from cryoscape.report.map_series import position_label, read_walk
from cryoscape.report.movie import movie
from cryoscape.report.plots import write_plots
from cryoscape.report.population_figure import population_figure

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from cryoscape.training.embedding import Embedding
    from cryoscape.training.run import Run

REPORT = "report.html"
_STATES = 24


def write_report(run: Run) -> Path:
    """Write `report.html` and the PNG plots from what the run folder holds.

    The page says what is missing rather than failing: without an analysis it shows the training record
    alone, and the comparison with the truth appears once `evaluate` has run.

    Parameters
    ----------
    run : Run
        The run.

    Returns
    -------
    Path
        The page. One file with scripts, style and data inside; links to other files are relative.

    Raises
    ------
    InputError
        Files of the analysis are damaged, or the disk is full.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from plotly.offline import get_plotlyjs

    folder = Path(run.path)
    summary = AnalysisSummary.read(folder)
    found = read_evaluation(folder / EVALUATION) if (folder / EVALUATION).is_file() else None
    evaluation = found if isinstance(found, Evaluation) else None
    write_plots(run, summary, evaluation)
    pictures = [] if summary is None or summary.density is None else write_map_plots(folder, summary)
    drawn, colourings, frames = _figures(run, summary, evaluation)
    environment = Environment(
        loader=PackageLoader("cryoscape.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    templates = files("cryoscape.report") / "templates"
    page = environment.get_template("report.html.j2").render(
        title=folder.resolve().name,
        source=source(run),
        headline=headline(run, summary),
        provenance=provenance(run),
        settings=settings(run.config),
        preflight=preflight_lines(folder),
        summary=summary,
        groups=_groups(summary),
        **{name: found_by(name, folder) for name in ("landscape", "path", "rare", "junk")},
        card=ReportCard.read(folder / "analysis"),
        prior_kind=run.config.prior.kind,
        prior_states=_prior_states(summary),
        makes="structures" if run.has_structures else "maps",
        pictures={
            path.stem: _picture(path)
            for path in [*pictures, *(folder / name for name in PICTURES)]
            if path.suffix == ".png" and path.is_file()
        },
        evaluation=evaluation,
        compared=found,
        states=[] if evaluation is None else [asdict(row) for row in evaluation.states],
        warnings=[*(summary.warnings if summary else ()), *(found.warnings if found else ())],
        figures={name: _embedded(figure.to_json()) for name, figure in drawn.items()},
        colourings=colourings,
        colourings_json=_embedded(json.dumps(colourings, separators=(",", ":"))),
        movie_json=_embedded(json.dumps(frames, separators=(",", ":"))) if frames else None,
        frames=len(frames["position"]) if frames else 0,
        files=_with_page(list_files(folder)),
        style=(templates / "style.css").read_text(encoding="utf-8"),
        script=(templates / "page.js").read_text(encoding="utf-8"),
        plotly=get_plotlyjs(),
    )
    with atomic_path(folder / REPORT) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return folder / REPORT


def _figures(
    run: Run, summary: AnalysisSummary | None, evaluation: Evaluation | None
) -> tuple[dict[str, Figure], list[dict[str, Any]], dict[str, Any]]:
    """Figures by the name of their box, the ways to colour the maps, and the frames of the movie."""
    drawn: dict[str, Figure | None] = {"learning": figures.learning_figure(run.metrics)}
    colourings: list[dict[str, Any]] = []
    frames: dict[str, Any] = {}
    if summary is not None:
        embedding = _matching_embedding(run, summary)
        maps, colourings = figures.map_figures(
            summary, embedding.elbo if embedding else None, embedding.gain if embedding else None
        )
        drawn |= {f"map-{name}": figure for name, figure in maps.items()}
        drawn["mixture"] = figures.mixture_figure(summary)
        drawn["couplings"] = figures.couplings_figure(summary)
        drawn["population"] = population_figure(run, summary)
    if summary is not None and summary.motion is not None and run.model is not None:
        walk = summary.traversals[0]
        coords = run.decode(walk.z)
        ends = np.linalg.norm(coords[-1].astype(np.float64) - coords[0], axis=1)
        drawn["residues"] = figures.residue_figure(summary, run.model, ends)
        drawn["histogram"] = figures.histogram_figure(summary)
        drawn["movie"], frames = movie(run.model, coords, walk.position)
    if summary is not None and summary.density is not None:
        drawn["histogram"] = figures.histogram_figure(summary)
        series = read_walk(Path(run.path), summary)
        if series is not None:
            drawn["movie"], frames = map_movie(series)
    if evaluation is not None:
        drawn["states"] = figures.states_figure(evaluation)
        drawn["populations"] = figures.population_figure(evaluation)
    return {name: figure for name, figure in drawn.items() if figure is not None}, colourings, frames


def _matching_embedding(run: Run, summary: AnalysisSummary) -> Embedding | None:
    """Return the embedding if it is the one that was analysed."""
    try:
        embedding = run.embedding
    except InputError:
        return None
    return embedding if np.array_equal(embedding.row, summary.row) else None


def _groups(summary: AnalysisSummary | None) -> list[dict[str, Any]]:
    if summary is None:
        return []
    groups, n = summary.clusters, len(summary.row)
    unit = summary.walk_unit if summary.density is None else "density"
    at = None if summary.decoded is summary.latent else summary.decoded.scores[groups.particle, 0]
    return [
        {
            "number": k + 1,
            "count": int(groups.count[k]),
            "share": float(groups.count[k]) / n,
            "position": None if at is None else position_label(float(at[k]), unit),
            "radius": position_label(float(groups.radius[k]), summary.walk_unit).removeprefix("+"),
            "row": int(summary.row[groups.particle[k]]) + 1,
            "colour": figures.QUALITATIVE[k % len(figures.QUALITATIVE)],
        }
        for k in range(len(groups.count))
    ]


def _prior_states(summary: AnalysisSummary | None) -> list[dict[str, Any]]:
    if summary is None or summary.prior is None:
        return []
    prior, held = summary.prior, summary.prior.weights.sum(axis=0)
    return [
        {
            "number": k + 1,
            "share": float(prior.share[k]),
            "images": float(held[k]),
            "row": int(summary.row[prior.particle[k]]) + 1,
            "parts": ", ".join(parts[:4]) + (f" and {len(parts) - 4} more" if len(parts) > 4 else ""),
        }
        for k, parts in enumerate(prior.members[:_STATES])
    ]


def _picture(path: Path) -> str:
    """The file as an address that needs no file."""
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode("ascii")


def _with_page(listed: list[File]) -> list[File]:
    return [entry for entry in listed if entry.path != REPORT]


def _embedded(text: str) -> str:
    """Make JSON safe inside a script element, which any "</script" in the text would close."""
    return text.replace("<", "\\u003c")
