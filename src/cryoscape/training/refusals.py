"""What training refuses, before anything is written."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cryoscape.data.particles import Particles
from cryoscape.errors import InputError
from cryoscape.priors.config import BoltzmannConfig
from cryoscape.structures.atomic_model import AtomicModel
from cryoscape.training.assemble import Geometry
from cryoscape.training.config import STRUCTURE_KINDS, AtomicConfig, Config
from cryoscape.training.embedding import Embedding
from cryoscape.training.run import Run
from cryoscape.training.run_folder import fingerprint


def refuse_unfit(
    config: Config, particles: Particles, model: AtomicModel | None, latents: Embedding | None
) -> None:
    """Refuse parts that do not go together, before anything is read or written."""
    kind = config.decoder.kind
    if model is None and kind in STRUCTURE_KINDS:
        raise InputError(
            f"the {kind} decoder needs a reference model",
            remedy="Give one with --model, or train maps: --decoder voxels.",
        )
    prior = config.prior
    if isinstance(prior, BoltzmannConfig) and prior.origin != "embeddings" and kind not in STRUCTURE_KINDS:
        raise InputError(
            f"switches cannot start from the {prior.origin} of a model: the {kind} decoder makes maps",
            remedy="Use --decoder atomic, or --prior.origin embeddings.",
        )
    tied = isinstance(config.decoder, AtomicConfig) and config.decoder.occupancy == "tied"
    if tied and prior.support != "binary":
        raise InputError(
            f"chains are tied to bits, and the {prior.kind} prior has none",
            remedy="Give --prior rbm, or --decoder.occupancy free.",
        )
    if config.objective.gradient == "leave-one-out":
        _refuse_leave_one_out(config)
    if prior.support == "binary" and config.objective.free_bits > 0:
        raise InputError(
            f"free bits are defined for real latents, and the {prior.kind} prior is on bits",
            remedy="Set --objective.free-bits 0, or choose another preset.",
        )
    if config.objective.bound == "importance":
        _refuse_importance(config)
    if latents is not None and not np.array_equal(latents.uid, particles.uid):
        raise InputError(
            "the latents are not those of these particles",
            file=particles.source.path,
            remedy="Embed these particles first: cryoscape embed RUN.",
        )
    if latents is not None and latents.z.shape[1] != config.z_dim:
        raise InputError(
            f"the latents have {latents.z.shape[1]} dimensions, the settings {config.z_dim}",
            remedy=f"Set --z-dim {latents.z.shape[1]}.",
        )


def refuse_used_folder(folder: Path, force: bool) -> None:
    """Refuse a folder with a run in it, unless it is to be replaced."""
    if (folder / "run.json").exists() and not force:
        raise InputError(
            "the output folder holds another run",
            file=folder,
            remedy="Go on with --resume, replace it with --force, or name another folder.",
        )


def refuse_other_settings(old: Config, new: Config, folder: Path) -> None:
    """A resumed run may change where it runs, never what it computes."""
    free = {"device", "threads", "checkpoint_minutes", "tensorboard"}
    a, b = old.model_dump(), new.model_dump()
    for settings in (a, b):
        settings.pop("preset")
        for name in free:
            settings["training"].pop(name)
    different = sorted(
        f"{section}.{name}" if isinstance(value, dict) else section
        for section, value in a.items()
        for name in (value if isinstance(value, dict) else [section])
        if (value.get(name) != b[section].get(name) if isinstance(value, dict) else value != b[section])
    )
    if different:
        raise InputError(
            f"the run was started with other settings ({', '.join(different)})",
            file=folder / "config.yaml",
            remedy="Resume without changing them, or train into another folder.",
        )


def refuse_other_input(run: Run, particles: Particles, model: AtomicModel | None) -> None:
    """A resumed run goes on with the very particles and the model it began with."""
    remedy = "Name the same files, or train into another folder."
    if fingerprint(particles) != run.info["particles"]["fingerprint"]:
        raise InputError(
            "the run was started with other particles", file=particles.source.path, remedy=remedy
        )
    before = run.model
    same = model is before is None or (
        model is not None and before is not None and np.array_equal(model.coords, before.coords)
    )
    if not same:
        path = run.path if model is None else model.path
        raise InputError("the run was started with another model", file=path, remedy=remedy)


def refuse_outside_box(model: AtomicModel, particles: Particles, geometry: Geometry) -> None:
    """Refuse a model of which residues lie outside the box of the particles."""
    world = model.coords - np.asarray(geometry.offset, dtype=np.float32)
    half = particles.box * particles.pixel_size / 2
    outside = int((np.abs(world).max(axis=1) > half).sum())
    if outside:
        raise InputError(
            f"{outside} of {len(model)} residues of the model lie outside the box of {2 * half:.0f} A",
            file=model.path,
            remedy="Place the model in the map of these particles, or give --data.frame.",
        )


def _refuse_leave_one_out(config: Config) -> None:
    """Refuse the unbiased gradient of bits where there are none, or one sample alone."""
    if config.prior.support != "binary":
        raise InputError(
            f"the leave-one-out gradient is one of bits, and the {config.prior.kind} prior has none",
            remedy="Leave --objective.gradient out.",
        )
    if config.objective.samples < 2 or config.objective.bound == "importance":
        raise InputError(
            "the leave-one-out gradient needs two samples or more, and the plain evidence bound",
            remedy="Set --objective.samples 2 and --objective.bound elbo.",
        )


def _refuse_importance(config: Config) -> None:
    """Refuse what the importance-weighted bound cannot be made of."""
    if config.objective.samples < 2:
        raise InputError(
            "one sample has no importance weights", remedy="Set --objective.samples 2 or more, for example 5."
        )
    if config.objective.free_bits > 0:
        raise InputError(
            "free bits have no meaning in the importance-weighted bound",
            remedy="Set --objective.free-bits 0, or --objective.bound elbo.",
        )
    if getattr(config.prior, "support", "") == "binary" and getattr(config.prior, "hidden", 0):
        raise InputError(
            "relaxed bits have no density under a machine with hidden units",
            remedy="Set --prior.hidden 0, or --objective.bound elbo.",
        )
