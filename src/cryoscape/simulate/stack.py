"""Images and their table, written in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cryoscape.conventions import rotation_to_relion, shift_to_relion
from cryoscape.data.mrc import open_stack_writer
from cryoscape.data.star import write_particles_star
from cryoscape.progress import ProgressReporter
from cryoscape.simulate.imaging import (
    MICROGRAPH_SIZE,
    Views,
    clean_images,
    noise_spectrum,
    signal_power,
    stream,
    unit_noise,
)
from cryoscape.simulate.options import SimulationOptions
from cryoscape.simulate.scenarios import Scenario
from cryoscape.simulate.wrong_molecule import wrong_molecule

_TABLE = 2**22
"""Entries of the tables of Gaussians that are held at once, which bounds the memory."""

_NOISE_BATCH = 64
"""Images to which noise is added at once."""


def _batches(n: int, size: int) -> Iterator[NDArray[np.int64]]:
    for start in range(0, n, size):
        yield np.arange(start, min(start + size, n))


def _offset(path: Path, n: int, box: int) -> int:
    """Bytes before the first pixel of a float32 stack."""
    return path.stat().st_size - 4 * n * box * box


def write_clean(
    path: Path,
    built: Scenario,
    views: Views,
    options: SimulationOptions,
    box: int,
    pixel: float,
    seed: int,
    reporter: ProgressReporter,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Write a stack of noise-free images.

    Parameters
    ----------
    path : Path
        The stack to make.
    built : Scenario
    views : Views
    options : SimulationOptions
    box : int
    pixel : float
        Angstrom.
    seed : int
    reporter : ProgressReporter

    Returns
    -------
    variance, whitened : ndarray, shape (N,)
        See `cryoscape.simulate.imaging.signal_power`.

    Raises
    ------
    InputError
        If the disk is full.
    """
    coords = torch.from_numpy(built.coords.astype(np.float32))
    weights = torch.from_numpy(built.state_weights.astype(np.float32))
    spectrum = None if options.noise == "white" else noise_spectrum(options.noise, box, pixel)
    wrong = None
    if (views.junk_kind == "wrong").any():
        places, electrons = wrong_molecule(built.atoms, stream(seed, "wrong molecule"))
        wrong = torch.from_numpy(places.astype(np.float32)), torch.from_numpy(electrons.astype(np.float32))
    n = len(views.state)
    open_stack_writer(path, n, box, pixel, np.float32).flush()
    power, whitened = np.empty(n), np.empty(n)
    size = max(1, min(16, _TABLE // (len(built.atoms) * box)))
    # Plain writing, not the memory map, whose pages would count as this process's memory.
    with reporter.task("project", total=n, unit="images") as bar, open(path, "rb+", buffering=0) as handle:
        handle.seek(_offset(path, n, box))
        for rows in _batches(n, size):
            clean = clean_images(
                coords, weights, built.atoms.sigma, views, rows, options, box, pixel, seed, wrong
            )
            handle.write(clean.contiguous().numpy().astype("<f4", copy=False).data)
            variance, white = signal_power(clean, spectrum)
            power[rows], whitened[rows] = variance.numpy(), white.numpy()
            bar.advance(len(rows))
    return power, whitened


def add_noise(
    path: Path,
    power: NDArray[np.float64],
    noise_variance: float,
    options: SimulationOptions,
    box: int,
    pixel: float,
    seed: int,
    reporter: ProgressReporter,
) -> None:
    """Add the noise to a stack in place and scale it to a mean pixel variance of 1.

    Parameters
    ----------
    path : Path
        From `write_clean`.
    power : ndarray, shape (N,)
        Variances of the clean images.
    noise_variance : float
        In the units of the clean images.
    options : SimulationOptions
        Colour of the noise and sign of the stack.
    box : int
    pixel : float
        Angstrom.
    seed : int
    reporter : ProgressReporter
    """
    spectrum = None if options.noise == "white" else noise_spectrum(options.noise, box, pixel)
    n = len(power)
    offset = _offset(path, n, box)
    norm = options.sign / np.sqrt(power.mean() + noise_variance)
    total = squares = 0.0
    low, high = np.inf, -np.inf
    with reporter.task("add noise", total=n, unit="images") as bar, open(path, "rb+", buffering=0) as handle:
        for rows in _batches(n, _NOISE_BATCH):
            part = np.empty((len(rows), box, box), dtype="<f4")
            where = offset + 4 * box * box * int(rows[0])
            handle.seek(where)
            handle.readinto(part.data.cast("B"))
            part += np.float32(np.sqrt(noise_variance)) * unit_noise(rows, spectrum, box, seed).numpy()
            part *= np.float32(norm)
            handle.seek(where)
            handle.write(part.data)
            total += float(part.sum(dtype=np.float64))
            squares += float(np.square(part, dtype=np.float64).sum())
            low, high = min(low, float(part.min())), max(high, float(part.max()))
            bar.advance(len(rows))
        pixels = n * box * box
        mean = total / pixels
        # Bytes 76 to 87 and 216 to 219 of an MRC header: minimum, maximum, mean, rms.
        handle.seek(76)
        handle.write(np.array([low, high, mean], dtype="<f4").tobytes())
        handle.seek(216)
        handle.write(np.array([np.sqrt(squares / pixels - mean**2)], dtype="<f4").tobytes())


def write_table(path: Path, views: Views, options: SimulationOptions, box: int, pixel: float) -> None:
    """Write the particle table, with the poses as an experimenter would know them.

    Parameters
    ----------
    path : Path
        `particles.star`.
    views : Views
    options : SimulationOptions
        For the microscope.
    box : int
    pixel : float
        Angstrom.
    """
    n = len(views.state)
    rot, tilt, psi = rotation_to_relion(views.given_rotations)
    origin_x, origin_y = shift_to_relion(views.given_shifts)
    optics = {
        "rlnOpticsGroup": 1,
        "rlnOpticsGroupName": "simulated",
        "rlnVoltage": options.voltage,
        "rlnSphericalAberration": options.cs,
        "rlnAmplitudeContrast": options.amplitude_contrast,
        "rlnImagePixelSize": pixel,
        "rlnImageSize": box,
        "rlnImageDimensionality": 2,
    }
    columns: dict[str, Any] = {
        "rlnMicrographName": [f"micrographs/{i // MICROGRAPH_SIZE + 1:06d}.mrc" for i in range(n)],
        "rlnOpticsGroup": np.ones(n, dtype=np.int64),
        "rlnAngleRot": rot,
        "rlnAngleTilt": tilt,
        "rlnAnglePsi": psi,
        "rlnOriginXAngst": origin_x,
        "rlnOriginYAngst": origin_y,
        "rlnDefocusU": views.defocus_u,
        "rlnDefocusV": views.defocus_v,
        "rlnDefocusAngle": views.defocus_angle,
        "rlnPhaseShift": np.zeros(n),
        # The true state would leak to programs that read it; it is in truth.npz alone.
        "rlnClassNumber": np.ones(n, dtype=np.int64),
        "rlnRandomSubset": views.half,
    }
    names = [f"{i + 1:06d}@particles.mrcs" for i in range(n)]
    write_particles_star(path, image_names=names, optics=[optics], columns=columns)
