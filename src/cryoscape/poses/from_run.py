"""Pose search against the maps of a run, each particle with its own conformation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cryoscape.data.images import BandImages
from cryoscape.data.particles import Particles
from cryoscape.errors import InputError
from cryoscape.models.likelihoods import GaussianLikelihood
from cryoscape.poses.evidence import Evidence
from cryoscape.poses.locate import Located, locate, relocate
from cryoscape.poses.refine import Predict
from cryoscape.poses.results import PoseTable
from cryoscape.poses.search import PoseSearch, SearchSettings
from cryoscape.poses.templates import Band, TemplateMaps
from cryoscape.progress import ProgressReporter, reporter_or_silent
from cryoscape.training.embed import embed
from cryoscape.training.hardware import set_threads
from cryoscape.training.run import Run

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
    templates: int = 16,
    progress: ProgressReporter | None = None,
) -> PoseTable:
    """Search poses of particles, given the decoder of a run and each particle's latent.

    The grid is searched with a few maps that stand for groups of particles of like conformation; the end is
    refined, and judged, on the projections of each particle's own conformation.

    Parameters
    ----------
    run : Run
        Of any decoder.
    settings : SearchSettings
    particles : Particles, optional
        Other particles than those of the training; they are embedded first.
    templates : int
        Groups of particles, at most; every one has 50 particles on average.
    progress : ProgressReporter, optional

    Returns
    -------
    PoseTable

    Raises
    ------
    InputError
        If the run has no embedding, or the particles are gone or do not fit the run.
    """
    set_threads(run.config.training.threads)
    images, z = images_and_latents(run, particles, progress)
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
    return PoseTable.compare(images.particles, Located.cat(found).select(back))


def images_and_latents(
    run: Run, particles: Particles | None, progress: ProgressReporter | None = None
) -> tuple[BandImages, Tensor]:
    """Images in the band of a run, and the posterior means (N, d) of their latents.

    Raises
    ------
    InputError
        If there is no embedding, or it is of other particles; if other particles do not fit the run.
    """
    if particles is not None:
        embedding = embed(run, particles, progress=progress)
        own = particles.with_sign(run.info["particles"]["data_sign"])
        return BandImages(own, run.geometry.cutoff, cache_memory=0.0), torch.from_numpy(embedding.z)
    embedding = run.embedding
    if not np.array_equal(embedding.uid, run.particles.uid):
        raise InputError(
            "the embedding is not of the particles of the training",
            file=run.path / "embedding.npz",
            remedy="Run: cryoscape embed RUN",
        )
    return run.images(), torch.from_numpy(embedding.z)


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
