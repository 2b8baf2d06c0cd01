"""Training as one call: particles and a model in, a run folder out."""

from __future__ import annotations

import os
import platform
import shutil
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from lightning_fabric import Fabric, seed_everything

import cryoscape
from cryoscape.data.images import BandImages
from cryoscape.data.particles import Particles
from cryoscape.files import atomic_path
from cryoscape.models.decoders.base import Decoder, StructureDecoder
from cryoscape.preflight.check import preflight
from cryoscape.preflight.report import PreflightReport
from cryoscape.progress import ProgressReporter, reporter_or_silent
from cryoscape.structures.atomic_model import AtomicModel
from cryoscape.training.assemble import Geometry, Start, build_model, build_prior, degrees_of_freedom
from cryoscape.training.config import STRUCTURE_KINDS, Config
from cryoscape.training.consensus import find_consensus
from cryoscape.training.embed import embed
from cryoscape.training.embedding import posterior_table
from cryoscape.training.hardware import build_fabric, set_threads
from cryoscape.training.interruption import Interrupted
from cryoscape.training.loop import Parts, Trainer
from cryoscape.training.pose_table import PoseCorrections
from cryoscape.training.refusals import (
    refuse_other_input,
    refuse_other_settings,
    refuse_outside_box,
    refuse_unfit,
    refuse_used_folder,
)
from cryoscape.training.restraining import Restraints
from cryoscape.training.run import Run
from cryoscape.training.run_folder import (
    copy_reference,
    describe_particles,
    record_consensus,
    update_info,
    write_json,
    write_refined_poses,
)
from cryoscape.training.sampling import BatchOrder, held_out_mask
from cryoscape.training.schedule import total_steps


@dataclass(frozen=True)
class Interpretation:
    """How files are read: what the pre-flight check found, or what the user said.

    Attributes
    ----------
    offset : tuple of float
        World = model file - offset, Angstrom (x, y, z).
    data_sign : int
        What stored pixels are multiplied by for protein to be positive.
    cutoff : float
        Resolution limit of the likelihood, Angstrom.
    """

    offset: tuple[float, float, float]
    data_sign: int
    cutoff: float


def train(
    particles: Particles,
    model: AtomicModel | None = None,
    config: Config | None = None,
    out: str | PathLike[str] = "RUN",
    *,
    interpretation: Interpretation | None = None,
    found: PreflightReport | None = None,
    latents_of: Run | None = None,
    resume: bool = False,
    force: bool = False,
    embedding: bool = True,
    progress: ProgressReporter | None = None,
) -> Run:
    """Train an ensemble of structures or maps and leave a run folder.

    Parameters
    ----------
    particles : Particles
        Images with poses and CTF.
    model : AtomicModel, optional
        The reference, as in its file. Decoders of maps do not need one; given, it is what their maps are
        placed on.
    config : Config, optional
        Settings; the defaults serve.
    out : path
        Run folder.
    interpretation : Interpretation, optional
        Frame, sign and band, where they are known. By default the pre-flight check finds them.
    found : PreflightReport, optional
        The check of this input, where it was made already.
    latents_of : Run, optional
        A run on these very particles whose posteriors are trained on as they stand, instead of an encoder:
        the density stage of cryoSTAR.
    resume : bool
        Go on from the last checkpoint; the result equals that of an uninterrupted run.
    force : bool
        Replace an earlier run in `out`; accept what the check would refuse.
    embedding : bool
        Compute the posteriors of all particles at the end, so that `Run.embedding` is there.
    progress : ProgressReporter, optional

    Returns
    -------
    Run

    Raises
    ------
    InputError
        If input or settings are unusable.
    Interrupted
        After Ctrl-C or SIGTERM, with a checkpoint saved.
    """
    config = config or Config()
    latents = None if latents_of is None else latents_of.embedding
    refuse_unfit(config, particles, model, latents)
    folder = Path(out)
    progress = reporter_or_silent(progress)
    set_threads(config.training.threads)
    if resume:
        run = Run.open(folder)
        refuse_other_settings(run.config, config, folder)
        refuse_other_input(run, particles, model)
        geometry = run.geometry
        sign = run.info["particles"]["data_sign"]
    else:
        refuse_used_folder(folder, force)
        if interpretation is None:
            if found is None and needs_check(config):
                found = preflight(particles, model, progress=progress)
            if found is not None and not force:
                found.require()
            interpretation = interpret(particles, model, config, found)
        sign = interpretation.data_sign
    particles = particles.with_sign(sign)
    cutoff = geometry.cutoff if resume else interpretation.cutoff  # type: ignore[union-attr]
    images = BandImages(particles, cutoff, cache_memory=config.data.cache_memory)
    if not resume:
        assert interpretation is not None
        geometry = Geometry(
            images.box, images.pixel_size, cutoff, images.n_groups, interpretation.offset, particles.box
        )
        if model is not None:
            refuse_outside_box(model, particles, geometry)
    fabric = build_fabric(config)
    images.prepare(progress)
    held_out = held_out_mask(len(particles), config.data.held_out, config.training.seed)
    rows = np.flatnonzero(~held_out)
    consensus = None
    if config.decoder.kind in STRUCTURE_KINDS:
        start = Start(structure=model)
    elif resume:
        start = run.start
    else:
        consensus = find_consensus(images, torch.from_numpy(rows), progress)
        start = Start(model, consensus.filtered, consensus.amplitude)
    seed_everything(config.training.seed, verbose=False)
    modules = build_model(config, start, geometry, given=latents is not None)
    prior = build_prior(config)
    parts = Parts(
        model=modules.to(fabric.device),
        prior=prior.to(fabric.device),
        restraints=_restraints(model, config, geometry, modules.decoder, fabric.device),
        images=images,
        order=BatchOrder(rows, config.training.batch, config.training.seed),
        held_out=torch.from_numpy(np.flatnonzero(held_out)),
        n_training=len(rows),
        latents=None if latents is None else posterior_table(latents, config.prior.support),
        poses=_pose_corrections(config, len(particles), fabric.device),
        structure=model,
    )
    total = total_steps(config.training, len(rows))
    if not resume:
        # Only now, when nothing is left that could be refused, does an earlier run give way.
        _clear_folder(folder)
        _start_folder(folder, config, model, particles, geometry, total, fabric)
        if consensus is not None:
            record_consensus(folder, consensus, geometry)
        if latents is not None and latents_of is not None:
            latents.write(folder / "latents.npz")
            update_info(folder, latents_from=str(latents_of.path))
        if found is not None:
            write_json(folder / "preflight.json", found.to_dict())
    trainer = Trainer(folder, config, parts, total, fabric, progress)
    if resume:
        trainer.restore(folder / "checkpoints" / "last.safetensors")
    else:
        trainer.calibrate()
        trainer.save()
    _set_status(folder, "training", trainer.step)
    try:
        trainer.run()
    except Interrupted:
        _set_status(folder, "interrupted", trainer.step)
        raise
    except BaseException:
        _set_status(folder, "failed", trainer.step)
        raise
    if parts.poses is not None:
        write_refined_poses(folder, Run.open(folder).as_given, parts.poses)
    _set_status(folder, "trained", trainer.step, training_seconds=round(trainer.log.seconds, 1))
    run = Run.open(folder)
    if embedding:
        embed(run, device=str(fabric.device), progress=progress)
    return run


def needs_check(config: Config) -> bool:
    """Whether frame, sign or band are left to the pre-flight check."""
    d = config.data
    return d.frame == "auto" or d.invert is None or d.cutoff is None


def interpret(
    particles: Particles, model: AtomicModel | None, config: Config, found: PreflightReport | None
) -> Interpretation:
    """Frame, sign and band of some input: the user's word where there is one, the check's otherwise."""
    d = config.data
    half = particles.box // 2 * particles.pixel_size
    x = y = z = half
    if model is not None:
        x, y, z = (float(v) for v in np.average(model.coords, axis=0, weights=model.weights))
    fixed = {"corner": (half, half, half), "centre": (0.0, 0.0, 0.0), "centroid": (x, y, z)}
    if model is None:
        # Without a model the frame is the maps' own, whose origin is their first voxel.
        fixed["auto"] = fixed["corner"]
        found = None if found is None else replace(found, offset=fixed["corner"])
    if found is None:
        assert d.invert is not None
        assert d.cutoff is not None
        return Interpretation(fixed[d.frame], -1 if d.invert else 1, d.cutoff)
    return Interpretation(
        found.offset if d.frame == "auto" else fixed[d.frame],
        found.data_sign if d.invert is None else (-1 if d.invert else 1),
        d.cutoff or found.band,
    )


def _restraints(
    model: AtomicModel | None,
    config: Config,
    geometry: Geometry,
    decoder: Decoder,
    device: torch.device,
) -> Restraints | None:
    r = config.restraints
    if not isinstance(decoder, StructureDecoder) or r.bond == r.network == r.clash == 0:
        return None
    assert model is not None
    return Restraints(model, r, degrees_of_freedom(geometry), device)


def _pose_corrections(config: Config, n: int, device: torch.device) -> PoseCorrections | None:
    p = config.poses
    return PoseCorrections(n, p.rotation_sd, p.shift_sd).to(device) if p.refine else None


def _clear_folder(folder: Path) -> None:
    for name in ("checkpoints", "ensemble", "analysis", "maps", "particles", "logs"):
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in (
        "run.json",
        "preflight.json",
        "latents.npz",
        "metrics.csv",
        "embedding.npz",
        "report.html",
        "open_in_chimerax.cxc",
    ):
        (folder / name).unlink(missing_ok=True)


def _start_folder(
    folder: Path,
    config: Config,
    model: AtomicModel | None,
    particles: Particles,
    geometry: Geometry,
    total: int,
    fabric: Fabric,
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    name = None if model is None else copy_reference(model, folder)
    with atomic_path(folder / "config.yaml") as temporary:
        temporary.write_text(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))
    write_json(
        folder / "run.json",
        {
            "status": "training",
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "step": 0,
            "total_steps": total,
            "seed": config.training.seed,
            "reference": name,
            "model": None if model is None or model.path is None else str(model.path),
            "particles": describe_particles(particles, folder),
            "geometry": geometry.to_json(),
            "hardware": {
                "device": str(fabric.device),
                "name": torch.cuda.get_device_name()
                if fabric.device.type == "cuda"
                else platform.processor(),
                "threads": torch.get_num_threads(),
                "cores": os.cpu_count(),
                "precision": str(fabric._precision.precision),
            },
            "versions": {
                "cryoscape": cryoscape.__version__,
                "torch": torch.__version__,
                "numpy": np.__version__,
                "python": platform.python_version(),
            },
        },
    )


def _set_status(folder: Path, status: str, step: int, **more: Any) -> None:
    update_info(folder, status=status, step=step, **more)
