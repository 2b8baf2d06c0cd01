"""``cryoscape train``: from particles and a model to an ensemble."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from cryoscape.cli import overrides
from cryoscape.cli.console import reporter, say
from cryoscape.cli.options import (
    PRIOR_KINDS,
    DataDir,
    Passthrough,
    one_thread,
    read_model,
    read_particles,
    scan_images,
)
from cryoscape.errors import InputError

if TYPE_CHECKING:
    from cryoscape.training.config import Config

# Flags that are short names of settings.
_SHORT = {
    "decoder": "decoder.kind",
    "prior": "prior.kind",
    "likelihood": "likelihood.kind",
    "z_dim": "z_dim",
    "steps": "training.steps",
    "epochs": "training.epochs",
    "batch": "training.batch",
    "device": "training.device",
    "threads": "training.threads",
    "seed": "training.seed",
    "refine_poses": "poses.refine",
}
_SCANNED = 3000  # images looked at before training


def train(
    particles: Annotated[Path, Parameter(help="Particle table with poses and CTF, .star or .cs.")],
    /,
    *,
    out: Annotated[Path, Parameter(name=["--out", "-o"], help="Run folder to write.")],
    model: Annotated[Path | None, Parameter(help="Reference model, .cif or .pdb; maps need none.")] = None,
    decoder: Annotated[str | None, Parameter(help="atomic, modes, segments, field or voxels.")] = None,
    prior: Annotated[
        str | None,
        Parameter(help=PRIOR_KINDS),
    ] = None,
    likelihood: Annotated[str | None, Parameter(help="gaussian, correlation or mse.")] = None,
    preset: Annotated[
        str | None, Parameter(help="cryoscape (default), cryostar, cont, nma, cryosphere or cryodrgn.")
    ] = None,
    config: Annotated[Path | None, Parameter(help="YAML file of settings, over the preset.")] = None,
    z_dim: Annotated[int | None, Parameter(help="Latent dimensions [8].")] = None,
    steps: Annotated[int | None, Parameter(help="Optimiser steps.")] = None,
    epochs: Annotated[float | None, Parameter(help="Passes over the particles, in place of --steps.")] = None,
    batch: Annotated[int | None, Parameter(help="Images a step [64].")] = None,
    device: Annotated[str | None, Parameter(help="auto, cpu, cuda, cuda:1, ... [auto].")] = None,
    threads: Annotated[int | None, Parameter(help="CPU threads; 0 for all [1].")] = None,
    seed: Annotated[int | None, Parameter(help="[0].")] = None,
    datadir: DataDir = None,
    passthrough: Passthrough = (),
    refine_poses: Annotated[
        bool, Parameter(show_default=False, help="Learn small corrections of the poses as well.")
    ] = False,
    resume: Annotated[bool, Parameter(show_default=False, help="Go on from the last checkpoint.")] = False,
    force: Annotated[
        bool,
        Parameter(show_default=False, help="Replace an earlier run; do not let the check refuse."),
    ] = False,
    settings: Annotated[tuple[str, ...], Parameter(name="--set", show=False)] = (),
) -> None:
    """Train an ensemble model, then embed, analyse and report.

    Every setting of the configuration can be given as --section.option VALUE, for example
    --training.lr 1e-4 or --encoder.hidden "[512, 256]". Flags go over --config, and that over --preset.
    """
    flags = {
        "decoder": decoder,
        "prior": prior,
        "likelihood": likelihood,
        "z_dim": z_dim,
        "steps": steps,
        "epochs": epochs,
        "batch": batch,
        "device": device,
        "threads": threads,
        "seed": seed,
        "refine_poses": True if refine_poses else None,
    }
    if resume and force:
        raise InputError("--resume and --force contradict each other", remedy="Give one of them.")
    from cryoscape.training.config import STRUCTURE_KINDS

    chosen = resolve(
        flags, settings, preset=preset, file=config, earlier=out / "config.yaml" if resume else None
    )
    if model is None and chosen.decoder.kind in STRUCTURE_KINDS:
        raise InputError(
            f"the {chosen.decoder.kind} decoder needs a reference model",
            remedy="Give --model, a .cif or .pdb, or train maps: --decoder voxels.",
        )
    if (out / "run.json").exists() and not (resume or force):
        raise InputError(
            "the output folder holds another run",
            file=out,
            remedy="Go on with --resume, or replace it with --force.",
        )
    run_training(
        particles,
        model,
        chosen,
        out,
        datadir=datadir,
        passthrough=passthrough,
        resume=resume,
        force=force,
    )


def resolve(
    flags: dict[str, Any],
    settings: tuple[str, ...] = (),
    *,
    preset: str | None = None,
    file: Path | None = None,
    earlier: Path | None = None,
) -> Config:
    """Put the configuration together: preset, then file, then flags; a resumed run starts from its own.

    Raises
    ------
    InputError
        For unknown names and values out of range, by dotted path.
    """
    from cryoscape.training.config import Config
    from cryoscape.training.presets import merged
    from cryoscape.training.presets import preset as preset_settings

    from_file = {} if file is None else overrides.read_config_file(file)
    from_earlier = {} if earlier is None or not earlier.is_file() else overrides.read_config_file(earlier)
    from_flags = overrides.nested(settings)
    for name, value in flags.items():
        if value is not None:
            overrides.put(from_flags, _SHORT[name], value)
    if "steps" in flags and flags["steps"] is not None and flags.get("epochs") is not None:
        raise InputError("both --steps and --epochs are given", remedy="Give one of them.")
    wanted = preset or from_file.get("preset")
    base = from_earlier if from_earlier and wanted is None else preset_settings(str(wanted or "cryoscape"))
    tree = overrides.default_kinds(Config)
    for layer in (base, from_file, from_flags):
        tree = merged(tree, layer)
    return overrides.build(Config, tree, file, from_file)


def run_training(
    particles: Path,
    model: Path | None,
    config: Config,
    out: Path,
    *,
    datadir: Path | None = None,
    passthrough: tuple[Path, ...] = (),
    resume: bool = False,
    force: bool = False,
) -> None:
    """Check, train, embed, analyse and report."""
    from cryoscape.analysis.analyze import analyze
    from cryoscape.cli.analyze import describe
    from cryoscape.preflight.check import preflight
    from cryoscape.report.page import write_report
    from cryoscape.training.hardware import find_device
    from cryoscape.training.train import needs_check
    from cryoscape.training.train import train as train_model

    one_thread(config.training.threads)
    find_device(config.training.device)  # a device that is not there is refused before anything is read
    progress = reporter()
    table = read_particles(particles, datadir, passthrough)
    structure = None if model is None else read_model(model)
    found = None
    if not resume:
        scan_images(table, limit=_SCANNED)
        if needs_check(config):
            found = preflight(table, structure, progress=progress)
            say(str(found))
    try:
        run = train_model(
            table, structure, config, out=out, found=found, resume=resume, force=force, progress=progress
        )
    except KeyboardInterrupt:
        if (out / "checkpoints" / "last.safetensors").exists():
            progress.note("a checkpoint is saved; the same command with --resume goes on from it")
        raise
    say(describe(analyze(run, say=progress.note)))
    say(f"written: {write_report(run)}")
