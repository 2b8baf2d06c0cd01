"""A simulated data set on disk: particles, reference model and the truth."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from cryoscape.conventions import corner_to_centre, rotation_to_relion, shift_to_relion
from cryoscape.data.mrc import open_stack_writer
from cryoscape.data.star import write_particles_star
from cryoscape.data.writing import explain_os_errors
from cryoscape.errors import InputError
from cryoscape.progress import ProgressReporter, reporter_or_silent
from cryoscape.simulate.atoms import write_atoms
from cryoscape.simulate.imaging import (
    MICROGRAPH_SIZE,
    Views,
    clean_images,
    draw_views,
    noise_spectrum,
    signal_power,
    unit_noise,
)
from cryoscape.simulate.options import SimulationOptions, check_size
from cryoscape.simulate.scenarios import Scenario, build_scenario

FILES = ("particles.mrcs", "particles.star", "reference.cif", "truth.npz")

_TABLE = 2**22
"""Entries of the tables of Gaussians that are held at once, which bounds the memory."""


@dataclass(frozen=True)
class SimulationReport:
    """What was simulated.

    Attributes
    ----------
    out : Path
        The folder.
    scenario : str
    particles, states, residues, atoms : int
    population : ndarray, shape (S,)
        Populations of the states.
    counts : ndarray of int, shape (S,)
        Good particles of each state.
    snr : float
        Mean variance of the clean images over all pixels / variance of the noise.
    nats_per_image : float
        Mean over the set of sum |signal|^2 / (2 s2).
    trivial_rmsd : float
        Mean RMSD in Angstrom, without superposition, of the reference from the particles' states.
    seconds : float
        Wall time.
    notes : tuple of str
        What a user ought to know, such as atoms that were left out.
    """

    out: Path
    scenario: str
    particles: int
    states: int
    residues: int
    atoms: int
    population: NDArray[np.float64]
    counts: NDArray[np.int64]
    snr: float
    nats_per_image: float
    trivial_rmsd: float
    seconds: float
    notes: tuple[str, ...]

    def lines(self) -> list[str]:
        """The report as lines of text."""
        head = f"{self.scenario}: {self.particles} particles of {self.states} states"
        body = [
            f"{head}, {self.residues} residues, {self.atoms} Gaussians",
            f"SNR {self.snr:g} (all pixels), {self.nats_per_image:.1f} nats per image",
            f"reference against the true states: mean RMSD {self.trivial_rmsd:.2f} A",
        ]
        if self.states <= 8:
            shares = ", ".join(f"{p:.4g} ({c})" for p, c in zip(self.population, self.counts))
            body.append(f"populations (particles): {shares}")
        return [*body, *self.notes, f"written to {self.out} in {self.seconds:.0f} s"]


def simulate(
    scenario: str,
    out: str | PathLike[str],
    *,
    models: Sequence[str | PathLike[str]] = (),
    particles: int = 10_000,
    box: int = 128,
    pixel: float = 1.0,
    snr: float = 0.1,
    seed: int = 0,
    options: SimulationOptions | None = None,
    force: bool = False,
    progress: ProgressReporter | None = None,
) -> SimulationReport:
    """Simulate a data set of known heterogeneity.

    Writes `particles.star`, `particles.mrcs`, `reference.cif` (one of the states) and `truth.npz` (see
    `save_truth`). Images are scaled to a mean pixel variance of 1. SNR = mean over the set of the
    variance of the clean image over all pixels / variance of the noise. The same seed gives the same
    files bit for bit; sets of one seed that differ in SNR share poses, defoci and noise.

    Parameters
    ----------
    scenario : str
        `hinge`, `adk`, `linear1d`, `circular1d`, `states`, `double-well` or `models`.
    out : path
        Folder to make.
    models : sequence of paths
        Structure files or trajectories, where the scenario uses them.
    particles : int
        Number of images.
    box : int
        Even side of the images in pixels.
    pixel : float
        Angstrom.
    snr : float
        As defined above.
    seed : int
        Fixes everything that is random.
    options : SimulationOptions, optional
        Everything else.
    force : bool
        Replace a simulation that is in the folder.
    progress : ProgressReporter, optional
        Told about the states and the images.

    Returns
    -------
    SimulationReport

    Raises
    ------
    InputError
        For sizes out of range, unknown scenarios, unfit models, a model larger than the box, a folder
        that holds a simulation already, or a full disk. Nothing is left behind.
    """
    started = time.monotonic()
    settings = options or SimulationOptions()
    folder = Path(out)
    check_size(particles, box, pixel, snr)
    _check_folder(folder, force)
    reporter = reporter_or_silent(progress)
    built = build_scenario(scenario, [Path(m) for m in models], settings, reporter)
    _check_fits(built, box, pixel, settings)
    reference = reference_index(settings.reference, len(built.coords))
    views = draw_views(built.population, particles, settings, seed)
    with _denormals_flushed(), _folder_when_done(folder) as temporary:
        stack = temporary / "particles.mrcs"
        power, whitened = _write_clean(stack, built, views, settings, box, pixel, seed, reporter)
        noise_variance = float(power.mean()) / snr
        _add_noise(stack, power, noise_variance, settings, box, pixel, seed, reporter)
        _write_star(temporary / "particles.star", views, settings, box, pixel)
        corner = corner_to_centre(box, pixel) if settings.frame == "corner" else 0.0
        atoms = built.atoms.with_coords(built.coords[reference] + corner)
        write_atoms(temporary / "reference.cif", atoms, f"{built.name} state {reference}")
        nats = whitened / (2 * noise_variance)
        beads = built.coords[:, built.atoms.bead] + corner
        norm = float(power.mean()) + noise_variance
        np.savez(
            temporary / "truth.npz",
            **truth_arrays(built, views, beads),
            nats_per_image=nats,
            snr=snr,
            noise_variance=noise_variance / norm,
            signal_variance=power / norm,
            reference=reference,
            seed=seed,
        )
    return SimulationReport(
        out=folder,
        scenario=built.name,
        particles=particles,
        states=len(built.coords),
        residues=len(built.atoms.bead),
        atoms=len(built.atoms),
        population=built.population,
        counts=np.bincount(views.state[~views.junk], minlength=len(built.coords)),
        snr=snr,
        nats_per_image=float(nats.mean()),
        trivial_rmsd=float(bead_rmsd(beads, beads[reference])[views.state[~views.junk]].mean()),
        seconds=time.monotonic() - started,
        notes=built.notes,
    )


def truth_arrays(
    built: Scenario, views: Views, beads: NDArray[np.float64]
) -> dict[str, NDArray[np.generic] | str]:
    """Arrays of `truth.npz` that do not depend on the noise.

    Parameters
    ----------
    built : Scenario
    views : Views
    beads : ndarray, shape (S, R, 3)
        One bead a residue in the frame of `reference.cif`, Angstrom.

    Returns
    -------
    dict
        `state` (N,), `population` (S,), `coords` (S, R, 3) float32, `cv` (S,), `rotations` (N, 3, 3),
        `shifts` (N, 2), `junk` (N,), `half` (N,), `defocus_u`, `defocus_v`, `defocus_angle`, `scale`
        (N,), `scenario`. The state of a junk particle is the one whose atoms were scattered.
    """
    return {
        "state": views.state,
        "population": built.population,
        "coords": beads.astype(np.float32),
        "cv": built.cv,
        "rotations": views.rotations,
        "shifts": views.shifts,
        "junk": views.junk,
        "half": views.half,
        "defocus_u": views.defocus_u,
        "defocus_v": views.defocus_v,
        "defocus_angle": views.defocus_angle,
        "scale": views.scale,
        "scenario": built.name,
    }


def reference_index(reference: str | int, n_states: int) -> int:
    """Index of the state that becomes the reference.

    Raises
    ------
    InputError
        If there is no such state.
    """
    index = {"first": 0, "last": n_states - 1}.get(str(reference), reference)
    if not isinstance(index, int) or not 0 <= index < n_states:
        raise InputError(
            f"reference {reference!r} is none of the {n_states} states",
            remedy=f"Give first, last or a number from 0 to {n_states - 1}.",
        )
    return index


def bead_rmsd(states: NDArray[np.float64], reference: NDArray[np.float64]) -> NDArray[np.float64]:
    """RMSD of every state (S, R, 3) from a reference (R, 3) without superposition, Angstrom."""
    return np.sqrt(((states - reference) ** 2).sum(-1).mean(-1))


def _check_folder(folder: Path, force: bool) -> None:
    if folder.exists() and not folder.is_dir():
        raise InputError("the output is a file", file=folder, remedy="Name a folder with -o.")
    if not force and any((folder / name).exists() for name in FILES):
        raise InputError(
            "the folder holds a simulation already",
            file=folder,
            remedy="Choose another folder, or --force.",
        )


def _check_fits(built: Scenario, box: int, pixel: float, options: SimulationOptions) -> None:
    radius = float(np.linalg.norm(built.coords, axis=-1).max()) + 2 * built.atoms.sigma
    needed = radius + options.shift
    if needed > (box // 2 - 1) * pixel:
        side = 2 * int(np.ceil(needed / pixel) + 1)
        raise InputError(
            f"the model reaches {radius:.0f} A from the centre of a box {box * pixel:.0f} A wide",
            file=built.atoms.path,
            remedy=f"Use --box {side} or more, or a larger --pixel.",
        )


@contextmanager
def _denormals_flushed() -> Iterator[None]:
    # Gaussian tails are subnormal numbers, which cost a factor of four on the CPU.
    torch.set_flush_denormal(True)
    try:
        with torch.inference_mode():
            yield
    finally:
        torch.set_flush_denormal(False)


@contextmanager
def _folder_when_done(folder: Path) -> Iterator[Path]:
    """A folder beside the final one whose files are moved there when the block ends well."""
    with explain_os_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        try:
            yield temporary
            temporary.chmod(0o755)
            if not folder.exists() or not any(folder.iterdir()):
                os.replace(temporary, folder)
                return
            for name in FILES:
                os.replace(temporary / name, folder / name)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _batches(n: int, size: int) -> Iterator[NDArray[np.int64]]:
    for start in range(0, n, size):
        yield np.arange(start, min(start + size, n))


def _write_clean(
    path: Path,
    built: Scenario,
    views: Views,
    options: SimulationOptions,
    box: int,
    pixel: float,
    seed: int,
    reporter: ProgressReporter,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Fill the stack with noise-free images; their variances and whitened powers, each (N,)."""
    coords = torch.from_numpy(built.coords.astype(np.float32))
    weights = torch.from_numpy(built.atoms.weights.astype(np.float32))
    spectrum = None if options.noise == "white" else noise_spectrum(options.noise, box, pixel)
    n = len(views.state)
    images = open_stack_writer(path, n, box, pixel, np.float32)
    power, whitened = np.empty(n), np.empty(n)
    with reporter.task("project", total=n, unit="images") as bar:
        for rows in _batches(n, max(1, min(16, _TABLE // (len(built.atoms) * box)))):
            clean = clean_images(coords, weights, built.atoms.sigma, views, rows, options, box, pixel, seed)
            images[rows[0] : rows[-1] + 1] = clean.numpy()
            variance, white = signal_power(clean, spectrum)
            power[rows], whitened[rows] = variance.numpy(), white.numpy()
            bar.advance(len(rows))
    images.flush()
    return power, whitened


def _add_noise(
    path: Path,
    power: NDArray[np.float64],
    noise_variance: float,
    options: SimulationOptions,
    box: int,
    pixel: float,
    seed: int,
    reporter: ProgressReporter,
) -> None:
    """Add the noise in place and scale the stack to a mean pixel variance of 1."""
    spectrum = None if options.noise == "white" else noise_spectrum(options.noise, box, pixel)
    n = len(power)
    offset = path.stat().st_size - 4 * n * box * box
    images = np.memmap(path, dtype="<f4", mode="r+", offset=offset, shape=(n, box, box))
    norm = options.sign / np.sqrt(power.mean() + noise_variance)
    total = squares = 0.0
    low, high = np.inf, -np.inf
    with reporter.task("add noise", total=n, unit="images") as bar:
        for rows in _batches(n, 64):
            part = images[rows[0] : rows[-1] + 1]
            part += np.float32(np.sqrt(noise_variance)) * unit_noise(rows, spectrum, box, seed).numpy()
            part *= np.float32(norm)
            total += float(part.sum(dtype=np.float64))
            squares += float(np.square(part, dtype=np.float64).sum())
            low, high = min(low, float(part.min())), max(high, float(part.max()))
            bar.advance(len(rows))
    images.flush()
    mean = total / images.size
    # Bytes 76 to 87 and 216 to 219 of an MRC header: minimum, maximum, mean, rms.
    with open(path, "rb+") as handle:
        handle.seek(76)
        handle.write(np.array([low, high, mean], dtype="<f4").tobytes())
        handle.seek(216)
        handle.write(np.array([np.sqrt(squares / images.size - mean**2)], dtype="<f4").tobytes())


def _write_star(path: Path, views: Views, options: SimulationOptions, box: int, pixel: float) -> None:
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
    columns = {
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
