"""The density stage: maps on the latents of a run of structures (cryoSTAR's second stage)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cryoscape.errors import InputError
from cryoscape.progress import ProgressReporter
from cryoscape.training.config import STRUCTURE_KINDS, Config
from cryoscape.training.presets import merged
from cryoscape.training.run import Run
from cryoscape.training.train import Interpretation, train

FOLDER = "density"
"""Name of the stage's folder inside that of its run."""


def density_settings(run: Run, extra: dict[str, Any] | None = None) -> dict[str, Any]:
    """Settings of a density stage: those of the run for data and seed, defaults of maps for the rest.

    Parameters
    ----------
    run : Run
    extra : dict, optional
        Nested settings that go over them.

    Returns
    -------
    dict
        What `Config` takes.
    """
    t = run.config.training
    base = {
        "z_dim": run.config.z_dim,
        "data": {**run.config.data.model_dump(), "cutoff": run.geometry.cutoff},
        "decoder": {"kind": "voxels"},
        # The population is that of the run; what is known of every particle is not changed by another one.
        "prior": {"kind": "normal" if run.config.prior.support == "real" else "bernoulli"},
        "training": {"seed": t.seed, "device": t.device, "threads": t.threads},
    }
    return merged(base, extra or {})


def train_density(
    run: Run,
    config: Config | None = None,
    out: Path | None = None,
    *,
    resume: bool = False,
    force: bool = False,
    progress: ProgressReporter | None = None,
) -> Run:
    """Train maps on the posteriors of another run's particles, which stay as they are.

    What the images say of the density is then free of the atomic model, but for the codes. Li et al. 2024,
    second stage.

    Parameters
    ----------
    run : Run
        With an embedding.
    config : Config, optional
        By default `density_settings`.
    out : Path, optional
        By default the folder `density` of the run.
    resume, force, progress
        As in `train`.

    Returns
    -------
    Run

    Raises
    ------
    InputError
        If the run has no embedding, is a density stage itself, or the decoder makes structures.
    """
    if run.info.get("latents_from"):
        raise InputError(
            "this run is a density stage itself",
            file=run.path,
            remedy=f"Give the run that its latents come from: {run.info['latents_from']}.",
        )
    config = config or Config.model_validate(density_settings(run))
    if config.decoder.kind in STRUCTURE_KINDS:
        raise InputError(
            f"a density stage makes maps, and the {config.decoder.kind} decoder makes structures",
            remedy="Give --decoder voxels or --decoder field.",
        )
    cutoff = config.data.cutoff or run.geometry.cutoff
    return train(
        run.particles,
        run.model,
        config,
        out or run.path / FOLDER,
        interpretation=Interpretation(run.geometry.offset, run.info["particles"]["data_sign"], cutoff),
        latents_of=run,
        resume=resume,
        force=force,
        progress=progress,
    )
