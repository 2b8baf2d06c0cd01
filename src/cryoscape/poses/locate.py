"""From an image to its pose: search, refinement of the distinct best, comparison with the pose given."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from cryoscape.physics.rotations import geodesic_angle
from cryoscape.poses.evidence import Evidence
from cryoscape.poses.refine import Predict, Refined, refine
from cryoscape.poses.search import Candidates, PoseSearch

_SAME = 0.5
"""Refined poses closer than this part of a cell of the last level are one."""


@dataclass(frozen=True)
class Located:
    """Poses of B images.

    Attributes
    ----------
    rotations : Tensor, shape (B, 3, 3), float64
        From model to view.
    shifts : Tensor, shape (B, 2), float64
        Angstrom, beyond those taken out of the images.
    log_prob : Tensor, shape (B,)
        Nats over pure noise.
    log_prob_given : Tensor, shape (B,)
        The same of the poses given.
    covariance : Tensor, shape (B, 5, 5), float64
        Of rotation vector (radians) and shift (Angstrom) at the maximum.
    ambiguity : Tensor, shape (B,)
        Probability that another of the distinct poses found is the right one, 0 to 1.
    """

    rotations: Tensor
    shifts: Tensor
    log_prob: Tensor
    log_prob_given: Tensor
    covariance: Tensor
    ambiguity: Tensor

    @classmethod
    def cat(cls, parts: list[Located]) -> Located:
        """Join the images of several batches."""
        return cls(*(torch.cat([getattr(part, f.name) for part in parts]) for f in fields(cls)))

    def select(self, rows: Tensor) -> Located:
        """Some of the images, in the order asked for."""
        return Located(*(getattr(self, f.name)[rows] for f in fields(self)))

    def since(self, poses: PoseHistory) -> Located:
        """These poses, or the present ones where they are better, counted from those at first.

        Parameters
        ----------
        poses : PoseHistory
        """
        better = self.log_prob > self.log_prob_given
        return replace(
            self,
            rotations=torch.where(better[:, None, None], self.rotations, poses.rotations),
            shifts=torch.where(better[:, None], self.shifts, torch.zeros_like(self.shifts)) + poses.moved,
            log_prob=torch.maximum(self.log_prob, self.log_prob_given),
            log_prob_given=poses.log_prob,
        )


@dataclass(frozen=True)
class PoseHistory:
    """Where a search over several passes stands.

    Attributes
    ----------
    rotations : Tensor, shape (B, 3, 3)
        Before the last pass.
    moved : Tensor, shape (B, 2)
        Shifts before the last pass less those given at first, Angstrom.
    log_prob : Tensor, shape (B,)
        Nats of the poses given at first.
    """

    rotations: Tensor
    moved: Tensor
    log_prob: Tensor


def locate(search: PoseSearch, evidence: Evidence, given: Tensor, labels: Tensor) -> Located:
    """Poses of some images against the template maps.

    Parameters
    ----------
    search : PoseSearch
    evidence : Evidence
        Of B images, all coefficients.
    given : Tensor, shape (B, 3, 3)
    labels : Tensor, shape (B,), int64
        Which map each is compared with.

    Returns
    -------
    Located
    """
    seen = evidence.below(search.limit)
    starts, there = distinct(search(seen, given, labels), search.settings.modes)
    b, n = starts.log_prob.shape
    repeated = torch.arange(b).repeat_interleave(n)
    templates, radius = search.templates, search.templates.radius
    found = refine(
        lambda rotations: templates.slices(labels[repeated], rotations, seen.frequency),
        seen.select(repeated),
        starts.rotations.flatten(0, 1),
        starts.shifts.flatten(0, 1),
        radius=radius,
    )
    values = torch.where(there, found.log_prob.view(b, n), -torch.inf)
    best = values.argmax(1)
    chosen = torch.arange(b) * n + best
    at_given = templates.slices(labels, given, seen.frequency)
    return Located(
        found.rotations[chosen],
        found.shifts[chosen],
        found.log_prob[chosen],
        seen.log_prob(at_given, torch.zeros(b, 2)),
        found.covariance[chosen],
        _ambiguity(found, values, best, _SAME * starts.step),
    )


def distinct(candidates: Candidates, n: int) -> tuple[Candidates, Tensor]:
    """The best of every group of neighbours among the candidates.

    Parameters
    ----------
    candidates : Candidates
    n : int
        How many groups at most.

    Returns
    -------
    Candidates
        min(n, candidates) for each image, best first; filled up with copies of the best.
    there : Tensor, shape (B, n), bool
        False for those copies.
    """
    values = candidates.log_prob.clone()
    rows = torch.arange(len(values))
    picks: list[Tensor] = []
    there: list[Tensor] = []
    for _ in range(min(n, values.shape[1])):
        best, pick = values.max(1)
        left = torch.isfinite(best)
        pick = torch.where(left, pick, picks[0] if picks else pick)
        picks.append(pick)
        there.append(left)
        angle = geodesic_angle(candidates.rotations, candidates.rotations[rows, pick][:, None])
        values = values.masked_fill(angle < 2 * candidates.step, -torch.inf)
    index = torch.stack(picks, dim=1)
    take = (rows[:, None], index)
    kept = Candidates(
        candidates.rotations[take], candidates.shifts[take], candidates.log_prob[take], candidates.step
    )
    return kept, torch.stack(there, dim=1)


def _ambiguity(found: Refined, values: Tensor, best: Tensor, same: float) -> Tensor:
    """Share of the evidence (Laplace: height times width of each maximum) that is not the best one's."""
    b, n = values.shape
    rotations = found.rotations.view(b, n, 3, 3)
    top = rotations[torch.arange(b), best][:, None]
    other = geodesic_angle(rotations, top) > same
    log_width = 0.5 * torch.linalg.slogdet(found.covariance).logabsdet.view(b, n)
    weight = torch.softmax(values.double() + log_width, dim=1)
    return (weight * other).sum(1).to(values.dtype)


def relocate(predict: Predict, evidence: Evidence, given: Tensor, located: Located, radius: float) -> Located:
    """Refine poses on the projections of each image's own object.

    Parameters
    ----------
    predict : callable
        Projections of the objects of the B images.
    evidence : Evidence
        In the units of these projections.
    given : Tensor, shape (B, 3, 3)
    located : Located
        Poses found with the templates, which this starts from.
    radius : float
        Of the particle, Angstrom.

    Returns
    -------
    Located
        Log-likelihoods under the images' own objects.
    """
    refined = refine(predict, evidence, located.rotations, located.shifts, radius=radius, steps=3)
    return Located(
        refined.rotations,
        refined.shifts,
        refined.log_prob,
        evidence.log_prob(predict(given), torch.zeros(len(given), 2)),
        refined.covariance,
        located.ambiguity,
    )
