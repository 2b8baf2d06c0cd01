"""Simulated images as a particle set on the disk, so that they go through the very training of real ones."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from cryoscape.analysis.validation.simulated_images import SimulatedImages
from cryoscape.data.conversion import particles_to_star
from cryoscape.data.mrc import open_stack_writer
from cryoscape.data.particles import Particles
from cryoscape.data.stack import ImageStack
from cryoscape.physics import fourier
from cryoscape.progress import ProgressReporter, reporter_or_silent
from cryoscape.training.run import Run

_BATCH = 256


@contextmanager
def simulated_particles(
    run: Run, images: SimulatedImages, folder: Path, progress: ProgressReporter | None = None
) -> Iterator[Particles]:
    """Write images of the particles of a run, and take them off the disk when the block ends.

    They have the box and pixel size of the run's band, and identities, transfer functions and micrographs
    of the particles. Where the run refined the poses, the images are taken in the refined ones and the table
    has those that the user gave: what refinement has to find is there to be found.

    Parameters
    ----------
    run : Run
    images : SimulatedImages
        Of the particles in the order of the run.
    folder : Path
        Of particles.star and particles.mrcs.
    progress : ProgressReporter, optional

    Yields
    ------
    Particles
    """
    try:
        _write_stack(run, images, folder / "particles.mrcs", progress)
        yield _write_table(run, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _write_stack(run: Run, images: SimulatedImages, path: Path, progress: ProgressReporter | None) -> None:
    geometry, n = run.geometry, run.info["particles"]["n"]
    # Maps are densities of images of some box and pixel size; with this factor they are those of the run's.
    factor = geometry.box / geometry.image_box
    pixels = open_stack_writer(path, n, geometry.box, geometry.pixel_size)
    with reporter_or_silent(progress).task("simulate", n, "images") as task:
        for rows in torch.arange(n).split(_BATCH):
            real = fourier.inverse(images(rows).images, geometry.box)
            pixels[int(rows[0]) : int(rows[-1]) + 1] = factor * real.numpy()
            task.advance(len(rows))
    pixels.flush()


def _write_table(run: Run, folder: Path) -> Particles:
    geometry, given, taken = run.geometry, run.as_given, run.particles
    n = len(given)
    # Images of the band are centred, and free of tilt and odd aberrations.
    optics = tuple(
        replace(
            group,
            pixel_size=geometry.pixel_size,
            box=geometry.box,
            beam_tilt=(0.0, 0.0),
            odd_zernike=(),
        )
        for group in given.optics
    )
    simulated = replace(
        given,
        shifts=given.shifts - taken.shifts,
        optics=optics,
        data_sign=1,
        row=np.arange(n),
        stack=ImageStack([folder / "particles.mrcs"], np.zeros(n), np.arange(n)),
    )
    table = folder / "particles.star"
    names = np.array([f"micrograph_{code + 1:06d}" for code in given.micrograph], dtype=object)
    particles_to_star(simulated, table, {"rlnMicrographName": names})
    return Particles.read(table).with_sign(1)
