"""What the page says in words: the run, its settings, its files."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cryoscape.analysis.records import read_json
from cryoscape.analysis.summary import AnalysisSummary
from cryoscape.errors import InputError

if TYPE_CHECKING:
    from cryoscape.training.run import Run

PREFLIGHT = "preflight.json"
PICTURES = tuple(f"analysis/{name}.png" for name in ("landscape", "path", "rare", "junk", "validation"))
_LISTED = 200
_SERIES = re.compile(r"(.*maps/(?:pc\d+|cluster|state)_)\d+(\.mrc)")

_WHAT = {
    "config.yaml": "all settings, as resolved",
    "run.json": "versions, seed, hardware, status",
    "metrics.csv": "training record",
    "preflight.json": "what the check of the input found",
    "embedding.npz": "latent code, evidence and half of every particle",
    "open_in_chimerax.cxc": "opens structures and maps in ChimeraX",
    "ensemble/clusters.cif": "a real particle's structure for each group",
    "ensemble/path.cif": "frames of the path of minimum free energy",
    "ensemble/states.cif": "a real particle's structure for each state of the prior",
    "analysis/analysis.json": "components, groups, verdict",
    "analysis/analysis.npz": "the same for every particle",
    "analysis/evaluation.json": "recovered against true",
    "analysis/evaluation.npz": "the same for every particle",
    "analysis/landscape.json": "free energy and populations with intervals",
    "analysis/landscape.npz": "the same as arrays, and the membership of every particle",
    "analysis/landscape.png": "free energy with its band",
    "analysis/path.json": "path of minimum free energy: lengths, barriers with intervals, geometry",
    "analysis/path.npz": "the same as arrays",
    "analysis/path.png": "free energy along the path, beside straight and flow interpolation",
    "analysis/junk.json": "which images are no particles: shares, kinds, the cut",
    "analysis/junk.npz": "the same for every particle",
    "analysis/junk.png": "log odds, evidence, and what the best structure leaves",
    "analysis/rare.json": "rare states: populations with intervals, how many images more",
    "analysis/rare.npz": "the same as arrays, and the probability of every particle",
    "analysis/rare.png": "rare states",
    "ensemble/rare.cif": "structures of the rare states",
    "analysis/validation.json": "report card: verdict on every motion, and the checks behind it",
    "analysis/validation.npz": "populations and fluctuations behind the report card",
    "analysis/validation.png": "what each motion is worth to the images, and what moves beyond noise",
    "analysis/motion.defattr": "motion of each residue, for ChimeraX",
}


@dataclass(frozen=True)
class File:
    """A file of the run.

    Parameters
    ----------
    path : str
        Relative to the run; the first file of a series of maps.
    name : str
        For people, the same or the name of the series.
    size : str
        For people; of a series in all.
    what : str
        What it is; empty where the name says it.
    """

    path: str
    name: str
    size: str
    what: str


def headline(run: Run, summary: AnalysisSummary | None) -> list[tuple[str, str]]:
    """Return the few numbers that say what this run is, as (value, name)."""
    facts: list[tuple[str, str]] = []
    if summary is not None:
        facts.append((f"{len(summary.row):,}", "particles"))
    if run.model is not None:
        chains = len(set(np.asarray(run.model.chain_id).tolist()))
        facts.append((f"{len(run.model):,}", f"residues in {chains} chain{'s' if chains > 1 else ''}"))
    if not run.has_structures:
        facts.append((f"{run.geometry.box}", f"voxels of {run.geometry.pixel_size:.3g} Å a side of the maps"))
    if summary is not None:
        facts.append((str(len(summary.latent.mean)), "latent dimensions"))
        if summary.motion is not None:
            facts.append((f"{summary.motion.spread:.2f} Å", "rms motion over all residues"))
        if summary.density is not None:
            facts.append((f"{100 * summary.density.spread:.0f} %", "of the density changes (rms)"))
    images = np.asarray((run.metrics or {}).get("images", []), dtype=np.float64)
    if len(images):
        facts.append((f"{np.nanmax(images):,.0f}", "images seen in training"))
    return facts


def source(run: Run) -> str:
    """Return the particle file and the model file in words."""
    info = run.info or {}
    particles = info.get("particles")
    path = particles.get("path") if isinstance(particles, dict) else None
    words = f"the images of {path}" if path else "particle images"
    return f"{words}, started from {info['model']}" if info.get("model") else words


def provenance(run: Run) -> list[tuple[str, str]]:
    """Return the contents of run.json as rows."""
    return list(_flat(run.info or {}))


def settings(config: Any) -> list[tuple[str, str]]:
    """Return all settings as rows of dotted name and value.

    Parameters
    ----------
    config : Config or dict
        The settings.

    Returns
    -------
    list of (str, str)
    """
    values = config.model_dump(mode="json") if hasattr(config, "model_dump") else (config or {})
    return list(_flat(values))


def preflight_lines(folder: Path) -> list[tuple[str, str]]:
    """Return what the check of the input found, as rows; empty where it left no file.

    Parameters
    ----------
    folder : Path
        The run.

    Returns
    -------
    list of (str, str)

    Raises
    ------
    InputError
        The file is not JSON.
    """
    path = folder / PREFLIGHT
    if not path.is_file():
        return []
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError("this is not a JSON file", file=path, remedy="Delete it.") from error
    if isinstance(content, dict) and isinstance(content.get("text"), str):
        return [("", line) for line in content["text"].splitlines() if line.strip()]
    return list(_flat(content)) if isinstance(content, dict) else []


def found_by(command: str, folder: Path) -> dict[str, Any] | None:
    """Return what the last call of a command on a run found, as its file has it; None without one.

    Raises
    ------
    InputError
        The file is damaged.
    """
    path = folder / "analysis" / f"{command}.json"
    return read_json(path) if path.is_file() else None


def list_files(folder: Path) -> list[File]:
    """List the files of a run, the ones at the top first.

    Parameters
    ----------
    folder : Path
        The run.

    Returns
    -------
    list of File
        At most 200; a series of maps counts as one, hidden and temporary files are left out.
    """
    found = [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]
    names = sorted(
        (path.relative_to(folder).as_posix() for path in found), key=lambda name: (name.count("/"), name)
    )
    series: dict[str, list[str]] = {}
    for name in names:
        series.setdefault(_SERIES.sub(r"\1*\2", name), []).append(name)
    return [
        File(
            path=members[0],
            name=shown if len(members) > 1 else members[0],
            size=_size(sum((folder / name).stat().st_size for name in members)),
            what=_what(members[0]) + (f", {len(members)} files" if len(members) > 1 else ""),
        )
        for shown, members in list(series.items())[:_LISTED]
    ]


def _what(name: str) -> str:
    if name in _WHAT:
        return _WHAT[name]
    stem = Path(name).stem
    if name.startswith("ensemble/pc") and stem[2:].isdigit():
        return f"walk along component {stem[2:]}, several models"
    if name.startswith("maps/"):
        return _what_map(stem)
    if name.startswith("analysis/") and stem.endswith("_maps"):
        return "pictures of the maps"
    if name.startswith("checkpoints/"):
        return "trained weights"
    return "plot" if name.endswith(".png") else ""


def _what_map(stem: str) -> str:
    known = {
        "mean": "mean of the decoded maps",
        "variation": "standard deviation of the decoded maps over the particles",
        "consensus": "map of all particles",
        "consensus_half1": "map of the first half of the particles",
        "consensus_half2": "map of the second half of the particles",
    }
    walk = re.fullmatch(r"pc(\d+)_\d+", stem)
    if walk:
        return f"walk along component {walk[1]}"
    return "a real particle's map for each group" if stem.startswith("cluster_") else known.get(stem, "map")


def _size(count: int) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 10 else f"{count:.1f} {unit}"
        count /= 1000  # type: ignore[assignment]
    return f"{count:.1f} GB"


def _flat(values: dict[str, Any], prefix: str = "") -> Any:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        elif isinstance(value, list | tuple) and len(value) > 12:
            yield f"{prefix}{key}", f"{len(value)} values"
        else:
            yield f"{prefix}{key}", _word(value)


def _word(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple):
        return ", ".join(_word(entry) for entry in value)
    return str(value)
