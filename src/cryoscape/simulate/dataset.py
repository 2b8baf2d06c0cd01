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
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cryoscape.conventions import corner_to_centre
from cryoscape.errors import InputError
from cryoscape.files import explain_os_errors
from cryoscape.progress import ProgressReporter, reporter_or_silent
from cryoscape.simulate.atoms import write_atoms
from cryoscape.simulate.distances import LISTED, nats_between
from cryoscape.simulate.imaging import Views, draw_views
from cryoscape.simulate.options import SimulationOptions, check_size
from cryoscape.simulate.scenarios import Scenario, build_scenario
from cryoscape.simulate.stack import add_noise, write_clean, write_table

FILES = ("particles.mrcs", "particles.star", "reference.cif", "truth.npz")


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
    nats_between : ndarray
        Nats between neighbouring states; where there are more than 8, between the first and the last.
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
    nats_between: NDArray[np.float64]
    trivial_rmsd: float
    seconds: float
    notes: tuple[str, ...]

    def lines(self) -> list[str]:
        """The report as lines of text."""
        head = f"{self.scenario}: {self.particles} particles of {self.states} states"
        body = [
            f"{head}, {self.residues} residues, {self.atoms} Gaussians",
            f"SNR {self.snr:g} (all pixels), {self.nats_per_image:.1f} nats per image",
        ]
        if len(self.nats_between) and self.states <= LISTED:
            between = ", ".join(f"{v:.2g}" for v in self.nats_between)
            body.append(f"nats between neighbouring states: {between}")
        elif len(self.nats_between):
            body.append(f"nats between the first and the last state: {self.nats_between[0]:.2g}")
        if self.trivial_rmsd > 0:
            body.append(f"reference against the true states: mean RMSD {self.trivial_rmsd:.2f} A")
        if self.states <= LISTED:
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
        `hinge`, `adk`, `linear1d`, `circular1d`, `linker`, `states`, `double-well`, `composition` or
        `models`.
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
    built = build_scenario(scenario, [Path(m) for m in models], settings, reporter, seed)
    _check_fits(built, box, pixel, settings)
    reference = reference_index(settings.reference, len(built.coords))
    views = draw_views(built.population, particles, settings, seed)
    with _denormals_flushed(), _folder_when_done(folder) as temporary:
        stack = temporary / "particles.mrcs"
        power, whitened = write_clean(stack, built, views, settings, box, pixel, seed, reporter)
        # Empty images say nothing of the strength of the signal.
        noise_variance = float(power[views.junk_kind != "noise"].mean()) / snr
        add_noise(stack, power, noise_variance, settings, box, pixel, seed, reporter)
        write_table(temporary / "particles.star", views, settings, box, pixel)
        corner = corner_to_centre(box, pixel) if settings.frame == "corner" else 0.0
        atoms = built.atoms.with_coords(built.coords[reference] + corner)
        write_atoms(temporary / "reference.cif", atoms, f"{built.name} state {reference}")
        nats = whitened / (2 * noise_variance)
        between = nats_between(built, views, settings, noise_variance, box, pixel, seed)
        norm = float(power.mean()) + noise_variance
        np.savez(
            temporary / "truth.npz",
            **truth_arrays(built, views, corner),
            box=box,
            pixel_size=pixel,
            gain=settings.sign / np.sqrt(norm),
            nats_per_image=nats,
            nats_between=between,
            snr=snr,
            noise_variance=noise_variance / norm,
            signal_variance=power / norm,
            reference=reference,
            seed=seed,
        )
    beads = built.coords[:, built.atoms.bead]
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
        nats_between=between,
        trivial_rmsd=float(bead_rmsd(beads, beads[reference])[views.state[~views.junk]].mean()),
        seconds=time.monotonic() - started,
        notes=built.notes,
    )


def truth_arrays(built: Scenario, views: Views, corner: float) -> dict[str, Any]:
    """Arrays of `truth.npz` that depend neither on the noise nor on the pixels.

    Parameters
    ----------
    built : Scenario
    views : Views
    corner : float
        Where the world's origin, the centre voxel, lies on every axis of the frame of `reference.cif`,
        Angstrom.

    Returns
    -------
    dict
        `state` (N,), `population` (S,), `coords` (S, R, 3) float32 of one bead a residue, `cv` (S,),
        `atom_coords` (S, M, 3) float32, `atom_weights` (M,) or (S, M) float32, `atom_sigma`, `origin`,
        `rotations` (N, 3, 3), `shifts` (N, 2), `junk`, `junk_kind` (N,), `half` (N,), `defocus_u`,
        `defocus_v`, `defocus_angle`, `scale` (N,), `scenario`, and the scenario's own facts. The state of a
        junk particle is the one whose atoms were scattered.
    """
    atoms = (built.coords + corner).astype(np.float32)
    weights = built.atoms.weights if built.weights is None else built.weights
    return {
        "state": views.state,
        "population": built.population,
        "coords": atoms[:, built.atoms.bead],
        "cv": built.cv,
        "atom_coords": atoms,
        "atom_weights": weights.astype(np.float32),
        "atom_sigma": built.atoms.sigma,
        "origin": corner,
        "rotations": views.rotations,
        "shifts": views.shifts,
        "junk": views.junk,
        "junk_kind": views.junk_kind,
        "half": views.half,
        "defocus_u": views.defocus_u,
        "defocus_v": views.defocus_v,
        "defocus_angle": views.defocus_angle,
        "scale": views.scale,
        "scenario": built.name,
        **built.facts,
    }


def reference_index(reference: str | int, n_states: int) -> int:
    """Index of the state that becomes the reference.

    Raises
    ------
    InputError
        If there is no such state.
    """
    named = {"first": 0, "last": n_states - 1}
    index = named.get(str(reference), int(reference) if str(reference).isdigit() else -1)
    if not 0 <= index < n_states:
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
    displaced = options.junk_shift[1] if options.junk and "shifted" in options.junk_kinds else 0.0
    needed = radius + options.shift + displaced
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
