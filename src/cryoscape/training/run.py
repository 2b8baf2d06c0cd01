"""A run folder, read back: settings, model, embedding, and the decoder at work."""

from __future__ import annotations

import csv
import json
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from pydantic import ValidationError

from cryoscape.data.images import BandImages
from cryoscape.data.mrc import read_map
from cryoscape.data.particles import Particles
from cryoscape.errors import InputError
from cryoscape.models.decoders.base import StructureDecoder, VolumeDecoder
from cryoscape.models.density import structure_maps
from cryoscape.models.image_model import ImageModel
from cryoscape.priors.base import LatentPrior
from cryoscape.structures.atomic_model import AtomicModel
from cryoscape.training import checkpoint
from cryoscape.training.assemble import Geometry, Start, build_model, build_prior
from cryoscape.training.config import STRUCTURE_KINDS, Config
from cryoscape.training.embedding import Embedding
from cryoscape.training.population import prior_in_force
from cryoscape.training.pose_table import PoseCorrections
from cryoscape.training.run_folder import fingerprint


class Run:
    """One trained (or training) model in its folder.

    Parameters
    ----------
    path : Path
        The run folder.
    config : Config
    info : dict
        Contents of run.json.
    """

    def __init__(self, path: Path, config: Config, info: dict[str, Any]) -> None:
        self.path = path
        self.config = config
        self.info = info

    @classmethod
    def open(cls, path: str | PathLike[str]) -> Run:
        """Open a run folder.

        Raises
        ------
        InputError
            If it is no run folder.
        """
        path = Path(path)
        if not (path / "run.json").is_file() or not (path / "config.yaml").is_file():
            raise InputError(
                "this is not a run folder (no run.json)",
                file=path,
                remedy="Give the folder that `cryoscape train -o` wrote.",
            )
        try:
            config = Config.model_validate(yaml.safe_load((path / "config.yaml").read_text()))
            info = json.loads((path / "run.json").read_text())
        except (ValidationError, ValueError, yaml.YAMLError) as error:
            raise InputError(f"the run's settings cannot be read: {error}", file=path) from error
        return cls(path, config, info)

    @cached_property
    def model(self) -> AtomicModel | None:
        """The reference structure, from the copy in the run folder; None where maps were trained without."""
        name = self.info["reference"]
        return None if name is None else AtomicModel.read(self.path / name)

    @property
    def structure(self) -> AtomicModel:
        """The reference structure of a run that has one.

        Raises
        ------
        InputError
            If it has none.
        """
        if self.model is None:
            raise InputError(
                "this run has no atomic model",
                file=self.path,
                remedy="Use a run that was trained with --model.",
            )
        return self.model

    @property
    def has_structures(self) -> bool:
        """Whether the decoder makes structures, and not maps alone."""
        return self.config.decoder.kind in STRUCTURE_KINDS

    @cached_property
    def start(self) -> Start:
        """What the decoder started from."""
        if self.has_structures:
            return Start(structure=self.model)
        volume = read_map(self.path / "maps" / "consensus.mrc").data
        amplitude = torch.tensor(self.info["consensus"]["amplitude"], dtype=torch.float32)
        return Start(self.model, torch.from_numpy(np.array(volume)), amplitude)

    @property
    def latents(self) -> Embedding | None:
        """Posteriors that the run was given (density stage), None where it has an encoder."""
        path = self.path / "latents.npz"
        return Embedding.read(path) if path.is_file() else None

    @property
    def map_origin(self) -> tuple[float, float, float]:
        """Header origin that puts a map of this run in the frame of the model file, (x, y, z), Angstrom."""
        return self.geometry.map_origin

    @cached_property
    def geometry(self) -> Geometry:
        """Box, band and frame of the images."""
        return Geometry.from_json(self.info["geometry"])

    @cached_property
    def particles(self) -> Particles:
        """The particles it was trained on, read again from the user's file, protein positive.

        In the poses that the run learnt, where it refined them.
        """
        particles = self.as_given
        if not self.config.poses.refine:
            return particles
        corrections = PoseCorrections(
            len(particles), self.config.poses.rotation_sd, self.config.poses.shift_sd
        )
        path = self.path / "checkpoints" / "last.safetensors"
        checkpoint.load_module(corrections, checkpoint.load(path)[0]["poses"], path)
        return corrections.moved(particles)

    @cached_property
    def as_given(self) -> Particles:
        """The same in the poses of the user's file."""
        source = self.info["particles"]
        particles = Particles.read(
            source["path"], datadir=source["datadir"], passthrough=source["passthrough"]
        )
        chosen = self.path / "particles" / "training_rows.npy"
        if chosen.is_file():
            rows = np.load(chosen, allow_pickle=False)
            particles = particles.select(rows[rows < len(particles)])
        elif len(particles) > source["n"]:
            # The first rows of a table are a selection that needs no list.
            particles = particles.select(np.arange(source["n"]))
        if fingerprint(particles) != source["fingerprint"]:
            raise InputError(
                "the particles are not those of the training, or not in their order",
                file=source["path"],
                remedy="Restore the file, or name another one on the command line.",
            )
        return particles.with_sign(source["data_sign"])

    @cached_property
    def _modules(self) -> tuple[ImageModel, LatentPrior, dict[str, Any]]:
        path = self.path / "checkpoints" / "last.safetensors"
        groups, header = checkpoint.load(path)
        model = build_model(self.config, self.start, self.geometry, given=self.latents is not None)
        prior = build_prior(self.config)
        checkpoint.load_module(model, groups.get("ema", groups["model"]), path)
        checkpoint.load_module(prior, groups.get("prior", {}), path)
        prior = prior_in_force(prior, self.config, int(header["step"]), int(self.info["total_steps"]))
        return model.eval().requires_grad_(False), prior.eval().requires_grad_(False), header

    @property
    def image_model(self) -> ImageModel:
        """The trained modules, on the CPU."""
        return self._modules[0]

    @property
    def prior(self) -> LatentPrior:
        """The population model p(z)."""
        return self._modules[1]

    @property
    def step(self) -> int:
        """Optimiser steps behind the checkpoint."""
        return int(self._modules[2]["step"])

    @property
    def embedding(self) -> Embedding:
        """Posteriors of the training particles.

        Raises
        ------
        InputError
            If there is none yet.
        """
        return Embedding.read(self.path / "embedding.npz")

    @property
    def metrics(self) -> dict[str, NDArray[Any]]:
        """metrics.csv as columns; numbers where all entries are numbers."""
        return read_metrics(self.path / "metrics.csv")

    def decode(self, z: NDArray[np.floating[Any]], chunk: int = 512) -> NDArray[np.float32]:
        """Conformations of latents.

        Parameters
        ----------
        z : ndarray, shape (n, d)
        chunk : int
            How many are decoded at a time.

        Returns
        -------
        ndarray, shape (n, N, 3), float32
            Angstrom, in the frame of the model file as given.

        Raises
        ------
        InputError
            If z has another number of columns than the run, or the run makes maps, not structures.
        """
        decoder = self.image_model.decoder
        if not isinstance(decoder, StructureDecoder):
            raise InputError(
                f"the {self.config.decoder.kind} decoder makes maps, not structures",
                file=self.path,
                remedy="Decode to .mrc, or use a run with atoms.",
            )
        points = self._points(z)
        offset = torch.tensor(self.geometry.offset)
        out = np.empty((len(points), len(self.structure), 3), dtype=np.float32)
        with torch.no_grad():
            for start in range(0, len(points), chunk):
                coords = decoder.coordinates(points[start : start + chunk])
                out[start : start + chunk] = (coords + offset).numpy()
        return out

    def occupancy(self, z: NDArray[np.floating[Any]]) -> NDArray[np.float32] | None:
        """Share of every residue's chain that is there, shape (n, N); None where all always are.

        Parameters
        ----------
        z : ndarray, shape (n, d)
        """
        decoder = self.image_model.decoder
        if not isinstance(decoder, StructureDecoder):
            return None
        with torch.no_grad():
            chains = decoder.occupancy(self._points(z))
        return None if chains is None else chains.numpy()[:, self.structure.chain_index]

    def decode_maps(self, z: NDArray[np.floating[Any]], chunk: int = 8) -> NDArray[np.float32]:
        """Density maps of latents, of any decoder.

        Structures become maps by the structure factors of their scatterers times the radial gain of the
        likelihood: what the images would show.

        Parameters
        ----------
        z : ndarray, shape (n, d)
        chunk : int
            How many are decoded at a time.

        Returns
        -------
        ndarray, shape (n, box, box, box), float32
            (z, y, x), voxels of `geometry.pixel_size`, density per cubic Angstrom in the scale of the images;
            `map_origin` places them.

        Raises
        ------
        InputError
            If z has another number of columns than the run.
        """
        points, decoder = self._points(z), self.image_model.decoder
        out = np.empty((len(points), *(self.geometry.box,) * 3), dtype=np.float32)
        with torch.no_grad():
            for start in range(0, len(points), chunk):
                part = points[start : start + chunk]
                if isinstance(decoder, VolumeDecoder):
                    maps = decoder.volumes(part)
                else:
                    assert isinstance(decoder, StructureDecoder)
                    maps = structure_maps(decoder, self.image_model.likelihood, part, self.geometry.scale)
                out[start : start + chunk] = maps.numpy()
        return out

    def _points(self, z: NDArray[np.floating[Any]]) -> torch.Tensor:
        points = torch.as_tensor(np.atleast_2d(z), dtype=torch.float32)
        if points.ndim != 2 or points.shape[1] != self.config.z_dim:
            raise InputError(
                f"latents of shape {tuple(points.shape)} do not fit this run",
                remedy=f"Give an array of {self.config.z_dim} columns.",
            )
        return points

    def images(self) -> BandImages:
        """The particles of the training in the run's band; in memory only as they are asked for."""
        return BandImages(self.particles, self.geometry.cutoff, cache_memory=0.0)

    def sample(self, n: int, seed: int = 0) -> NDArray[np.float32]:
        """Draw latents from the prior, shape (n, d)."""
        generator = torch.Generator().manual_seed(seed)
        return self.prior.sample(n, generator).numpy().astype(np.float32)


def read_metrics(path: Path) -> dict[str, NDArray[Any]]:
    """Read a metrics.csv into columns."""
    if not path.is_file():
        return {}
    with open(path, newline="") as stream:
        rows = list(csv.DictReader(stream))
    columns: dict[str, NDArray[Any]] = {}
    for name in rows[0] if rows else ():
        values = [row[name] for row in rows]
        try:
            columns[name] = np.array([float(v) if v not in ("", None) else np.nan for v in values])
        except ValueError:
            columns[name] = np.array(values)
    return columns
