"""Priors of several kinds fitted to half of an embedding and judged on the other half, beside the floors.

The floor of a number is what the one half of the data gets against the other. What the data are is told in
`cryoscape.analysis.prior_fitting.halves`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cryoscape.analysis.prior_fitting.evidence import evidence_bias, particle_density
from cryoscape.analysis.prior_fitting.fit import build_prior
from cryoscape.analysis.prior_fitting.halves import WEIGHTS, Halves, split
from cryoscape.analysis.prior_fitting.metrics import BINS, Judge, SampleScores
from cryoscape.errors import InputError
from cryoscape.progress import reporter_or_silent

if TYPE_CHECKING:
    from cryoscape.analysis.prior_fitting.embeddings import EmbeddingSource
    from cryoscape.priors.base import LatentPrior
    from cryoscape.priors.fitting import Objective
    from cryoscape.progress import ProgressReporter

_DRAWN = 5000  # points kept of every sample, for figures
_BIASED = 0.01  # nats by which an evidence is too low that are said


@dataclass(frozen=True, eq=False)
class JudgedPrior:
    """One prior in the comparison.

    Attributes
    ----------
    name : str
        Its kind; "own (kind)" for the prior that a run learnt with its embedding.
    log_prob, log_prob_error : float
        Mean over the held-out particles, nats, with its standard error and that of log Z.
    behind, behind_error : float
        How far below the best prior of the table that is, and the error of that, particle by particle.
    scores : SampleScores
    at_floor : dict of str to bool
        Which of the scores are not above their floor.
    seconds : float or None
        What the fit took; None where nothing was fitted.
    warnings : tuple of str
    points : ndarray, shape (n, d)
        Some of its samples.
    """

    name: str
    log_prob: float
    log_prob_error: float
    behind: float
    behind_error: float
    scores: SampleScores
    at_floor: dict[str, bool]
    seconds: float | None
    warnings: tuple[str, ...]
    points: NDArray[np.float64] = field(repr=False)


@dataclass(frozen=True, eq=False)
class PriorComparison:
    """The table, with what it says of itself.

    Attributes
    ----------
    objective : {"aggregate", "deconvolved"}
    train, held_out : int
        Particles fitted to, and judged on.
    samples : int
        Drawn from every prior.
    classified : int
        Samples, and as many data, behind AUROC and accuracy.
    floor, floor_sd : SampleScores
        What data get in the place of samples, and its standard deviation.
    rows : tuple of JudgedPrior
        In the order asked for; a run's own prior last.
    failed : tuple of (str, str)
        Kinds that could not be fitted, and why.
    notes : tuple of str
    axes : ndarray, shape (2, d)
        First two principal components of the training part.
    data : ndarray, shape (n, d)
        Some of the held-out data.
    """

    objective: str
    train: int
    held_out: int
    samples: int
    classified: int
    floor: SampleScores
    floor_sd: SampleScores
    rows: tuple[JudgedPrior, ...]
    failed: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]
    axes: NDArray[np.float64] = field(repr=False)
    data: NDArray[np.float64] = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON: the table without its points."""
        names = ("objective", "train", "held_out", "samples", "classified")
        rows = {
            row.name: {
                "log_prob": row.log_prob,
                "log_prob_error": row.log_prob_error,
                "behind": row.behind,
                "behind_error": row.behind_error,
                **row.scores.values(),
                "at_floor": row.at_floor,
                "seconds": row.seconds,
                "warnings": list(row.warnings),
            }
            for row in self.rows
        }
        return {name: getattr(self, name) for name in names} | {
            "bins": list(BINS),
            "floor": self.floor.values(),
            "floor_sd": self.floor_sd.values(),
            "priors": rows,
            "failed": dict(self.failed),
            "notes": list(self.notes),
        }


@dataclass(frozen=True, eq=False)
class _Candidate:
    """A fitted prior on its way to the judge."""

    name: str
    prior: LatentPrior
    seconds: float | None
    warnings: tuple[str, ...]
    each: NDArray[np.float64]  # log density of the held-out particles
    log_z_error: float


def compare_priors(
    source: EmbeddingSource,
    settings: Sequence[Any],
    objective: Objective = "aggregate",
    *,
    samples: int | None = None,
    seed: int = 0,
    progress: ProgressReporter | None = None,
) -> PriorComparison:
    """Fit priors to one half of an embedding and judge them on the other.

    Parameters
    ----------
    source : EmbeddingSource
    settings : sequence of PriorConfig
        All of one support.
    objective : {"aggregate", "deconvolved"}
    samples : int, optional
        Drawn from every prior; by default as many as there are held-out particles.
    seed : int
        Of the split, the fits and the samples.
    progress : ProgressReporter, optional

    Returns
    -------
    PriorComparison

    Raises
    ------
    InputError
        If there are too few particles, a kind does not suit the embedding, or none could be fitted.
    """
    parts = split(source, settings, objective, seed)
    report = reporter_or_silent(progress)
    candidates, failed = _fit_all(parts, settings, report)
    if not candidates:
        raise InputError(f"no prior could be fitted: {failed[0][1]}", file=source.path)
    best = max(candidates, key=lambda c: float(c.each.mean()))
    with report.task("judge", len(candidates) + 1, "priors") as bar:
        train, held_out = (parts.data(part, best.prior) for part in (parts.train, parts.held_out))
        n = len(held_out) if samples is None else samples
        judge = Judge(train, held_out, n, seed)
        floor, floor_sd = judge.floor
        bar.advance()
        rows = []
        for candidate in candidates:
            rows.append(_judged(candidate, best, judge, parts, n))
            bar.advance()
    return PriorComparison(
        objective,
        len(parts.train),
        len(parts.held_out),
        n,
        judge.classified,
        floor,
        floor_sd,
        tuple(rows),
        tuple(failed),
        _notes(parts, n, len(judge.train)),
        judge.axes,
        judge.held_out[:_DRAWN],
    )


def _fit_all(
    parts: Halves, settings: Sequence[Any], report: ProgressReporter
) -> tuple[list[_Candidate], list[tuple[str, str]]]:
    source, seed = parts.train, parts.seed
    samples = source.posterior_samples(parts.objective, parts.support, seed)
    candidates, failed = [], []
    with report.task("fit", len(settings), "priors") as bar:
        for each in settings:
            bar.status(each.kind)
            began = time.monotonic()
            prior = build_prior(each, source.z_dim, seed)
            try:
                found = prior.fit(samples, parts.objective, seed=seed)
            except InputError as error:
                failed.append((each.kind, error.message))
            else:
                seconds = time.monotonic() - began
                candidates.append(_candidate(each.kind, prior, parts, seconds, found.warnings))
            bar.advance()
    own = source.reference
    if source.own_prior and own is not None and own.support == parts.support:
        candidates.append(_candidate(f"own ({source.own_prior})", own, parts, None, own.faults()))
    return candidates, failed


def _candidate(
    name: str, prior: LatentPrior, parts: Halves, seconds: float | None, warnings: tuple[str, ...]
) -> _Candidate:
    each = particle_density(prior, parts.weighed, parts.objective)
    if parts.objective == "deconvolved":
        bias = evidence_bias(prior, parts.weighed)
        if bias > _BIASED:
            warnings += (f"the evidence is too low by about {bias:.2g} nats, for want of posterior samples",)
    return _Candidate(name, prior, seconds, warnings, each, prior.log_partition().std_err)


def _judged(candidate: _Candidate, best: _Candidate, judge: Judge, parts: Halves, n: int) -> JudgedPrior:
    if parts.reweighted:
        # Everyone is compared with the posteriors under itself.
        judge = judge.against(parts.data(parts.held_out, candidate.prior))
    points = parts.drawn(candidate.prior, n)
    scores = judge.score(points)
    count = math.sqrt(len(candidate.each))
    difference = best.each - candidate.each
    behind_error = float(difference.std(ddof=1)) / count
    return JudgedPrior(
        candidate.name,
        float(candidate.each.mean()),
        math.hypot(float(candidate.each.std(ddof=1)) / count, candidate.log_z_error),
        float(difference.mean()),
        0.0 if candidate is best else math.hypot(behind_error, candidate.log_z_error, best.log_z_error),
        scores,
        judge.at_floor(scores),
        candidate.seconds,
        candidate.warnings,
        points[:_DRAWN],
    )


def _notes(parts: Halves, n: int, most: int) -> tuple[str, ...]:
    notes = []
    if parts.train.own_prior:
        notes.append("the run's own prior was trained on all particles, the held-out ones among them")
    if parts.objective == "deconvolved":
        notes.extend(parts.train.cautions)
        few = len(parts.weighed)
        notes.append(f"the evidence is that of {few} particles, from {WEIGHTS} posterior samples each")
        if parts.reweighted:
            notes.append(
                f"every prior is compared with the posteriors of {few} held-out particles under itself; "
                "the floors are the best one's"
            )
        else:
            notes.append("samples are compared with embeddings after they got the particles' own errors")
            idle = int((~parts.measured).sum())
            if idle:
                notes.append(f"directions left out, of which the images say nothing: {idle}")
    if n > most:
        notes.append(f"the floors are those of {most} points, for want of more, not of {n}")
    return tuple(notes)
