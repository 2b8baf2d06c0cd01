"""Pose search against the maps of a run, each particle with its own conformation."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from cryoscape.data.images import BandImages
from cryoscape.data.particles import Particles
from cryoscape.errors import InputError
from cryoscape.models.likelihoods import GaussianLikelihood
from cryoscape.poses.evidence import Evidence
from cryoscape.poses.locate import Located, PoseHistory, locate, relocate
from cryoscape.poses.refine import Predict
from cryoscape.poses.results import PoseTable
from cryoscape.poses.search import PoseSearch, SearchSettings
from cryoscape.poses.templates import Band, TemplateMaps
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


@dataclass(frozen=True)
class Conformations:
    """The maps of a run that particles are compared with.

    Attributes
    ----------
    maps : TemplateMaps
    labels : Tensor, shape (N,), int64
        Map of every particle.
    """

    maps: TemplateMaps
    labels: Tensor


def search_poses(
    run: Run,
    settings: SearchSettings,
    *,
    particles: Particles | None = None,
    passes: int = 2,
    templates: int = 16,
    progress: ProgressReporter | None = None,
) -> PoseTable:
    """Search poses of particles, given the decoder of a run and each particle's latent.

    The grid is searched with a few maps that stand for groups of particles of like conformation; the end is
    refined, and judged, on the projections of each particle's own conformation. A latent that the encoder
    found in a wrong pose is wrong itself, so particles are embedded again in the poses found, and searched
    again around these.

    Parameters
    ----------
    run : Run
        Of any decoder.
    settings : SearchSettings
    particles : Particles, optional
        Other particles than those of the training; they are embedded first.
    passes : int
        Searches, each but the first with latents of its own. A run whose latents were given to it keeps
        these.
    templates : int
        Groups of particles, at most; every one has 50 particles on average.
    progress : ProgressReporter, optional

    Returns
    -------
    PoseTable
        The gain is that of pose and latent together.

    Raises
    ------
    InputError
        If the run has no embedding, or the particles are gone or do not fit the run.
    """
    set_threads(run.config.training.threads)
    first, z = particles_and_latents(run, particles, progress)
    now, has_encoder = first, run.latents is None
    for number in range(passes):
        if number and has_encoder:
            z = torch.from_numpy(embed(run, now, progress=progress).z)
        images = BandImages(now, run.geometry.cutoff, cache_memory=0.0)
        located = _one_pass(run, images, z, settings, templates, progress)
        if number == 0:
            at_first = located.log_prob_given
        before, step = now, PoseTable.compare(now, located)
        now = replace(now, rotations=step.rotations, shifts=step.shifts)
        # What is left to find lies near, whatever was known at first.
        settings = replace(settings, reach=min(settings.reach or LATER_REACH, LATER_REACH))
    return PoseTable.compare(first, located.since(history(first, before, at_first)))


def _one_pass(
    run: Run,
    images: BandImages,
    z: Tensor,
    settings: SearchSettings,
    templates: int,
    progress: ProgressReporter | None,
) -> Located:
    """Search all images around their present poses."""
    conformations = group_conformations(run, z, templates)
    likelihood = nats_of(run, images, z)
    band = Band.of(likelihood.weights, images.pixel_size)
    search = PoseSearch(conformations.maps, band, settings)
    found = []
    # Images of one map together, so that its projections stay in the processor's cache.
    order = conformations.labels.argsort(stable=True)
    with reporter_or_silent(progress).task("pose search", len(images), "images") as task, torch.no_grad():
        for rows in order.split(BATCH):
            batch = images.batch(rows)
            given = given_rotations(images.particles, rows)
            coarse = Evidence.of(batch, likelihood, band, gain=False)
            located = locate(search, coarse, given, conformations.labels[rows])
            fine = Evidence.of(batch, likelihood, band)
            predict = _own_projections(run, images, z[rows], rows, band)
            found.append(relocate(predict, fine, given, located, conformations.maps.radius))
            task.advance(len(rows))
    back = torch.empty_like(order)
    back[order] = torch.arange(len(order))
    return Located.cat(found).select(back)


def particles_and_latents(
    run: Run, particles: Particles | None, progress: ProgressReporter | None = None
) -> tuple[Particles, Tensor]:
    """Particles with positive protein, and the posterior means (N, d) of their latents.

    Raises
    ------
    InputError
        If there is no embedding, or it is of other particles; if other particles do not fit the run.
    """
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


def _own_projections(run: Run, images: BandImages, z: Tensor, rows: Tensor, band: Band) -> Predict:
    """Projections of the run's decoder at each particle's own latent."""
    scene = run.image_model.decoder(z)

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


def group_conformations(run: Run, z: Tensor, templates: int) -> Conformations:
    """Group particles by their latents (N, d), and decode the middle of every group.

    The middle is the particle nearest to the group's mean: a mean of latents may lie where there is nothing.
    """
    from sklearn.cluster import KMeans

    points = z.numpy()
    groups = max(1, min(templates, len(points) // 50))
    fitted = KMeans(groups, n_init=1, random_state=0).fit(points)
    nearest = [int(((points - c) ** 2).sum(1).argmin()) for c in fitted.cluster_centers_]
    g = run.geometry
    maps = TemplateMaps(torch.from_numpy(run.decode_maps(points[nearest])), g.pixel_size, g.scale)
    return Conformations(maps, torch.from_numpy(fitted.labels_.astype(np.int64)))


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
