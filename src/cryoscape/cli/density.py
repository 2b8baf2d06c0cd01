"""``cryoscape density``: maps on the latent codes of a run of structures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from cryoscape.cli import overrides
from cryoscape.cli.console import reporter, say
from cryoscape.cli.options import RunFolder, one_thread
from cryoscape.errors import InputError

_SHORT = {
    "decoder": "decoder.kind",
    "steps": "training.steps",
    "epochs": "training.epochs",
    "batch": "training.batch",
    "device": "training.device",
    "seed": "training.seed",
}


def density(
    run: RunFolder,
    /,
    *,
    out: Annotated[
        Path | None, Parameter(name=["--out", "-o"], help="Folder to write [RUN/density].")
    ] = None,
    decoder: Annotated[str | None, Parameter(help="voxels or field [voxels].")] = None,
    steps: Annotated[int | None, Parameter(help="Optimiser steps.")] = None,
    epochs: Annotated[float | None, Parameter(help="Passes over the particles, in place of --steps.")] = None,
    batch: Annotated[int | None, Parameter(help="Images a step [64].")] = None,
    device: Annotated[str | None, Parameter(help="auto, cpu, cuda, cuda:1, ... [that of RUN].")] = None,
    seed: Annotated[int | None, Parameter(help="[that of RUN].")] = None,
    resume: Annotated[bool, Parameter(show_default=False, help="Go on from the last checkpoint.")] = False,
    force: Annotated[bool, Parameter(show_default=False, help="Replace an earlier density stage.")] = False,
    settings: Annotated[tuple[str, ...], Parameter(name="--set", show=False)] = (),
) -> None:
    """Train maps on the latents of RUN, walk along its components, and report.

    The latents stay as RUN found them (cryoSTAR's second stage), so that a model of RUN and the map of the
    same walk and frame can be opened together. Settings can be given as --section.option VALUE.
    """
    from cryoscape.analysis.analyze import analyze
    from cryoscape.report.page import write_report
    from cryoscape.training.config import Config
    from cryoscape.training.density import FOLDER, density_settings, train_density
    from cryoscape.training.hardware import find_device
    from cryoscape.training.run import Run

    if resume and force:
        raise InputError("--resume and --force contradict each other", remedy="Give one of them.")
    opened = Run.open(run)
    given = {
        "decoder": decoder,
        "steps": steps,
        "epochs": epochs,
        "batch": batch,
        "device": device,
        "seed": seed,
    }
    tree = overrides.nested(settings)
    for name, value in given.items():
        if value is not None:
            overrides.put(tree, _SHORT[name], value)
    folder = out or run / FOLDER
    if resume and (folder / "config.yaml").is_file():
        from cryoscape.training.presets import merged

        tree = merged(overrides.read_config_file(folder / "config.yaml"), tree)
    config = overrides.build(Config, density_settings(opened, tree))
    find_device(config.training.device)
    one_thread(config.training.threads)
    progress = reporter()
    stage = train_density(opened, config, folder, resume=resume, force=force, progress=progress)
    analyze(stage, say=progress.note)
    say(f"written: {write_report(stage)}")
