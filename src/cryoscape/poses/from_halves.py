"""Pose search without a model: every particle against the back-projection of the other half of the data.

A map that a particle took part in holds a copy of the particle's own noise, turned as the particle is, and
will not let go of it. The map of the other half does not, and how well it predicts the particles tells for
each shell how far to trust it (the likelihood's gain). So a few rounds of search and back-projection bring
blurred maps and wrong poses right together, as long as the particles are one object to the resolution in use.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from cryoscape.data.images import BandImages
from cryoscape.data.particles import Particles
from cryoscape.errors import InputError
from cryoscape.models.likelihoods import GaussianLikelihood
from cryoscape.physics.backprojection import BackProjector, SliceBatch, solve
from cryoscape.physics.resolution import fsc, soft_sphere
from cryoscape.poses.evidence import Evidence
from cryoscape.poses.from_run import BATCH, CALIBRATION, given_rotations, history
from cryoscape.poses.locate import Located, locate
from cryoscape.poses.results import PoseTable
from cryoscape.poses.search import PoseSearch, SearchSettings
from cryoscape.poses.templates import Band, TemplateMaps
from cryoscape.progress import ProgressReporter, reporter_or_silent

FSC_LIMIT = 0.143
"""Particles are compared with half maps up to where these correlate less than this."""

LEAST_SHELLS = 3
"""Half maps that agree on fewer shells point nowhere."""


@dataclass(frozen=True)
class Round:
    """One round of search.

    Attributes
    ----------
    resolution : float
        To which the half maps agreed and particles were compared with them, Angstrom.
    angle : float
        Median rotation in this round, degrees.
    distance : float
        Median shift in this round, Angstrom.
    gain : float
        Mean nats gained over the poses before the round.
    """

    resolution: float
    angle: float
    distance: float
    gain: float


def search_between_halves(
    images: BandImages,
    settings: SearchSettings,
    *,
    rounds: int = 5,
    progress: ProgressReporter | None = None,
) -> tuple[PoseTable, list[Round]]:
    """Search poses against the other half's map, make the maps anew, and again.

    Parameters
    ----------
    images : BandImages
        With the poses to begin with.
    settings : SearchSettings
        Reach and shift reach are taken around the poses before each round.
    rounds : int
    progress : ProgressReporter, optional

    Returns
    -------
    PoseTable
        Of the last poses against those given at first, likelihoods by the last maps.
    list of Round

    Raises
    ------
    InputError
        If the half maps have nothing in common.
    """
    first, log = images.particles, []
    for number in range(rounds):
        maps = half_maps(images, settings)
        with reporter_or_silent(progress).task(f"round {number + 1}", len(images), "images") as task:
            found = []
            for rows in torch.arange(len(images)).split(BATCH):
                found.append(_locate(images, maps, first, rows))
                task.advance(len(rows))
        located = Located.cat([now for now, _ in found])
        before = images.particles
        step = PoseTable.compare(before, located)
        log.append(
            Round(
                1 / maps.search.frequencies[-1],
                float(np.median(step.angle)),
                float(np.median(step.distance)),
                float(step.gain.clip(min=0).mean()),
            )
        )
        moved = replace(before, rotations=step.rotations, shifts=step.shifts)
        images = BandImages(moved, images.cutoff)
    at_first = torch.cat([values for _, values in found])
    return PoseTable.compare(first, located.since(history(first, before, at_first))), log


@dataclass(frozen=True)
class HalfMaps:
    """Two maps to search against, and what they are worth.

    Attributes
    ----------
    search : PoseSearch
    likelihood : GaussianLikelihood
        Gain and noise of each particle's image against the other half's map.
    band : Band
    other : Tensor, shape (N,), int64
        The map of every particle, of the half that it is not in.
    """

    search: PoseSearch
    likelihood: GaussianLikelihood
    band: Band
    other: Tensor


@torch.no_grad()
def half_maps(images: BandImages, settings: SearchSettings) -> HalfMaps:
    """Back-project the halves of the data in their present poses.

    Raises
    ------
    InputError
        If the half maps have nothing in common.
    """
    particles = images.particles
    halves = torch.from_numpy(np.asarray(particles.half, dtype=np.int64))
    if not 0.2 <= float((halves == 1).float().mean()) <= 0.8:
        halves = torch.arange(len(particles)) % 2 + 1
    projector = BackProjector(images.box, images.pixel_size, particles.box)
    for rows in torch.arange(len(images)).split(256):
        batch = images.batch(rows)
        projector.insert(SliceBatch(batch.images, batch.ctf, batch.rotations, halves[rows]))
    volumes = solve(projector.finish())
    mask = soft_sphere(images.box, 0.4 * images.box, 0.1 * images.box)
    below = (fsc(volumes.half1, volumes.half2, mask)[1:] < FSC_LIMIT).nonzero()
    last = int(below[0, 0]) if len(below) else images.box // 2 - 1
    if last < LEAST_SHELLS:
        raise InputError(
            "the two halves of the particles give maps that have nothing in common",
            file=particles.source.path,
            remedy="Search against the run's own maps (leave out --rounds), or use more particles.",
        )
    pair = torch.stack([volumes.half1, volumes.half2]) * mask
    maps = TemplateMaps(pair, images.pixel_size, projector.scale)
    limit = min(settings.limit, last / (images.box * images.pixel_size))
    likelihood = GaussianLikelihood(images.box, images.pixel_size, images.cutoff, images.n_groups)
    band = Band.of(likelihood.weights, images.pixel_size)
    search = PoseSearch(maps, band, replace(settings, limit=limit))
    _calibrate(likelihood, images, maps, 2 - halves, band)
    return HalfMaps(search, likelihood, band, 2 - halves)


def _calibrate(
    likelihood: GaussianLikelihood, images: BandImages, maps: TemplateMaps, other: Tensor, band: Band
) -> None:
    """Fit gain and noise of the images against the map that each is compared with."""
    seen = band.below(maps.limit)
    sums = torch.zeros_like(likelihood.sums)
    rows = torch.linspace(0, len(images) - 1, min(CALIBRATION, len(images))).long()
    for part in rows.split(BATCH):
        batch = images.batch(part)
        projections = torch.zeros_like(batch.images)
        values = maps.slices(other[part], batch.rotations, band.frequency[:seen])
        flat = projections.flatten(1)
        flat[:, band.index[:seen]] = torch.complex(values[:, 0].contiguous(), values[:, 1].contiguous())
        sums += likelihood.accumulate(batch.images, flat.view_as(batch.images), batch.ctf, batch.group)
    likelihood.fit(sums)


@torch.no_grad()
def _locate(images: BandImages, maps: HalfMaps, first: Particles, rows: Tensor) -> tuple[Located, Tensor]:
    """Poses of some images, and the log-likelihood of those given at first."""
    evidence = Evidence.of(images.batch(rows), maps.likelihood, maps.band)
    located = locate(maps.search, evidence, given_rotations(images.particles, rows), maps.other[rows])
    seen = evidence.below(maps.search.limit)
    shifts = torch.from_numpy(first.shifts[rows.numpy()] - images.particles.shifts[rows.numpy()])
    projections = maps.search.templates.slices(maps.other[rows], given_rotations(first, rows), seen.frequency)
    return located, seen.log_prob(projections, shifts)
