"""Hierarchical search over rotations and shifts.

The coarsest cells of a rotation grid are compared with the image at low frequencies only, where cells that
size do not blur anything; the best few are split into eight, shifts are refined around the best of each, and
the comparison goes on at twice the resolution, until cells are so fine that a quadratic fit takes over.

Source: the strategy of cryoDRGN2 (Zhong, Lerer, Davis and Berger, ICCV 2021), after cryoSPARC's branch and
bound (Punjani et al., Nat. Methods 14 (2017), 290-296), here with a likelihood in nats.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from cryoscape.poses.evidence import Evidence
from cryoscape.poses.grid import HopfGrid, LocalGrid, RotationGrid, shift_grid
from cryoscape.poses.templates import Band, TemplateMaps

_PAIRS = 500_000
"""Values of the table images x rotations x shifts that are held at a time."""


@dataclass(frozen=True)
class SearchSettings:
    """How wide and how fine.

    Attributes
    ----------
    reach : float or None
        Radians around the poses given; None searches all rotations.
    shift_reach : float
        Angstrom around the shifts given.
    keep : int
        Rotations that survive each level.
    blur : float
        A cell's side times the particle's radius times the highest frequency compared there: a quarter means
        that the rim of the particle moves by half of a quarter of a wave at most from the cell's middle.
    first : int
        Level of the coarsest global grid: 2 has steps of 15 degrees.
    modes : int
        Distinct poses that are refined to the end.
    limit : float
        Highest frequency compared, 1/Angstrom.
    """

    reach: float | None
    shift_reach: float
    keep: int = 8
    blur: float = 0.35
    first: int = 2
    modes: int = 4
    limit: float = math.inf


@dataclass(frozen=True)
class Candidates:
    """The best poses found for every image, best first.

    Attributes
    ----------
    rotations : Tensor, shape (B, n, 3, 3), float64
        From model to view.
    shifts : Tensor, shape (B, n, 2), float64
        Angstrom, beyond those taken out of the images.
    log_prob : Tensor, shape (B, n)
        Nats over pure noise, at the resolution of the last level.
    step : float
        Side of the last cells, radians.
    """

    rotations: Tensor
    shifts: Tensor
    log_prob: Tensor
    step: float


def level_frequencies(
    settings: SearchSettings, grid: RotationGrid, radius: float, limit: float
) -> list[float]:
    """Highest frequency compared at each level, 1/Angstrom; the last is the limit."""
    frequencies: list[float] = []
    while not frequencies or frequencies[-1] < limit:
        frequencies.append(min(limit, settings.blur / (radius * grid.step(len(frequencies)))))
    return frequencies


def rotation_grid(settings: SearchSettings, radius: float, limit: float) -> RotationGrid:
    """The grid of a search: global, or local with cells that serve a particle of this radius.

    A local search begins where its first cells see a twelfth of the field's shells or eight waves less than
    the limit, so that it has a few levels to descend.
    """
    if settings.reach is None:
        return HopfGrid(settings.first)
    widest = max(settings.blur / (radius * limit) * 4, settings.reach / 4)
    return LocalGrid(settings.reach, min(widest, 0.27))


class PoseSearch:
    """Search of poses against template maps.

    Parameters
    ----------
    templates : TemplateMaps
    band : Band
        Coefficients of the likelihood.
    settings : SearchSettings
    """

    def __init__(self, templates: TemplateMaps, band: Band, settings: SearchSettings) -> None:
        self.templates, self.band, self.settings = templates, band, settings
        limit = min(settings.limit, templates.limit, float(band.radius[-1]))
        self.grid = rotation_grid(settings, templates.radius, limit)
        self.frequencies = level_frequencies(settings, self.grid, templates.radius, limit)
        self.counts = [max(8, band.below(f)) for f in self.frequencies]
        self.limit = band.below(limit)
        self._start = self.grid.start()
        self._shared: dict[int, Tensor] = {}

    def __call__(self, evidence: Evidence, given: Tensor, labels: Tensor) -> Candidates:
        """Find the best poses of some images.

        Parameters
        ----------
        evidence : Evidence
            Of B images.
        given : Tensor, shape (B, 3, 3)
            Poses to search around; not looked at by a global search.
        labels : Tensor, shape (B,), int64
            The map that each image is compared with.

        Returns
        -------
        Candidates
            `keep` of them, or as many cells as there are.
        """
        given = given.double()
        reach, radius = self.settings.shift_reach, self.templates.radius
        shifts, spacing = shift_grid(reach, radius * self.grid.step(0))
        cells, moves, scores = self._first_level(evidence.below(self.counts[0]), given, labels, shifts)
        level = 0
        for level in range(1, len(self.counts)):
            spacing /= 2
            cells, moves, scores = self._next_level(
                level, evidence.below(self.counts[level]), given, labels, cells, moves, spacing
            )
        rotations = self._poses(cells, level, given)
        return Candidates(rotations, moves, scores, self.grid.step(level))

    def _poses(self, cells: Tensor, level: int, given: Tensor) -> Tensor:
        """Rotations (B, n, 3, 3) of cells (B, n, d)."""
        rotations = self.grid.rotations(cells, level)
        return rotations if self.settings.reach is None else rotations @ given[:, None]

    def _first_level(
        self, evidence: Evidence, given: Tensor, labels: Tensor, shifts: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Every cell of the start with every shift; the best cells, their shifts and values."""
        found = []
        per_image = len(self._start) * len(shifts)
        keep = min(self.settings.keep, len(self._start))
        for rows in torch.arange(len(evidence)).split(max(1, _PAIRS // per_image)):
            part = evidence.select(rows)
            moved = part.moved(shifts[None]).flatten(2)
            if self.settings.reach is None:
                cross = moved.new_empty(len(rows), len(shifts), len(self._start))
                norms = moved.new_empty(len(rows), len(self._start))
                for label in labels[rows].unique().tolist():
                    here = labels[rows] == label
                    projections = self._shared_projections(label, part.frequency)
                    cross[here] = moved[here] @ projections.flatten(1).T
                    norms[here] = part.select(here.nonzero()[:, 0]).norms(projections)
            else:
                poses = self._poses(self._start.expand(len(rows), -1, -1), 0, given[rows])
                projections = self._project(labels[rows], poses, part.frequency)
                cross = moved @ projections.flatten(2).transpose(1, 2)
                norms = part.norms(projections)
            best, which = cross.max(1)
            scores, order = (best - norms).topk(keep, dim=1)
            found.append((self._start[order], shifts[which.gather(1, order)], scores))
        cells, moves, values = (torch.cat(column) for column in zip(*found))
        return cells, moves, values

    def _shared_projections(self, label: int, frequency: Tensor) -> Tensor:
        """Projections (C, 2, K) of one map in all cells of the start; made once."""
        if label not in self._shared:
            rotations = self.grid.rotations(self._start, 0)
            labels = torch.full((len(rotations),), label)
            parts = zip(labels.split(512), rotations.split(512))
            self._shared[label] = torch.cat([self.templates.slices(n, r, frequency) for n, r in parts])
        return self._shared[label]

    def _project(self, labels: Tensor, poses: Tensor, frequency: Tensor) -> Tensor:
        """Projections (B, n, 2, K) of each image's map in its poses (B, n, 3, 3)."""
        n = poses.shape[1]
        flat = self.templates.slices(labels.repeat_interleave(n), poses.flatten(0, 1), frequency)
        return flat.unflatten(0, (-1, n))

    def _next_level(
        self,
        level: int,
        evidence: Evidence,
        given: Tensor,
        labels: Tensor,
        cells: Tensor,
        moves: Tensor,
        spacing: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The children of all cells, each with nine shifts around its parent's."""
        b, n = cells.shape[:2]
        children = self.grid.children(cells)
        poses = self._poses(children.flatten(1, 2), level, given)
        projections = self._project(labels, poses, evidence.frequency)
        axis = torch.arange(-1, 2, dtype=moves.dtype) * spacing
        shifts = moves[:, :, None] + (
            torch.cartesian_prod(axis, axis) if spacing > 0 else axis.new_zeros(1, 2)
        )
        moved = evidence.moved(shifts.flatten(1, 2)).unflatten(1, (n, -1)).flatten(3)
        cross = moved @ projections.unflatten(1, (n, 8)).flatten(3).transpose(2, 3)
        best, which = cross.max(2)
        scores = best.flatten(1) - evidence.norms(projections)
        values, order = scores.topk(min(self.settings.keep, 8 * n), dim=1)
        parent = order // 8
        chosen = which.flatten(1).gather(1, order)
        rows = torch.arange(b)[:, None]
        return children.flatten(1, 2)[rows, order], shifts[rows, parent, chosen], values
