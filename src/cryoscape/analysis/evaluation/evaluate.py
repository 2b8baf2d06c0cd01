"""A run against the known truth of a simulation."""

from __future__ import annotations

from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cryoscape.analysis.components import posterior
from cryoscape.analysis.evaluation.composition import CompositionEvaluation, evaluate_composition
from cryoscape.analysis.evaluation.evaluation import Evaluation, VolumeEvaluation
from cryoscape.analysis.evaluation.junk import JunkEvaluation, evaluate_junk
from cryoscape.analysis.evaluation.latents import LatentEvaluation, evaluate_latents
from cryoscape.analysis.evaluation.map_metrics import Maps
from cryoscape.analysis.evaluation.maps import MapEvaluation, evaluate_maps
from cryoscape.analysis.evaluation.populations import PopulationEvaluation, evaluate_populations
from cryoscape.analysis.evaluation.structures import evaluate_structures
from cryoscape.analysis.evaluation.true_imaging import TrueImaging
from cryoscape.analysis.evaluation.truth import Truth
from cryoscape.analysis.records import write_arrays, write_json
from cryoscape.errors import InputError
from cryoscape.progress import ProgressReporter

if TYPE_CHECKING:
    from cryoscape.training.run import Run

EVALUATION = "analysis/evaluation.json"
CURVES = "analysis/evaluation_maps.npz"


def evaluate(
    run: Run,
    truth_path: str | PathLike[str],
    *,
    json_path: str | PathLike[str] | None = None,
    images: int = 100,
    mask_path: str | PathLike[str] | None = None,
    progress: ProgressReporter | None = None,
) -> Evaluation | VolumeEvaluation:
    """Compare what a run found with what the simulation knows.

    Structures (`cryoscape.analysis.evaluation.structures`) where the run decodes them; maps
    (`cryoscape.analysis.evaluation.maps`) where the truth holds its atoms; and codes
    (`cryoscape.analysis.evaluation.latents`). Maps and codes leave junk particles out. Writes
    `analysis/evaluation.json`, `analysis/evaluation.npz` (one row a particle) and
    `analysis/evaluation_maps.npz` (one row a decoded map) into the run.

    Parameters
    ----------
    run : Run
        A run with an embedding.
    truth_path : path
        `truth.npz` of the simulation, or its folder.
    json_path : path, optional
        A second place for the JSON file.
    images : int
        Single particles whose maps are compared; 0 for none.
    mask_path : path, optional
        A map that multiplies decoded and true maps, with the box of the run or of the particles.
    progress : ProgressReporter, optional
        Told about maps.

    Returns
    -------
    Evaluation or VolumeEvaluation
        The second for runs without structures.

    Raises
    ------
    InputError
        No embedding; a truth of other particles or another molecule; a mask of another box; or a truth
        without atoms for a run without structures.
    """
    embedding = run.embedding
    truth = Truth.read(truth_path)
    rows = np.asarray(embedding.row, dtype=np.int64)
    if len(rows) == 0 or rows.max() >= len(truth.state):
        raise InputError(
            f"the truth has {len(truth.state)} particles and the run uses row {rows.max(initial=-1) + 1}",
            file=truth.path,
            remedy="Give the truth of the simulation that made these particles.",
        )
    z, state = posterior(embedding, run.path)[0], truth.state[rows]
    columns: dict[str, NDArray[Any]] = {"row": rows, "state": state.astype(np.int32)}
    structures, populations, composition = None, None, None
    if run.has_structures:
        structures, of_structures = evaluate_structures(run, truth, z, state)
        columns |= of_structures
        if run.config.prior.learned and truth.present is None:
            populations = evaluate_populations(run, truth)
        composition = evaluate_composition(run, truth, z, state)
    imaging = TrueImaging.read(truth.path, rows)
    kept = np.flatnonzero(~imaging.junk)
    maps, curves = None, None
    if len(kept) and (truth.atoms is not None or structures is None):
        mask = None if mask_path is None else read_mask(run, mask_path)
        maps, record = evaluate_maps(
            run, truth, z[kept], state[kept], images=images, mask=mask, progress=progress
        )
        curves = record.arrays(rows[kept])
    controls = {name: points[kept] for name, points in imaging.controls.items()}
    codes = evaluate_latents(z[kept], state[kept], truth, controls)
    junk = evaluate_junk(embedding, imaging.junk, Path(run.path))
    result = _assemble(structures, maps, codes, populations, composition, junk, truth, len(rows))
    target = Path(run.path) / EVALUATION
    write_arrays(target.with_suffix(".npz"), columns)
    if curves is not None:
        write_arrays(Path(run.path) / CURVES, curves)
    for path in (target, json_path):
        if path is not None:
            write_json(path, result.to_dict())
    return result


def _assemble(
    structures: Evaluation | None,
    maps: MapEvaluation | None,
    codes: LatentEvaluation | None,
    populations: PopulationEvaluation | None,
    composition: CompositionEvaluation | None,
    junk: JunkEvaluation | None,
    truth: Truth,
    n_particles: int,
) -> Evaluation | VolumeEvaluation:
    notes = (
        ()
        if codes is None
        else tuple(
            f"the codes tell the {row.name} of a particle: information imbalance {row.from_codes:.2f}, "
            f"where {row.floor:.2f} is chance"
            for row in codes.leaks
        )
    )
    if structures is None:
        return VolumeEvaluation(n_particles, maps, codes, junk, truth.scenario, notes)
    warnings = (*structures.warnings, *notes)
    return replace(
        structures,
        maps=maps,
        codes=codes,
        populations=populations,
        composition=composition,
        junk=junk,
        warnings=warnings,
    )


def read_mask(run: Run, path: str | PathLike[str]) -> Maps:
    """Read a mask for the maps of a run.

    Parameters
    ----------
    run : Run
        Whose maps it is for.
    path : path
        A map with the box of the run or of the particles; the second is cropped in Fourier space.

    Returns
    -------
    ndarray, shape (box, box, box), float32

    Raises
    ------
    InputError
        It cannot be read, or has another box.
    """
    from cryoscape.data.mrc import read_map

    geometry, mask = run.geometry, read_map(path).data
    if mask.shape == (geometry.box,) * 3:
        return mask
    if mask.shape != (geometry.image_box,) * 3:
        raise InputError(
            f"the mask has {' x '.join(str(side) for side in mask.shape)} voxels",
            file=path,
            remedy=f"Give a cube of {geometry.image_box} (the particles) or {geometry.box} (the run's maps).",
        )
    import torch

    from cryoscape.physics.slices import crop_volume, invert_volume, transform_volume

    transform = crop_volume(transform_volume(torch.tensor(mask), 1.0), geometry.box)
    return invert_volume(transform, geometry.image_box / geometry.box).numpy()
