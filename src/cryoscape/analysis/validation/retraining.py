"""Training the configuration of a run again on other input, below RUN/validation.

Nothing is shared with the run but its settings and how its files are read (frame, sign, band): network,
prior, amplitude and noise start anew, from another seed. A training that is there already is found again, and
one that was interrupted goes on, where run, settings, particles, seed and recipe are the same.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryoscape.analysis.records import plain, read_json, write_json
from cryoscape.data.particles import Particles
from cryoscape.progress import ProgressReporter, reporter_or_silent
from cryoscape.structures.atomic_model import AtomicModel
from cryoscape.training.config import Config
from cryoscape.training.embed import embed
from cryoscape.training.run import Run
from cryoscape.training.run_folder import fingerprint
from cryoscape.training.train import Interpretation, train

FOLDER = "validation"
"""In the run folder."""

LEAST_HELD_OUT = 0.1
"""Share of the particles that a training on simulated images is not shown, at least."""

_IDENTITY = "retraining.json"


@dataclass(frozen=True, eq=False)
class Retraining:
    """How everything that is trained again from one run is trained.

    Parameters
    ----------
    run : Run
        The original.
    steps : int, optional
        Optimiser steps of each training. By default every particle is seen as often as in the original, so
        that half the particles get half the steps.
    seed : int
        Of the seeds of all trainings.
    progress : ProgressReporter, optional
    """

    run: Run
    steps: int | None = None
    seed: int = 0
    progress: ProgressReporter | None = None

    @property
    def folder(self) -> Path:
        """Where all of it is."""
        return self.run.path / FOLDER

    @property
    def interpretation(self) -> Interpretation:
        """Frame, sign and band of the original."""
        geometry = self.run.geometry
        return Interpretation(geometry.offset, self.run.info["particles"]["data_sign"], geometry.cutoff)

    def seed_of(self, name: str) -> int:
        """Seed of what is drawn for a name: another for each, and none the original's but by chance."""
        text = f"{self.seed} {name}"
        return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "little")

    def steps_for(self, n: int) -> int:
        """Optimiser steps of a training on n particles."""
        if self.steps is not None:
            return self.steps
        return max(1, round(int(self.run.info["total_steps"]) * n / self.run.info["particles"]["n"]))

    def config_for(self, name: str, n: int, held_out: float = 0.0) -> Config:
        """Settings of a training on n particles, of which at least the share `held_out` is not shown."""
        config = self.run.config
        training = config.training.model_copy(
            update={"steps": self.steps_for(n), "epochs": None, "seed": self.seed_of(name)}
        )
        data = config.data.model_copy(update={"held_out": max(config.data.held_out, held_out)})
        return config.model_copy(update={"training": training, "data": data})

    def train(
        self,
        name: str,
        particles: Particles,
        *,
        model: AtomicModel | None = None,
        held_out: float = 0.0,
        recipe: Mapping[str, Any] | None = None,
    ) -> Run:
        """Train on some particles, or find what was trained on them before.

        Parameters
        ----------
        name : str
            Of the folder below RUN/validation.
        particles : Particles
        model : AtomicModel, optional
            The reference to start from, as in its file; by default the original's.
        held_out : float
            Share of the particles that is not shown, at least.
        recipe : mapping, optional
            How the particles or the model were made, where they are not the user's: part of what has to be
            the same for a training to be found again.

        Returns
        -------
        Run
            Trained, with its embedding.

        Raises
        ------
        Interrupted
            After Ctrl-C or SIGTERM; the next call goes on from there.
        """
        folder = self.folder / name
        config = self.config_for(name, len(particles), held_out)
        identity = self._identity(particles, config, recipe)
        status = _status(folder, identity)
        if status == "trained":
            run = Run.open(folder)
        else:
            if status is None:
                shutil.rmtree(folder, ignore_errors=True)
                write_json(folder / _IDENTITY, identity)
            reporter_or_silent(self.progress).note(f"train {name} ({config.training.steps} steps)")
            run = train(
                particles,
                self.run.model if model is None else model,
                config,
                folder,
                interpretation=self.interpretation,
                resume=status is not None,
                progress=self.progress,
            )
        if not (folder / "embedding.npz").is_file():
            embed(run, progress=self.progress)
        return run

    def _identity(
        self, particles: Particles, config: Config, recipe: Mapping[str, Any] | None
    ) -> dict[str, Any]:
        settings = config.model_dump(mode="json")
        for name in ("device", "threads", "checkpoint_minutes", "tensorboard"):
            settings["training"].pop(name)
        identity = {
            "run": file_digest(self.run.path / "checkpoints" / "last.safetensors"),
            "particles": fingerprint(particles),
            "settings": settings,
            "recipe": dict(recipe or {}),
        }
        return plain(identity)


def _status(folder: Path, identity: dict[str, Any]) -> str | None:
    """State of the training in a folder; None where there is none that could go on, or it is another."""
    if not all((folder / name).is_file() for name in (_IDENTITY, "run.json", "config.yaml")):
        return None
    if read_json(folder / _IDENTITY) != identity:
        return None
    if not (folder / "checkpoints" / "last.safetensors").is_file():
        return None
    return str(Run.open(folder).info["status"])


def file_digest(path: Path) -> str:
    """Hash of the content of a file."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
