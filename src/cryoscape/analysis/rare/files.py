"""Files of rare states: numbers, structures or maps, and particle tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cryoscape.analysis.coordinate_uncertainty import b_factors
from cryoscape.analysis.rare.refinement import coordinates_of, maps_of
from cryoscape.analysis.rare.states import RareFindings, RareState
from cryoscape.analysis.records import write_arrays, write_json
from cryoscape.data.mrc import write_map
from cryoscape.structures.ensemble import write_ensemble

if TYPE_CHECKING:
    from cryoscape.training.run import Run

_OURS = ("maps/rare_*.mrc", "ensemble/rare.cif", "particles/rare.*", "particles/rare_*")


def write_rare(found: RareFindings, run: Run, folder: Path) -> list[Path]:
    """Write everything below a folder, and remove what an earlier call wrote there.

    `analysis/rare.json`, `analysis/rare.npz`; `ensemble/rare.cif` (a model a state, B-factors of the spread
    within it) or `maps/rare_1.mrc`, ...; and, where there are rare states, `particles/rare.star` or `.cs`
    (all rows, with the probability of each) and `particles/rare_3.star`, ... (the list of state 3).

    Parameters
    ----------
    found : RareFindings
    run : Run
    folder : Path

    Returns
    -------
    list of Path
        The files written.
    """
    written = [
        write_json(folder / "analysis" / "rare.json", rare_record(found)),
        write_arrays(folder / "analysis" / "rare.npz", _arrays(found)),
        *_write_conformations(found, run, folder),
        *_write_particles(found, run, folder / "particles"),
    ]
    for pattern in _OURS:
        for path in folder.glob(pattern):
            # An earlier call with other states must not be taken for this one.
            if path not in written:
                path.unlink()
    return written


def rare_record(found: RareFindings) -> dict[str, Any]:
    """Plain values for JSON."""
    return {
        "states": [_state(state, found) for state in found.states],
        "rare": [found.states[k].name for k in found.rare],
        "suspects": [asdict(one) for one in found.suspects],
        "fdr": found.fdr,
        "images": found.n_images,
        "images_tested": found.n_tested,
        "nats_between_states": found.nats_between,
        "nats_needed": found.needed,
        "structures": [
            {"state": found.states[int(k)].name, "population": w, "source": one.source}
            for one, k, w in zip(found.members, found.label, found.weight)
        ],
        "misfit_nats": found.misfit,
        "misfit_error": found.misfit_error,
    }


def more_images(needed: float | None, n: int) -> int | None:
    """Images needed beyond the n there are."""
    return None if needed is None or not np.isfinite(needed) else max(0, int(np.ceil(needed - n)))


def _state(state: RareState, found: RareFindings) -> dict[str, Any]:
    held = state.held_out
    return {
        "name": state.name,
        "kind": state.kind,
        "population": state.population,
        "low": state.low,
        "high": state.high,
        "nearest": None if state.nearest is None else found.states[state.nearest].name,
        "rmsd": state.rmsd,
        "nats": state.nats,
        "held_out_nats": None if held is None else held.gain,
        "held_out_error": None if held is None else held.error,
        "retrieved": len(state.retrieved),
        "images_to_detect": state.to_detect,
        "images_to_halve_interval": state.to_halve,
        "more_images_to_detect": more_images(state.to_detect, found.n_images),
        "more_images_to_halve_interval": more_images(state.to_halve, found.n_images),
    }


def _arrays(found: RareFindings) -> dict[str, np.ndarray]:
    retrieved = np.zeros(found.probability.shape, dtype=bool)
    for k, state in enumerate(found.states):
        retrieved[state.retrieved, k] = True
    arrays = {
        "uid": found.uid,
        "row": found.row,
        "state": np.array([state.name for state in found.states]),
        "kind": np.array([state.kind for state in found.states]),
        "probability": found.probability,
        "retrieved": retrieved,
        "nats_between": found.nats_between,
        "z": np.stack([one.z for one in found.members]),
        "label": found.label,
        "weight": found.weight,
    }
    return arrays if found.displacement is None else {**arrays, "displacement": found.displacement}


def _write_conformations(found: RareFindings, run: Run, folder: Path) -> Iterator[Path]:
    if not run.has_structures:
        for k, data in enumerate(maps_of(run, found.conformations)):
            path = folder / "maps" / f"rare_{k + 1}.mrc"
            write_map(path, data, run.geometry.pixel_size, origin=run.map_origin)
            yield path
        return
    assert found.displacement is not None
    path = folder / "ensemble" / "rare.cif"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_ensemble(
        path,
        run.structure,
        coordinates_of(run, found.conformations),
        b_factors=b_factors(found.displacement),
        titles=[
            f"{state.name} ({state.kind}): population {100 * state.population:.2f} %"
            for state in found.states
        ],
        occupancy=run.occupancy(np.stack([one.z for one in found.conformations])),
    )
    yield path


def _write_particles(found: RareFindings, run: Run, folder: Path) -> Iterator[Path]:
    if not found.rare:
        return
    particles = run.particles
    suffix = particles.source.suffix
    star = suffix == ".star"
    name: Callable[[int], str] = (
        "cryoscapeRare{}Probability".format if star else "cryoscape/rare{}_probability".format
    )
    columns = {name(k + 1): found.probability[:, k] for k in found.rare}
    path = folder / f"rare{suffix}"
    particles.write(path, columns)
    yield path
    for k in found.rare:
        rows = found.states[k].retrieved
        if len(rows):
            path = folder / f"rare_{k + 1}{suffix}"
            particles.select(rows).write(path, {key: value[rows] for key, value in columns.items()})
            yield path
