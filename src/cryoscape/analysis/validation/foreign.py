"""Runs of other programs as subjects: their series of structures or maps, and the particles these came from.

cryoSTAR writes series of .pdb files (one a cluster centre, or along a component) and `z.npy`; cryoDRGN writes
`vol_*.mrc` and `z.N.pkl`. Which of the particles were held out, what populations are claimed and how images
were weighted is in no file: particles are divided by a seed, all objects are claimed alike, and gain and
noise are fitted here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryoscape.analysis.populations.likelihood_table import image_table
from cryoscape.analysis.validation.subject import Subject
from cryoscape.data.images import BandImages
from cryoscape.data.mrc import read_map
from cryoscape.data.particles import Particles
from cryoscape.errors import InputError
from cryoscape.models.decoders.base import Decoder, Scene, VolumeDecoder
from cryoscape.models.likelihoods import GaussianLikelihood
from cryoscape.physics.map_filters import coarsen
from cryoscape.preflight.check import preflight
from cryoscape.progress import ProgressReporter
from cryoscape.structures.atomic_model import AtomicModel
from cryoscape.structures.reading import read_bead_models
from cryoscape.training.assemble import Geometry, Start, build_model, world_coordinates
from cryoscape.training.config import Config, VoxelsConfig
from cryoscape.training.train import interpret

STRUCTURES = (".pdb", ".ent", ".cif", ".mmcif", ".bcif")
MAPS = (".mrc", ".map", ".ccp4")
_CALIBRATION = 1000
_BATCH = 256


def subject_of_files(
    files: Sequence[Path],
    particles: Particles,
    *,
    most: int,
    seed: int = 0,
    progress: ProgressReporter | None = None,
) -> Subject:
    """Series of structures or of maps that another program made of particles.

    Parameters
    ----------
    files : sequence of Path
        Structures of one molecule (.pdb, .cif, of one or several models), or maps (.mrc).
    particles : Particles
        With the poses that the program used.
    most : int
        Particles to look at, half to fit populations and half to judge.
    seed : int
    progress : ProgressReporter, optional

    Returns
    -------
    Subject

    Raises
    ------
    InputError
        If the files are of both kinds, do not fit together, or do not belong to the particles.
    """
    kinds = {_kind(path) for path in files}
    if len(kinds) > 1:
        raise InputError(
            "structures and maps cannot be judged together", remedy="Give the files of one kind."
        )
    if kinds == {"structures"}:
        model, coords = _read_structures(files)
        found = preflight(particles, model, seed=seed, progress=progress)
        found.require()
    else:
        model, coords = None, None
        found = preflight(particles, None, seed=seed, progress=progress)
    read = interpret(particles, model, Config(), found)
    particles = particles.with_sign(read.data_sign)
    # Maps say nothing beyond their own sampling.
    cutoff = read.cutoff if model is not None else max(read.cutoff, _finest(files))
    images = BandImages(particles, cutoff)
    images.prepare(progress)
    geometry = Geometry(images.box, images.pixel_size, cutoff, images.n_groups, read.offset, particles.box)
    if model is not None and coords is not None:
        decoder, likelihood = _modules(Config(), Start(structure=model), geometry)
        centred = [world_coordinates(replace(model, coords=one), geometry) for one in coords]
        objects = torch.stack(centred)
    else:
        maps = _read_maps(files, geometry)
        config = Config(decoder=VoxelsConfig(n_volumes=1))
        start = Start(volume=maps.mean(0), amplitude=torch.ones(geometry.box // 2 + 1))
        decoder, likelihood = _modules(config, start, geometry)
        assert isinstance(decoder, VolumeDecoder)
        objects = torch.cat([decoder.rows_of(one[None]) for one in maps])
    if len(objects) < 2:
        raise InputError(
            "one structure or map alone claims no motion", file=files[0], remedy="Give a series."
        )
    order = np.random.default_rng(seed).permutation(len(particles))[: 2 * most]
    fit, test = np.sort(order[::2]), np.sort(order[1::2])
    scenes = [decoder.scene(one[None]) for one in objects]
    _calibrate(likelihood, scenes, images, torch.from_numpy(fit[:_CALIBRATION]))
    return Subject(
        source="structures of another program" if model is not None else "maps of another program",
        path=Path(files[0]),
        particles=particles,
        images=images,
        likelihood=likelihood,
        decoder=decoder,
        geometry=geometry,
        objects=objects,
        present=None,
        claimed=np.full(len(objects), 1 / len(objects)),
        test=test,
        fit=fit,
        held_out=False,
        structure=model,
        run=None,
    )


def _kind(path: Path) -> str:
    name = path.name.lower().removesuffix(".gz")
    if not path.is_file():
        raise InputError("no such file", file=path, remedy="Give a run folder, structures or maps.")
    if name.endswith(STRUCTURES):
        return "structures"
    if name.endswith(MAPS):
        return "maps"
    raise InputError(
        "this is neither a structure nor a map", file=path, remedy="Give .pdb, .cif or .mrc files."
    )


def _read_structures(files: Sequence[Path]) -> tuple[AtomicModel, NDArray[np.float32]]:
    model = AtomicModel.read(files[0])
    series = []
    for path in files:
        coords = read_bead_models(path)
        if coords.shape[1] != len(model):
            raise InputError(
                f"this has {coords.shape[1]} residues, {files[0].name} has {len(model)}",
                file=path,
                remedy="Give models of one and the same molecule.",
            )
        series.append(coords)
    return model, np.concatenate(series)


def _finest(files: Sequence[Path]) -> float:
    """Resolution that the sampling of the coarsest map allows, A."""
    return max(2 * float(read_map(path).voxel_size) for path in files)


def _read_maps(files: Sequence[Path], geometry: Geometry) -> Tensor:
    """Maps (K, box, box, box) on the grid of the images' band."""
    side = geometry.box * geometry.pixel_size
    out = []
    for path in files:
        read = read_map(path)
        field = read.data.shape[0] * float(read.voxel_size)
        if len(set(read.data.shape)) > 1 or abs(field - side) > 0.02 * side:
            raise InputError(
                f"the map is {field:.4g} A wide, the images are {side:.4g} A wide",
                file=path,
                remedy="Give maps of the box of the particles.",
            )
        volume = torch.from_numpy(np.array(read.data, dtype=np.float32))
        out.append(coarsen(volume, float(read.voxel_size), geometry.box))
    return torch.stack(out)


def _modules(config: Config, start: Start, geometry: Geometry) -> tuple[Decoder, GaussianLikelihood]:
    """Decoder (only what makes scenes of it is used) and likelihood, before calibration."""
    with torch.random.fork_rng(devices=[]):
        model = build_model(config, start, geometry).eval().requires_grad_(False)
    assert isinstance(model.likelihood, GaussianLikelihood)
    # The scale of others' maps is not that of our images: the gain takes it up shell by shell.
    model.likelihood.radial_gain = True
    return model.decoder, model.likelihood


@torch.no_grad()
def _calibrate(
    likelihood: GaussianLikelihood, scenes: Sequence[Scene], images: BandImages, rows: Tensor
) -> None:
    """Gain and noise against the object that explains most, which they in turn decide: two rounds."""
    best = 0
    for _ in range(2):
        sums = None
        for part in rows.split(_BATCH):
            batch = images.batch(part)
            y = scenes[best].project(batch.rotations, likelihood.box, likelihood.pixel_size)
            here = likelihood.accumulate(batch.images, y, batch.ctf, batch.group)
            sums = here if sums is None else sums + here
        assert sums is not None
        likelihood.fit(sums)
        best = int(image_table(likelihood, scenes, images.batch, rows).mean(axis=0).argmax())
