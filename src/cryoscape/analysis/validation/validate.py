"""The report card of a run: twelve checks and a verdict on every motion that it claims.

The recipe: hold images back, look at nulls, take motions out, trade latents, compare with the restraints,
start from elsewhere, train halves, count nats, make maps without the model, ask the views, calibrate, look at
the geometry. The checks that train again are in `retrained_checks`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cryoscape.analysis.records import write_arrays
from cryoscape.analysis.validation.checks import (
    NAMES,
    calibration,
    floor_check,
    held_out_check,
    latents_check,
    noise_check,
    not_run,
    restraint_overlap,
    restraints_check,
    split_check,
    structures_of,
    verdict_on,
    views_check,
)
from cryoscape.analysis.validation.evidence import gather_evidence
from cryoscape.analysis.validation.foreign import subject_of_files
from cryoscape.analysis.validation.geometry_check import geometry_check
from cryoscape.analysis.validation.motions import claimed_motions
from cryoscape.analysis.validation.results import JudgedMotion, Level, ReportCard, Verdict
from cryoscape.analysis.validation.state_map_check import state_maps
from cryoscape.analysis.validation.subject import Subject, subject_of_run
from cryoscape.errors import InputError
from cryoscape.progress import ProgressReporter

if TYPE_CHECKING:
    from cryoscape.data.particles import Particles
    from cryoscape.structures.atomic_model import AtomicModel
    from cryoscape.training.run import Run


@dataclass(frozen=True)
class Effort:
    """What a level looks at.

    Attributes
    ----------
    candidates : int
        Objects that images are compared with.
    images : int
        To fit populations to, and again to judge.
    motions : int
        Components, at most.
    replicates : int
        Of the parametric bootstrap.
    """

    candidates: int
    images: int
    motions: int
    replicates: int


EFFORT = {
    Level.QUICK: Effort(16, 400, 2, 0),
    Level.STANDARD: Effort(24, 1500, 3, 20),
    Level.FULL: Effort(32, 3000, 3, 50),
}


@dataclass(frozen=True, eq=False)
class Validation:
    """A report card with the arrays behind it.

    Attributes
    ----------
    card : ReportCard
    arrays : dict of ndarray
    model : AtomicModel or None
        Whose residues the arrays follow.
    """

    card: ReportCard
    arrays: dict[str, NDArray[Any]] = field(default_factory=dict)
    model: AtomicModel | None = None

    def write(self, folder: Path) -> list[Path]:
        """Save `validation.json` and `validation.npz`."""
        return [self.card.write(folder), write_arrays(folder / "validation.npz", self.arrays)]


def validate_run(
    run: Run,
    level: Level = Level.QUICK,
    *,
    reference: Path | None = None,
    seed: int = 0,
    progress: ProgressReporter | None = None,
) -> Validation:
    """Judge one of our runs.

    Parameters
    ----------
    run : Run
        With an embedding, and its images at hand.
    level : Level
    reference : Path, optional
        An independent model to start from, at the full level.
    seed : int
    progress : ProgressReporter, optional

    Returns
    -------
    Validation

    Raises
    ------
    InputError
        If the likelihood is not in nats, or the reference does not fit.
    """
    if reference is not None and level is not Level.FULL:
        raise InputError(
            "another reference is only trained from at the full level", remedy="Add --level full."
        )
    effort = EFFORT[level]
    subject = subject_of_run(run, candidates=effort.candidates, most=effort.images, seed=seed)
    found = _judge(subject, level, None, seed, progress)
    motions = claimed_motions(subject, 1)
    if level is Level.QUICK or not motions:
        return found
    from cryoscape.analysis.validation.retrained_checks import retrained_checks

    axis = motions[0].axis
    poses = next(check.values for check in found.card.checks if check.number == 8)
    again = retrained_checks(
        run,
        level,
        motion_axis=None if axis is None else axis.flatten().numpy().astype(np.float64),
        reference=reference,
        seed=seed,
        rotation_sd=poses["rotation_sd"],
        shift_sd=poses["shift_sd"],
        progress=progress,
    )
    again = [replace(one, text=one.text.rstrip(".")) for one in again]
    return Validation(found.card.with_checks(again), found.arrays, found.model)


def validate_files(
    files: Sequence[Path],
    particles: Particles,
    level: Level = Level.QUICK,
    *,
    latents: Path | None = None,
    seed: int = 0,
    progress: ProgressReporter | None = None,
) -> Validation:
    """Judge the structures or maps of another program, as far as its files allow.

    Parameters
    ----------
    files : sequence of Path
        Structures of one molecule, or maps.
    particles : Particles
    level : Level
    latents : Path, optional
        Its latents, in the order of the particles.
    seed : int
    progress : ProgressReporter, optional

    Returns
    -------
    Validation

    Raises
    ------
    InputError
        If files do not fit together or to the particles.
    """
    z = None
    if latents is not None:
        from cryoscape.analysis.prior_fitting.embedding_sources import read_embedding

        z = read_embedding(latents).z
        if len(z) != len(particles):
            raise InputError(
                f"{len(z)} latents, but {len(particles)} particles",
                file=latents,
                remedy="Give the particles that it was trained on, in their order.",
            )
    subject = subject_of_files(files, particles, most=EFFORT[level].images, seed=seed, progress=progress)
    return _judge(subject, level, z, seed, progress)


def _judge(
    subject: Subject,
    level: Level,
    z: NDArray | None,
    seed: int,
    progress: ProgressReporter | None,
) -> Validation:
    effort = EFFORT[level]
    motions = claimed_motions(subject, effort.motions)
    facts = {
        "seed": seed,
        "objects": len(subject.objects),
        "images_fitted": len(subject.fit),
        "images_judging": len(subject.test),
    }
    checks = [split_check(subject)]
    if not motions:
        rest = [not_run(k, "there is no motion to judge") for k in NAMES if k > 1]
        still = JudgedMotion(
            "any motion", "nowhere", Verdict.NULL, "everything that was made is the same: none is claimed"
        )
        return Validation(ReportCard(level, subject.source, (still,), tuple(checks + rest), (), facts))
    if z is None and subject.run is not None:
        z = subject.run.embedding.z
    found = gather_evidence(subject, motions, seed=seed, progress=progress)
    floor, arrays = floor_check(subject, found)
    checks += [noise_check(found), floor, latents_check(subject, found, seed)]
    overlap = restraint_overlap(subject, motions)
    checks.append(restraints_check(subject, motions, overlap))
    checks += [
        not_run(k, f"needs training again: --level {'full' if k == 6 else 'standard'}") for k in (6, 7)
    ]
    checks.append(held_out_check(subject, found, level is not Level.QUICK, progress))
    apart = [
        views_check(subject, found, one, z if k == 0 else None, seed) for k, one in enumerate(found.motions)
    ]
    main = found.motions[0].motion
    checks.append(state_maps(subject, found.table, subject.rows, found.weight, main.score > 0, progress))
    checks.append(apart[0][0])
    checks.append(calibration(subject, found, effort.replicates, seed, progress))
    checks.append(geometry_check(structures_of(subject), subject.structure))
    judged = tuple(verdict_on(found, one, views, overlap) for one, views in zip(found.motions, apart))
    arrays |= {"weight": found.weight, "claimed": subject.claimed}
    checks = [replace(one, name=NAMES[one.number], text=one.text.rstrip(".")) for one in checks]
    card = ReportCard(level, subject.source, judged, tuple(checks), tuple(_warnings(subject, level)), facts)
    return Validation(card, arrays, subject.structure)


def _warnings(subject: Subject, level: Level) -> list[str]:
    said = []
    if not subject.held_out:
        said.append(
            "no particles are known to have been held out: what was fitted to an image may judge it, and "
            "gains are too high by what was overfitted"
        )
    if level is Level.QUICK and len(subject.test) < 200:
        said.append(f"only {len(subject.test)} held-out particles judge: errors are large")
    return said
