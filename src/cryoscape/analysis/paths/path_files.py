"""`path.json`, `path.npz`, and the frames of a path as models or maps."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.spatial import cKDTree

from cryoscape.analysis.coordinate_uncertainty import b_factors, posterior_displacement
from cryoscape.analysis.landscape.files import WHAT
from cryoscape.analysis.map_files import map_bytes, write_maps
from cryoscape.analysis.paths.free_energy_path import FreeEnergyPath
from cryoscape.analysis.records import write_arrays, write_json
from cryoscape.files import need_space
from cryoscape.structures.ensemble import write_ensemble
from cryoscape.structures.geometry import geometry_report
from cryoscape.structures.restraints import find_pairs

if TYPE_CHECKING:
    from cryoscape.training.run import Run

NO_RATE = "a barrier of populations in the vitrified sample is not a rate"
"""What a barrier is not, for all that shows it."""


def write_path(run: Run, found: FreeEnergyPath, out: Path | None = None) -> list[Path]:
    """Write all files of a path.

    Parameters
    ----------
    run : Run
    found : FreeEnergyPath
    out : Path, optional
        One folder for all; by default `analysis`, `ensemble` and `maps` of the run.

    Returns
    -------
    list of Path
        The files written; of maps the first.
    """
    root = Path(run.path)
    analysis, ensemble, maps = (
        root / name if out is None else out for name in ("analysis", "ensemble", "maps")
    )
    coords = run.decode(found.frames) if run.has_structures else None
    written = [_write_models(run, found, coords, ensemble)] if coords is not None else []
    if coords is None:
        written.append(_write_frames(run, found, maps))
    written.append(write_json(analysis / "path.json", path_record(run, found, coords)))
    written.append(write_arrays(analysis / "path.npz", _arrays(found)))
    return written


def path_record(run: Run, found: FreeEnergyPath, coords: np.ndarray | None) -> dict[str, Any]:
    """Plain values for JSON; `coords` (f, N, 3) are the structures of the frames, where there are any."""
    images, axis = found.images, found.images.profile.axes[0]
    barriers, centres = images.barriers, axis.centres
    geometry = None
    if coords is not None:
        report = geometry_report(coords, find_pairs(run.structure))
        geometry = {
            "bond_rms": report.bond_rms,
            "bond_worst": report.bond_worst,
            "clashes": report.n_clashes,
            "clash_cutoff": report.clash_cutoff,
        }
    return {
        "what": WHAT,
        "no_rate": NO_RATE,
        "from": found.ends[0].name,
        "to": found.ends[1].name,
        "unit": found.decoded.unit,
        "floor": found.decoded.floor,
        "population_model": found.population.source,
        "ways": [
            {"name": way.name, "length": way.length, "highest_free_energy_kt": way.highest}
            for way in found.ways
        ],
        "frames": {
            "travelled": found.frame_travelled,
            "nats_to_next": images.frame_nats,
            "variables": {v.text: row for v, row in zip(found.variables, found.values)},
            "geometry": geometry,
        },
        "profile": {
            "edges": axis.edges,
            "population": images.profile.population,
            "free_energy_kt": images.profile.free_energy,
            "free_energy_low_kt": images.profile.low,
            "free_energy_high_kt": images.profile.high,
            "unresolved": images.unresolved,
            "finest_detail": images.finest,
        },
        "barrier": {
            "forth_kt": asdict(barriers.forth),
            "back_kt": asdict(barriers.back),
            "difference_kt": asdict(barriers.difference),
            "at": centres[barriers.top],
            "wells_at": [centres[barriers.left], centres[barriers.right]],
            "at_least": barriers.at_least,
            "resolved": not images.unresolved[barriers.top],
            "nats_between_sides": images.side_nats,
            "nats_needed": images.needed_nats,
        },
        "elsewhere": images.elsewhere,
        "distance_from_path": images.away,
        "images": images.n_images,
        "candidates": len(images.z),
        "resamples": len(images.profile.resampled),
        "drawn_by": "micrograph" if images.groups else "particle",
        "string": {
            "iterations": found.string.iterations,
            "settled": found.string.settled,
            "force": found.string.force,
        },
        "warnings": found.warnings,
    }


def _arrays(found: FreeEnergyPath) -> dict[str, np.ndarray]:
    images = found.images
    arrays: dict[str, np.ndarray] = {}
    for way in found.ways:
        name = way.name.replace(" ", "_")
        arrays |= {
            f"{name}_z": way.z,
            f"{name}_travelled": way.travelled,
            f"{name}_free_energy": way.free_energy,
        }
    return arrays | {
        "frames": found.frames,
        "frame_travelled": found.frame_travelled,
        "values": found.values,
        "edges": images.profile.axes[0].edges,
        "population": images.profile.population,
        "resampled": images.profile.resampled.astype(np.float32),
        "free_energy": images.profile.free_energy,
        "low": images.profile.low,
        "high": images.profile.high,
        "unresolved": images.unresolved,
        "z": images.z,
        "weight": images.fit.weight,
        "progress": images.progress,
        "distance": images.distance,
        "fine_weight": images.fit.fine,
    }


def _write_models(run: Run, found: FreeEnergyPath, coords: np.ndarray, folder: Path) -> Path:
    """Write one model a frame; the B-factor column is the width of the posterior of the nearest particle."""
    embedding = run.embedding
    near = cKDTree(embedding.z).query(found.frames)[1]
    displacement = posterior_displacement(run, found.frames, embedding.z_sd[near])
    titles = [f"frame {k + 1} at {s:.2f} A" for k, s in enumerate(found.frame_travelled)]
    folder.mkdir(parents=True, exist_ok=True)
    write_ensemble(
        folder / "path.cif",
        run.structure,
        coords,
        b_factors=b_factors(displacement),
        titles=titles,
        occupancy=run.occupancy(found.frames),
    )
    return folder / "path.cif"


def _write_frames(run: Run, found: FreeEnergyPath, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.glob("path_*.mrc"):
        # A path with more frames must not be taken for this one.
        path.unlink()
    need_space(folder, len(found.frames) * map_bytes(run), f"{len(found.frames)} maps")
    digits = max(2, len(str(len(found.frames))))
    paths = [folder / f"path_{k:0{digits}d}.mrc" for k in range(1, len(found.frames) + 1)]
    write_maps(run, list(found.frames), paths)
    return paths[0]
