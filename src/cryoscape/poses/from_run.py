"""Pose search against the maps of a run, each particle with its own conformation."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from cryoscape.data.images import BandImages
from cryoscape.data.particles import Particles
from cryoscape.errors import InputError
from cryoscape.models.decoders.base import Scene
from cryoscape.models.likelihoods import GaussianLikelihood
from cryoscape.poses.conformations import Conformations, group, templates_of
from cryoscape.poses.evidence import Evidence
from cryoscape.poses.locate import Located, PoseHistory, locate, relocate
from cryoscape.poses.refine import Predict
from cryoscape.poses.results import PoseTable
from cryoscape.poses.search import PoseSearch, SearchSettings
from cryoscape.poses.templates import Band
from cryoscape.progress import ProgressReporter, reporter_or_silent
from cryoscape.training.embed import embed
from cryoscape.training.hardware import set_threads
from cryoscape.training.run import Run

LATER_REACH = math.radians(10)
"""Radians searched around the poses of an earlier pass, at most."""

BATCH = 64
"""Images searched at a time."""

CALIBRATION = 2000
"""Particles behind a noise spectrum that the run itself does not have."""


def search_poses(
    run: Run,
    settings: SearchSettings,
    *,
    particles: Particles | None = None,
    passes: int = 2,
    templates: int = 16,
    progress: ProgressReporter | None = None,
) -> PoseTable:
    """Search poses of particles by likelihood against the maps of a run.

    A latent that was found in a wrong pose is wrong itself. So the first pass compares all particles with the
    consensus of the run. Each later pass embeds them in the poses found, and searches around these: the grid
    with a few maps that stand for groups of particles of like conformation, the end with the projections of
    each particle's own.

    The pose found is compared with the pose given under the conformation that goes with each, and stays out
    where it is not the more likely one.

    Parameters
    ----------
    run : Run
        Of any decoder.
    settings : SearchSettings
    particles : Particles, optional
        Other particles than those of the training; they are embedded first.
    passes : int
        1 stops after the consensus.
    templates : int
        Groups of particles, at most; every one has 50 particles on average.
    progress : ProgressReporter, optional

    Returns
    -------
    PoseTable

    Raises
    ------
    InputError
        If the run has no embedding or no encoder, or the particles are gone or do not fit the run.
    """
    set_threads(run.config.training.threads)
    first, z = particles_and_latents(run, particles, progress)
    images = BandImages(first, run.geometry.cutoff, cache_memory=0.0)
    likelihood = nats_of(run, images, z)
    start = Conformations(run, z)
    at_first = own_evidence(start, images, likelihood, z)
    now = first
    for number in range(passes):
        if number:
            z = torch.from_numpy(embed(run, now, progress=progress).z)
            images = BandImages(now, run.geometry.cutoff, cache_memory=0.0)
            located = _search_own(
                run, Conformations(run, z, start), images, likelihood, z, settings, templates, progress
            )
        else:
            located = _search_consensus(run, start.consensus(), images, likelihood, settings, progress)
            at_first = located.log_prob_given if passes == 1 else at_first
        step = PoseTable.compare(now, located)
        last, now = now, replace(now, rotations=step.rotations, shifts=step.shifts)
        # What is left to find lies near, whatever was known at first.
        settings = replace(settings, reach=min(settings.reach or LATER_REACH, LATER_REACH))
    return PoseTable.compare(first, located.since(history(first, last, at_first)))


@torch.no_grad()
def _search_consensus(
    run: Run,
    consensus: Tensor,
    images: BandImages,
    likelihood: GaussianLikelihood,
    settings: SearchSettings,
    progress: ProgressReporter | None,
) -> Located:
    """Search all images around their present poses against one map."""
    maps = templates_of(consensus[None], run)
    band = Band.of(likelihood.weights, images.pixel_size)
    search, found = PoseSearch(maps, band, settings), []
    with reporter_or_silent(progress).task("pose search", len(images), "images") as task:
        for rows in torch.arange(len(images)).split(BATCH):
            evidence = Evidence.of(images.batch(rows), likelihood, band, gain=False)
            given = given_rotations(images.particles, rows)
            found.append(locate(search, evidence, given, torch.zeros_like(rows)))
            task.advance(len(rows))
    return Located.cat(found)


@torch.no_grad()
def _search_own(
    run: Run,
    conformations: Conformations,
    images: BandImages,
    likelihood: GaussianLikelihood,
    z: Tensor,
    settings: SearchSettings,
    templates: int,
    progress: ProgressReporter | None,
) -> Located:
    """Search all images around their present poses, each in its own conformation."""
    labels, nearest = group(z, templates)
    maps = templates_of(conformations.maps(z[nearest]), run)
    band = Band.of(likelihood.weights, images.pixel_size)
    search, found = PoseSearch(maps, band, settings), []
    # Images of one map together, so that its projections stay in the processor's cache.
    order = labels.argsort(stable=True)
    with reporter_or_silent(progress).task("pose search", len(images), "images") as task:
        for rows in order.split(BATCH):
            batch = images.batch(rows)
            given = given_rotations(images.particles, rows)
            coarse = Evidence.of(batch, likelihood, band, gain=False)
            located = locate(search, coarse, given, labels[rows])
            fine = Evidence.of(batch, likelihood, band)
            predict = _projections(conformations.scene(z[rows]), images, rows, band)
            found.append(relocate(predict, fine, given, located, maps.radius))
            task.advance(len(rows))
    back = torch.empty_like(order)
    back[order] = torch.arange(len(order))
    return Located.cat(found).select(back)


def particles_and_latents(
    run: Run, particles: Particles | None, progress: ProgressReporter | None = None
) -> tuple[Particles, Tensor]:
    """Particles with positive protein, and the means (N, d) of their posteriors in the poses given.

    Raises
    ------
    InputError
        If there is no embedding, or it is of other particles; if other particles do not fit the run, or it
        has no encoder.
    """
    if run.latents is not None:
        raise InputError(
            "a density stage has no encoder to find conformations with",
            file=run.path,
            remedy="Search the poses with the run that its latents come from.",
        )
    if particles is not None:
        embedding = embed(run, particles, progress=progress)
        return particles.with_sign(run.info["particles"]["data_sign"]), torch.from_numpy(embedding.z)
    embedding = run.embedding
    if not np.array_equal(embedding.uid, run.particles.uid):
        raise InputError(
            "the embedding is not of the particles of the training",
            file=run.path / "embedding.npz",
            remedy="Run: cryoscape embed RUN",
        )
    return run.particles, torch.from_numpy(embedding.z)


@torch.no_grad()
def own_evidence(
    conformations: Conformations, images: BandImages, likelihood: GaussianLikelihood, z: Tensor
) -> Tensor:
    """Nats over pure noise of all images in their present poses, each in its own conformation, (N,)."""
    band = Band.of(likelihood.weights, images.pixel_size)
    values = []
    for rows in torch.arange(len(images)).split(BATCH):
        evidence = Evidence.of(images.batch(rows), likelihood, band)
        predict = _projections(conformations.scene(z[rows]), images, rows, band)
        given = given_rotations(images.particles, rows)
        values.append(evidence.log_prob(predict(given), torch.zeros(len(rows), 2)))
    return torch.cat(values)


def _projections(scene: Scene, images: BandImages, rows: Tensor, band: Band) -> Predict:
    """Projections of a scene of the particles' own conformations."""

    def predict(rotations: Tensor) -> Tensor:
        turned = images.view(rotations.float(), rows)
        return parts_of(scene.project(turned, images.box, images.pixel_size), band)

    return predict


def parts_of(coefficients: Tensor, band: Band) -> Tensor:
    """Coefficients of the band, real and imaginary parts (m, 2, K), of images (m, box, box // 2 + 1)."""
    chosen = coefficients.flatten(1)[:, band.index]
    return torch.stack([chosen.real, chosen.imag], dim=1)


def history(first: Particles, before: Particles, at_first: Tensor) -> PoseHistory:
    """Where a search stood before its last pass, with the nats (N,) of the poses given at first."""
    moved = torch.from_numpy(before.shifts - first.shifts)
    return PoseHistory(given_rotations(before, torch.arange(len(before))), moved, at_first)


def given_rotations(particles: Particles, rows: Tensor) -> Tensor:
    """Rotations (B, 3, 3) as the table has them, float64."""
    assert particles.rotations is not None
    return torch.from_numpy(np.ascontiguousarray(particles.rotations[rows.numpy()]))


@torch.no_grad()
def nats_of(run: Run, images: BandImages, z: Tensor) -> GaussianLikelihood:
    """The likelihood of a run in nats; for a run trained on another objective, fitted to its model."""
    model = run.image_model
    if isinstance(model.likelihood, GaussianLikelihood):
        return model.likelihood
    fitted = GaussianLikelihood(images.box, images.pixel_size, images.cutoff, images.n_groups)
    rows = torch.linspace(0, len(images) - 1, min(CALIBRATION, len(images))).long()
    sums = torch.zeros_like(fitted.sums)
    for part in rows.split(BATCH):
        batch = images.batch(part)
        sums += fitted.accumulate(batch.images, model.project(z[part], batch), batch.ctf, batch.group)
    fitted.fit(sums)
    return fitted
