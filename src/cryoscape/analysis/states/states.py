"""States of a run as maps made from the images alone, with particle tables and the proof that they differ."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from cryoscape.analysis.records import read_json, write_json
from cryoscape.analysis.states.membership import StateMembership
from cryoscape.analysis.states.specificity import Specificity, compare
from cryoscape.analysis.states.state_maps import StateMap, back_project_states, finish_map
from cryoscape.data.images import BandImages
from cryoscape.data.mrc import write_map
from cryoscape.errors import InputError
from cryoscape.physics.map_filters import coarsen
from cryoscape.progress import ProgressReporter, reporter_or_silent

if TYPE_CHECKING:
    from cryoscape.data.particles import Particles
    from cryoscape.training.run import Run

FOLDER = "states"


@dataclass(frozen=True, eq=False)
class StatesSummary:
    """What `make_states` found and wrote.

    Attributes
    ----------
    folder : Path
        Where.
    membership : StateMembership
    maps : tuple of StateMap, length K
        At the box of the run.
    specificity : Specificity
    files : tuple of str
        Names in the folder.
    """

    folder: Path
    membership: StateMembership
    maps: tuple[StateMap, ...]
    specificity: Specificity
    files: tuple[str, ...]


def make_states(
    run: Run,
    membership: StateMembership,
    *,
    box: Literal["band", "full"] = "band",
    b_factor: float | None = None,
    device: str = "cpu",
    seed: int = 0,
    progress: ProgressReporter | None = None,
) -> StatesSummary:
    """Back-project every state, compare with the models and write all of it into `RUN/states`.

    For each state: `state_1.mrc` (filtered), `state_1_sharpened.mrc`, `state_1_half1.mrc` and `_half2.mrc`
    (not filtered), `state_1_mask.mrc` and `state_1_particles` (the user's rows whose weight is above a half).
    For all: `particles.star` or `.cs` (all rows with the weights) and `states.json`.

    Parameters
    ----------
    run : Run
        With an embedding, and its images at hand.
    membership : StateMembership
        For the particles of the embedding.
    box : "band" or "full"
        Back-project in the band of the run, or at the pixel size of the images.
    b_factor : float, optional
        For the sharpened maps, A^2, negative sharpens; by default from each map's Guinier plot.
    device : str
        Of the back-projection.
    seed : int
        Of the random phases.
    progress : ProgressReporter, optional

    Returns
    -------
    StatesSummary

    Raises
    ------
    InputError
        If the particles are not those of the embedding, or a half of a state is empty.
    """
    particles, folder = run.particles, Path(run.path) / FOLDER
    if not np.array_equal(particles.uid, run.embedding.uid):
        raise InputError(
            "the embedding is not of the particles of the run",
            file=run.path,
            remedy="Run: cryoscape embed RUN",
        )
    for name, column in zip(membership.names, membership.weights.T):
        for half in (1, 2):
            if column[particles.half == half].sum() <= 0:
                raise InputError(
                    f"{name} has no particle in half {half}",
                    file=particles.source.path,
                    remedy="Ask for fewer states, or give the table halves that share them.",
                )
    images = (
        run.images() if box == "band" else BandImages(particles, 2 * particles.pixel_size, cache_memory=0.0)
    )
    written = list(_write_particles(particles, membership, folder))
    maps = []
    sums = back_project_states(images, membership.weights, particles.half, device=device, progress=progress)
    for name, accumulated in zip(membership.names, sums, strict=True):
        state = finish_map(accumulated, b_factor, seed)
        written += _write_maps(state, name, folder, run.map_origin)
        # Only what the comparison needs is kept: full boxes of many states would fill the memory.
        maps.append(_reduced(state, run.geometry.box))
    with reporter_or_silent(progress).task("compare with the models", 1) as task:
        specificity = compare(maps, run.decode_maps(membership.representative.astype(np.float32)))
        task.advance(1)
    summary = StatesSummary(folder, membership, tuple(maps), specificity, tuple(written))
    earlier = _earlier_files(folder)
    write_json(folder / "states.json", _as_json(summary, particles, images))
    for name in earlier - set(written):
        # An earlier call with other states must not be taken for this one.
        (folder / name).unlink(missing_ok=True)
    return summary


def _earlier_files(folder: Path) -> set[str]:
    """Names of what the last call wrote, as it says itself."""
    record = folder / "states.json"
    if not record.is_file():
        return set()
    return {name for name in read_json(record).get("files", ()) if Path(name).name == name}


def _write_particles(particles: Particles, membership: StateMembership, folder: Path) -> Iterator[str]:
    """Write the user's table with the weights, and the rows of each state."""
    suffix = particles.source.suffix
    prefix: Callable[[str], str] = "cryoscape{}".format if suffix == ".star" else "cryoscape/{}".format
    label = membership.label
    columns: dict[str, NDArray[Any]] = {
        prefix(f"State{k + 1}Weight" if suffix == ".star" else f"state{k + 1}_weight"): column.astype(
            np.float32
        )
        for k, column in enumerate(membership.weights.T)
    }
    columns[prefix("State" if suffix == ".star" else "state")] = (label + 1).astype(np.int32)
    yield f"particles{suffix}"
    particles.write(folder / f"particles{suffix}", columns)
    for k, name in enumerate(membership.names):
        rows = np.flatnonzero(label == k)
        if len(rows):
            yield f"{name}_particles{suffix}"
            chosen = {key: values[rows] for key, values in columns.items()}
            particles.select(rows).write(folder / f"{name}_particles{suffix}", chosen)


def _write_maps(state: StateMap, name: str, folder: Path, origin: tuple[float, float, float]) -> list[str]:
    volumes: dict[str, Tensor | None] = {
        f"{name}.mrc": state.filtered,
        f"{name}_sharpened.mrc": state.sharpened,
        f"{name}_half1.mrc": state.half1,
        f"{name}_half2.mrc": state.half2,
        f"{name}_mask.mrc": state.mask,
    }
    there = {file: volume for file, volume in volumes.items() if volume is not None}
    for file, volume in there.items():
        write_map(folder / file, volume.cpu().numpy(), state.voxel_size, origin=origin)
    return list(there)


def _reduced(state: StateMap, box: int) -> StateMap:
    """The maps on the coarser grid of the run; the curves stay as they are."""
    full = state.half1.shape[0]
    if full == box:
        return state

    def small(volume: Tensor) -> Tensor:
        return coarsen(volume.cpu(), state.voxel_size, box)

    return replace(
        state,
        voxel_size=state.voxel_size * full / box,
        half1=small(state.half1),
        half2=small(state.half2),
        combined=small(state.combined),
        filtered=small(state.filtered),
        sharpened=None if state.sharpened is None else small(state.sharpened),
        mask=small(state.mask),
    )


def _as_json(summary: StatesSummary, particles: Particles, images: BandImages) -> dict[str, Any]:
    member, score = summary.membership, summary.specificity
    label = member.label
    return {
        "n_particles": len(particles),
        "membership": member.source,
        "unassigned": int((label < 0).sum()),
        "box": images.box,
        "voxel_size": images.pixel_size,
        "states": [
            {
                "name": name,
                "share": member.share[k],
                "images": float(member.weights[:, k].sum()),
                "effective_images": member.effective[k],
                "images_by_half": list(state.count),
                "assigned": int((label == k).sum()),
                "representative_row": int(particles.row[member.particle[k]]),
                "representative_z": member.representative[k],
                "resolution": state.resolution,
                "resolution_is_a_bound": state.at_the_limit,
                "b_factor": state.b_factor,
                "mask_share": float(state.mask.mean()),
                "fsc": {
                    "frequency": state.frequency,
                    "unmasked": state.correlation.unmasked.numpy(),
                    "masked": state.correlation.masked.numpy(),
                    "randomised": state.correlation.randomised.numpy(),
                    "corrected": state.correlation.corrected.numpy(),
                    "random_from": state.correlation.random_from,
                },
            }
            for k, (name, state) in enumerate(zip(member.names, summary.maps))
        ],
        "specificity": {
            "rows": "maps",
            "columns": "models",
            "plain": score.plain,
            "difference": score.difference,
            "difference_by_half": score.halves,
            "won_plain": score.won_plain,
            "won": score.won,
            "won_in_both_halves": score.won_in_both_halves,
            "models_won": score.models_won,
            "margin": score.margin,
        },
        "files": summary.files,
    }
