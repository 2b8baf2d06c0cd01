"""The pre-flight check of whether images, poses, CTF and model belong together."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from cryoscape.data.images import band_box
from cryoscape.errors import InputError
from cryoscape.physics.backprojection import Accumulated
from cryoscape.physics.gaussians import voxelise
from cryoscape.physics.resolution import resolution_at
from cryoscape.preflight.band import HALF_MAP_LIMIT, choose_band
from cryoscape.preflight.consensus import best_poses, consensus, density_sign, two_halves, with_poses
from cryoscape.preflight.coverage import orientation_efficiency, repeated_images
from cryoscape.preflight.evidence import DensityScore, MapEvidence, image_ring_counts
from cryoscape.preflight.interpretations import DOUBT, FIT, HANDS, Candidate, ModelReader, choose
from cryoscape.preflight.map_density import density_on_grid, frame_of_map
from cryoscape.preflight.report import AS_READ, DOUBTFUL, FITS, MISFIT, NO_MODEL, PreflightReport
from cryoscape.preflight.working_set import WorkingSet, load_working_set
from cryoscape.progress import ProgressReporter, reporter_or_silent

if TYPE_CHECKING:
    from cryoscape.data.mrc import Map
    from cryoscape.data.particles import Particles
    from cryoscape.structures.atomic_model import AtomicModel

SCORING_BOX = 64
"""Side of the box in which readings of the model are compared: low resolution first."""

MAP_FITS = 0.4
"""Correlation over the shells with signal from which on a map given by the user belongs to the particles."""

OUTSIDE = 0.05
"""Part of the residues that may lie outside the box in a frame worth trying."""


@dataclass(frozen=True)
class Findings:
    """What the images say about sign, model and map.

    Attributes
    ----------
    verdict : str
    sign : int
        To multiply the images by, as they were read.
    sign_source : str
    winner : Candidate or None
    candidates : tuple of Candidate
    curve : Tensor or None
        Correlation of map and model by shell, for the right sign.
    notes : tuple of str
    """

    verdict: str
    sign: int
    sign_source: str
    winner: Candidate | None
    candidates: tuple[Candidate, ...]
    curve: Tensor | None
    notes: tuple[str, ...]


def preflight(
    particles: Particles,
    model: AtomicModel | None = None,
    volume: Map | None = None,
    limit: int = 3000,
    seed: int = 0,
    progress: ProgressReporter | None = None,
) -> PreflightReport:
    """Back-project a sample of the particles and find how the input must be read.

    Tried are the data's sign, the frame of the model (box corner, box centre, centre of mass, the map's
    header, any translation), its mirror images, and the poses as read, transposed, or with other shifts. A
    model that is correlated no better than when it is turned at random does not fit.

    Parameters
    ----------
    particles : Particles
        With poses and CTF.
    model : AtomicModel, optional
        In the frame of its file.
    volume : Map, optional
        Consensus map of these particles; its header fixes the model's frame.
    limit : int
        Particles to use at most.
    seed : int
        Of the sample and of the random turns.
    progress : ProgressReporter, optional
        Told how far the check is.

    Returns
    -------
    PreflightReport
        Its `require` refuses input that does not fit.

    Raises
    ------
    InputError
        If images cannot be read, or the model is larger than the box.
    """
    started = time.monotonic()
    read = load_working_set(particles, limit, seed, progress)
    reading_seconds = (time.monotonic() - started) * len(particles) / len(read)
    with reporter_or_silent(progress).task("back-project", 3, "steps") as task:
        working = two_halves(read, seed)
        poses = best_poses(working)
        task.advance()
        working = with_poses(working, poses)
        sums, evidence = consensus(working)
        task.advance()
        found = _interpret(particles, model, volume, sums, evidence, seed)
        task.advance()
    band = choose_band(
        evidence.half_fsc,
        found.curve,
        sums.box,
        sums.voxel_size,
        2 * particles.pixel_size,
        len(particles) / len(working),
    )
    side = band_box(particles.box, particles.pixel_size, band.cutoff)
    focus = (particles.defocus_u + particles.defocus_v) / 2
    noise_variance, snr = _noise_and_snr(working, evidence)
    winner = found.winner
    return PreflightReport(
        verdict=found.verdict,
        frame="none" if winner is None else winner.frame,
        offset=(0.0, 0.0, 0.0) if winner is None else winner.offset,
        hand=AS_READ if winner is None else winner.hand,
        poses=poses,
        data_sign=particles.data_sign * found.sign,
        sign_changed=found.sign < 0,
        sign_source=found.sign_source,
        score=None if winner is None else winner.score,
        z=None if winner is None else winner.z,
        candidates=found.candidates,
        band=band.cutoff,
        band_reason=band.reason,
        agreement=band.agreement,
        map_resolution=resolution_at(evidence.half_fsc, HALF_MAP_LIMIT, sums.box, sums.voxel_size),
        half_fsc=tuple(evidence.half_fsc.tolist()),
        model_fsc=() if found.curve is None else tuple(found.curve.tolist()),
        working_box=sums.box,
        working_pixel=sums.voxel_size,
        n_particles=len(particles),
        n_used=len(working),
        box=particles.box,
        pixel_size=particles.pixel_size,
        n_groups=len(particles.optics),
        halves=(int((particles.half == 1).sum()), int((particles.half == 2).sum())),
        half_source=particles.half_source,
        repeated=repeated_images(particles),
        defocus=(float(focus.min()), float(focus.max())),
        noise_sd=noise_variance**0.5,
        noise_spread=float(working.background_sd.std() / working.background_sd.mean().clamp(min=1e-12)),
        snr=snr,
        nats_per_image=evidence.nats_per_image,
        orientation_efficiency=orientation_efficiency(np.asarray(particles.rotations)),
        cache_bytes=len(particles) * side * (side // 2 + 1) * 8,
        reading_seconds=reading_seconds,
        seconds=time.monotonic() - started,
        notes=(*_warnings(read, working), *found.notes),
    )


def _noise_and_snr(working: WorkingSet, evidence: MapEvidence) -> tuple[float, float]:
    """Noise variance per pixel, and signal variance over all pixels relative to it."""
    last = evidence.last_shell + 1
    if working.masked:
        variance = float(evidence.noise_power[-4:].mean())
    else:
        variance = float(working.background_sd.square().mean())
    rings = image_ring_counts(working.box)
    signal = float((evidence.signal_power * rings)[1:last].sum()) / working.image_box**2
    return variance, max(signal, 0.0) / max(variance, 1e-300)


def _warnings(read: WorkingSet, working: WorkingSet) -> list[str]:
    notes = []
    if working.halves is not read.halves:
        notes.append("the table puts nearly all particles in one half: the check split them at random")
    if working.masked:
        notes.append("the images are blank outside the particle: the noise level is that of whole images")
    elif float(working.background_sd.std() / working.background_sd.mean()) > 0.2:
        notes.append("the background differs much between images: normalise them when extracting")
    return notes


def _interpret(
    particles: Particles,
    model: AtomicModel | None,
    volume: Map | None,
    sums: Accumulated,
    evidence: MapEvidence,
    seed: int,
) -> Findings:
    score = DensityScore(sums, evidence, min(SCORING_BOX, sums.box))
    map_sign, notes = (0, []) if volume is None else _judge_map(score, volume)
    sign = map_sign or density_sign(
        evidence, resolution_at(evidence.half_fsc, 0.5, sums.box, sums.voxel_size)
    )
    source = "map" if map_sign else "density" if sign else "unknown"
    if model is None:
        return Findings(NO_MODEL, sign or 1, source, None, (), None, tuple(notes))
    frames = _frames(particles, model, volume)
    reader = ModelReader(score, model.coords, model.weights, seed)
    candidates = reader.named(frames)
    winner, remarks = choose(candidates, reader.moved())
    verdict = FITS if winner.z >= FIT else DOUBTFUL if winner.z >= DOUBT else MISFIT
    if verdict == MISFIT and evidence.last_shell < 2:
        notes.append("the half maps do not agree with each other either: there is too little signal")
    if verdict != MISFIT:
        if map_sign and map_sign != winner.sign:
            notes.append("map and model are of opposite sign: the model decides")
        sign, source = winner.sign, "model"
    curve = _curve(sums, evidence, model, winner) * (sign or 1)
    return Findings(verdict, sign or 1, source, winner, tuple(candidates), curve, (*notes, *remarks))


def _judge_map(score: DensityScore, volume: Map) -> tuple[int, list[str]]:
    """Sign of the images relative to the user's map (0 where they do not correlate), and remarks."""
    density = density_on_grid(volume, score.box, score.voxel_size)
    found = {}
    for hand, factors in HANDS.items():
        axes = [2 - i for i in range(3) if factors[i] < 0]
        mirrored = density.flip(axes).roll([1] * len(axes), axes) if axes else density
        found[hand] = score.score(score.correlations(score.density(mirrored)))
    hand = max(found, key=lambda h: abs(found[h]))
    if abs(found[hand]) < MAP_FITS:
        return 0, [f"the map does not belong to these particles: their correlation is {found[AS_READ]:.2f}"]
    if hand != AS_READ and abs(found[hand]) > 1.2 * abs(found[AS_READ]):
        return int(np.sign(found[hand])), [f"the map is the structure behind the poses {hand}"]
    return int(np.sign(found[AS_READ])), [
        f"the map correlates with the back-projection: {abs(found[AS_READ]):.2f}"
    ]


def _frames(
    particles: Particles, model: AtomicModel, volume: Map | None
) -> dict[str, tuple[float, float, float]]:
    """Offsets of the frames to try, the most trusted first.

    Raises
    ------
    InputError
        If the model does not fit in the box wherever it is put.
    """
    side = particles.box * particles.pixel_size
    half = particles.box // 2 * particles.pixel_size
    x, y, z = np.average(np.asarray(model.coords, dtype=np.float64), axis=0, weights=model.weights)
    frames = {} if volume is None else {"map": frame_of_map(volume)}
    frames |= {
        "corner": (half, half, half),
        "centre": (0.0, 0.0, 0.0),
        "centroid": (float(x), float(y), float(z)),
    }
    inside = {
        name: offset
        for name, offset in frames.items()
        if (np.abs(model.coords - np.asarray(offset)).max(axis=1) > side / 2).mean() <= OUTSIDE
    }
    if not inside:
        raise InputError(
            f"the model does not fit in the box of {side:.0f} A",
            file=model.path,
            remedy="Extract the particles in a larger box, or give the model of what they show.",
        )
    return inside


def _curve(sums: Accumulated, evidence: MapEvidence, model: AtomicModel, winner: Candidate) -> Tensor:
    """Correlation of back-projection and model by shell, in the whole working box."""
    score = DensityScore(sums, evidence, sums.box)
    world = (model.coords - np.asarray(winner.offset)) * np.asarray(HANDS[winner.hand])
    density = voxelise(
        torch.from_numpy(world.astype(np.float32)),
        torch.as_tensor(model.weights),
        max(2.0, score.voxel_size),
        score.box,
        score.voxel_size,
    )
    return score.correlations(score.density(density))
