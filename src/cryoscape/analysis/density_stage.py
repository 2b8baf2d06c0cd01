"""Maps decoded from the codes of another run: the same walks, opened together with its models."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cryoscape.analysis.chimerax import MapSeries, write_session
from cryoscape.analysis.map_files import FOLDER
from cryoscape.analysis.summary import AnalysisSummary

if TYPE_CHECKING:
    from cryoscape.training.run import Run

DENSITY = "density"


def parent_folder(run: Run) -> Path | None:
    """Return the run whose latent codes a density stage decodes; None for a run with codes of its own.

    Parameters
    ----------
    run : Run
        Any run; `latents_from` of its run.json names the other.

    Returns
    -------
    Path or None
    """
    named = (run.info or {}).get("latents_from")
    if named is None:
        return None
    folder = Path(run.path).resolve()
    # A run folder may have been moved since, together with what lies in it.
    beside = folder.parent if folder.name == DENSITY else folder / named
    return beside if (beside / "run.json").is_file() or not Path(named).is_dir() else Path(named)


def parent_analysis(run: Run) -> AnalysisSummary | None:
    """Read the analysis whose walks and groups a density stage takes over.

    Parameters
    ----------
    run : Run
        A density stage.

    Returns
    -------
    AnalysisSummary or None
        None for other runs, and where the parent has not been analysed or has other particles by now.
    """
    folder = parent_folder(run)
    summary = None if folder is None else AnalysisSummary.read(folder)
    if summary is None:
        return None
    same = np.array_equal(summary.row, run.embedding.row)
    return summary if same and summary.latent.mean.shape == run.embedding.z.shape[1:] else None


def maps_beside(folder: Path, summary: AnalysisSummary) -> MapSeries | None:
    """Return the maps of a run's density stage, where they lie along the same walks.

    Parameters
    ----------
    folder : Path
        The run of structures.
    summary : AnalysisSummary
        Its analysis.

    Returns
    -------
    MapSeries or None
        None where there is no density stage, or its maps belong to walks of an earlier analysis.
    """
    stage = AnalysisSummary.read(folder / DENSITY)
    if stage is None or stage.density is None:
        return None
    frames = {}
    for ours, theirs in zip(summary.traversals, stage.traversals):
        if ours.name != theirs.name or not np.array_equal(ours.z, theirs.z):
            return None
        frames[ours.name] = len(ours.position)
    return MapSeries(f"{DENSITY}/{FOLDER}", frames, len(stage.clusters.count), stage.density.level)


def open_together(folder: Path | None, summary: AnalysisSummary) -> None:
    """Rewrite the ChimeraX script of a run of structures so that it opens the maps as well.

    Parameters
    ----------
    folder : Path or None
        The run of structures.
    summary : AnalysisSummary
        Its analysis.
    """
    if folder is None or summary.motion is None:
        return
    frames = {walk.name: len(walk.position) for walk in summary.traversals}
    maps = maps_beside(folder, summary)
    write_session(folder, frames, len(summary.clusters.count), summary.motion.rmsf, maps)
