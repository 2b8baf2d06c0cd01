"""The checks that need no training: each from what was gathered, or from the run as it is."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cryoscape.analysis.components import latent_components
from cryoscape.analysis.validation.calibration import calibration_check, population_coverage
from cryoscape.analysis.validation.entanglement import entanglement_check
from cryoscape.analysis.validation.evidence import Evidence, MotionEvidence
from cryoscape.analysis.validation.gains import log_evidence
from cryoscape.analysis.validation.motion_floor import motion_floor
from cryoscape.analysis.validation.motions import ClaimedMotion
from cryoscape.analysis.validation.permutation import embed_means, partners, permute_latents
from cryoscape.analysis.validation.posterior_check import along, posterior_check
from cryoscape.analysis.validation.restraint_modes import MODES, ModeOverlap, mode_overlap
from cryoscape.analysis.validation.results import Check, JudgedMotion, Status
from cryoscape.analysis.validation.rigid_body import rigid_body_check, rigid_body_rivals
from cryoscape.analysis.validation.shells import shell_gain, shell_table, shells_check, unseen_gain
from cryoscape.analysis.validation.subject import Subject
from cryoscape.analysis.validation.verdicts import judge
from cryoscape.errors import InputError
from cryoscape.progress import ProgressReporter

NAMES = {
    1: "held-out particles",
    2: "noise alone",
    3: "one structure alone",
    4: "latents of other particles",
    5: "restraints alone",
    6: "other references",
    7: "half-sets",
    8: "held-out nats",
    9: "state maps without the model",
    10: "views and defocus",
    11: "calibration",
    12: "geometry",
}


def not_run(number: int, why: str) -> Check:
    """A check that was not run, and why."""
    return Check(number, NAMES[number], Status.NOT_RUN, why)


_RIVALS, _RIVAL_IMAGES = 12, 450


def split_check(subject: Subject) -> Check:
    """Check 1: which particles judge."""
    n = len(subject.test)
    if not subject.held_out:
        return Check(1, NAMES[1], Status.FAILED, f"none are known; every second particle judges ({n})")
    text = f"{n} particles that were never trained on judge, {len(subject.fit)} others fit populations"
    return Check(1, NAMES[1], Status.PASSED, text, {"test": n, "fit": len(subject.fit)})


def noise_check(found: Evidence) -> Check:
    """Check 2: heterogeneity in noise."""
    gain = found.noise
    status = Status.PASSED if gain.value <= 2 * gain.error else Status.FAILED
    text = (
        f"noise of the same spectrum gives {gain.value:+.2g} +- {gain.error:.1g} nats an image to "
        "heterogeneity (images, not trained on; trained on them at the standard level)"
    )
    return Check(2, NAMES[2], status, text, {"gain": gain.value, "error": gain.error})


def structures_of(subject: Subject) -> NDArray[np.float64] | None:
    """Structures (K, N, 3) of a subject, A; None where it has maps."""
    return subject.objects.numpy().astype(np.float64) if subject.has_structures else None


def floor_check(subject: Subject, found: Evidence) -> tuple[Check, dict[str, NDArray[Any]]]:
    """Check 3: heterogeneity in images of one structure, and the floor under every residue's motion."""
    gain, spread = float(found.null_heterogeneous.mean()), float(found.null_heterogeneous.std(ddof=1))
    # Of a mean that is not above zero, one set in forty is two standard deviations above it.
    clean = gain <= 2 * spread / np.sqrt(len(found.null_heterogeneous))
    said = f"sets of images of one structure give {gain:+.2g} +- {spread:.1g} nats to heterogeneity"
    values: dict[str, Any] = {"gain": gain, "spread": spread, "sets": len(found.null_heterogeneous)}
    coords = structures_of(subject)
    arrays: dict[str, NDArray[Any]] = {"null_weight": found.null_weight}
    if coords is not None:
        floor = motion_floor(coords, found.weight, found.null_weight)
        arrays |= {"rmsf": floor.rmsf, "rmsf_floor": floor.floor}
        values |= {"residues_beyond_floor": int(floor.moves.sum()), "residues": len(floor.rmsf)}
        said += (
            f"; {int(floor.moves.sum())} of {len(floor.rmsf)} residues move more than they would then "
            f"(floor {np.median(floor.floor):.2g} A, motion {np.median(floor.rmsf):.2g} A, medians)"
        )
    return Check(3, NAMES[3], Status.PASSED if clean else Status.FAILED, said, values), arrays


def latents_check(subject: Subject, found: Evidence, seed: int) -> Check:
    """Check 4: what trading latents and poses costs."""
    run = subject.run
    if run is None:
        return not_run(4, "needs the encoder and the decoder, which are another program's")
    particles, rows = subject.particles, subject.test
    rotations = subject.images.batch(torch.from_numpy(rows)).rotations.numpy()
    defocus = 0.5 * (np.asarray(particles.defocus_u) + np.asarray(particles.defocus_v))[rows]
    partner = partners(rotations[:, 2], defocus, seed)
    micrograph = particles.micrograph[rows]
    model = run.image_model
    z = torch.from_numpy(run.embedding.z[rows])
    real = permute_latents(model, subject.images.batch, rows, z, partner, micrograph, seed)
    null_z = embed_means(model, found.null_images, rows)
    null = permute_latents(model, found.null_images, rows, null_z, partner, micrograph, seed)
    beyond = real.drop.less(null.drop)
    destroyed = real.traded_poses.value < real.matched.value
    good = beyond.sigmas >= 3 and destroyed
    text = (
        f"trading z between images of like view costs {real.drop.value:+.2g} +- {real.drop.error:.1g} nats "
        f"({null.drop.value:+.2g} +- {null.drop.error:.1g} where nothing moves); trading poses costs "
        f"{real.matched.value - real.traded_poses.value:.3g}"
    )
    values = {
        "drop": real.drop.value,
        "drop_error": real.drop.error,
        "null_drop": null.drop.value,
        "null_drop_error": null.drop.error,
        "matched": real.matched.value,
        "traded_poses": real.traded_poses.value,
    }
    return Check(4, NAMES[4], Status.PASSED if good else Status.FAILED, text, values)


def restraint_overlap(subject: Subject, motions: list[ClaimedMotion]) -> ModeOverlap | None:
    """Overlap of the motions with the soft modes of the restraints; None where there are none."""
    axes = [motion.axis.numpy() for motion in motions if motion.axis is not None]
    coords = structures_of(subject)
    if coords is None or not axes:
        return None
    try:
        return mode_overlap(np.einsum("k,kni->ni", subject.claimed, coords), np.stack(axes))
    except InputError:
        # A network that falls into pieces has no soft modes to compare with.
        return None


def restraints_check(subject: Subject, motions: list[ClaimedMotion], overlap: ModeOverlap | None) -> Check:
    """Check 5: what the restraints alone would make."""
    if overlap is None:
        why = "there are no restraints on maps"
        if subject.has_structures:
            why = "the elastic network of the structure falls into pieces"
        return not_run(5, why)
    each = ", ".join(f"{one.name} {value:.2f}" for one, value in zip(motions, overlap.each))
    text = (
        f"overlap with the {MODES} softest modes of the elastic network: {each} "
        f"(random {overlap.random:.2f}); it counts against a motion only where images do not support it"
    )
    values = {"overlap": overlap.each, "rmsip": overlap.rmsip, "random": overlap.random}
    return Check(5, NAMES[5], Status.REPORTED, text, values)


def held_out_check(
    subject: Subject, found: Evidence, thorough: bool, progress: ProgressReporter | None
) -> Check:
    """Check 8: nats of held-out images, in all and by shell."""
    gain, rigid = found.heterogeneous, found.rigid
    text = (
        f"{gain.value:+.3g} +- {gain.error:.1g} nats an image over the best single object "
        f"(wrong poses alone {rigid.value:+.2g} +- {rigid.error:.1g}: {found.rotation_sd:.2g} degrees, "
        f"{found.shift_sd:.2g} A are left)"
    )
    shells = _shells(subject, found, progress)
    values: dict[str, Any] = {}
    if thorough:
        rigid_moves = _rigid_moves(subject, found, progress)
        text += f"; {rigid_moves.text.rstrip('.')}"
        values["rigid_moves"] = rigid_moves.values
    good = gain.sigmas >= 3
    values |= {
        "gain": gain.value,
        "gain_error": gain.error,
        "rigid": rigid.value,
        "rigid_error": rigid.error,
        "rotation_sd": found.rotation_sd,
        "shift_sd": found.shift_sd,
        "shells": shells.values,
    }
    return Check(8, NAMES[8], Status.PASSED if good else Status.FAILED, f"{text}; {shells.text}", values)


def _rigid_moves(subject: Subject, found: Evidence, progress: ProgressReporter | None) -> Check:
    """Rivals of the motion: rigid moves of every particle, about its most likely pose."""
    heavy = np.argsort(-found.weight)[:_RIVALS]
    scenes = subject.scenes()
    fit, test = (torch.from_numpy(rows[:_RIVAL_IMAGES]) for rows in (subject.fit, subject.test))
    return rigid_body_check(
        rigid_body_rivals(
            subject.likelihood,
            [scenes[k] for k in heavy],
            subject.images.batch,
            fit,
            test,
            progress=progress,
        )
    )


def _shells(subject: Subject, found: Evidence, progress: ProgressReporter | None) -> Check:
    """Nats by resolution shell, also in those that training never saw."""
    scenes, rows = subject.scenes(), torch.from_numpy(subject.test)
    likelihood = subject.likelihood
    seen = shell_table(likelihood, scenes, subject.images.batch, rows, progress=progress)
    side = likelihood.box * likelihood.pixel_size
    unseen = unseen_gain(
        likelihood,
        subject.particles,
        scenes,
        found.best,
        found.responsibilities[len(subject.fit) :],
        training_rows=torch.from_numpy(subject.fit),
        rows=rows,
        progress=progress,
    )
    return shells_check(shell_gain(seen, found.weight, found.best, side, running=True), unseen)


def views_check(
    subject: Subject, found: Evidence, one: MotionEvidence, z: NDArray | None, seed: int
) -> tuple[Check, bool]:
    """Check 10 of one motion, and whether it is entangled."""
    rows = subject.rows
    high = one.motion.score > _middle(one.motion, found.weight)
    weight = np.maximum(found.weight, 1e-12)
    low_side, high_side = (
        log_evidence(found.table[:, side], weight[side] / weight[side].sum()) for side in (~high, high)
    )
    particles = subject.particles
    defocus = 0.5 * (np.asarray(particles.defocus_u) + np.asarray(particles.defocus_v))
    rotations = subject.images.batch(torch.from_numpy(rows)).rotations.numpy().astype(np.float64)
    # What of the code is more than its two leading components holds little, and costs much, to ask.
    code = None if z is None else latent_components(z).scores[rows, :2].astype(np.float64)
    return entanglement_check(low_side, high_side, rotations[:, 2], defocus[rows], code=code, seed=seed)


def _middle(motion: ClaimedMotion, weight: NDArray[np.float64]) -> float:
    """Score that halves the populations, so that there is something on either side of it."""
    order = np.argsort(motion.score)
    total = np.cumsum(weight[order])
    at = int(np.searchsorted(total, 0.5 * total[-1]))
    at = min(at, len(order) - 2)
    return float(0.5 * (motion.score[order[at]] + motion.score[order[at + 1]]))


def calibration(
    subject: Subject, found: Evidence, replicates: int, seed: int, progress: ProgressReporter | None
) -> Check:
    """Check 11: posteriors and intervals on images whose truth is known."""
    parts: list[Check] = []
    axes = [one.motion.axis.flatten().numpy() for one in found.motions if one.motion.axis is not None]
    if subject.run is not None and axes:
        coordinates = along(subject.decoder, np.stack(axes).astype(np.float64))
        rows = torch.from_numpy(subject.test)
        parts.append(posterior_check(subject.run, coordinates, rows, seed=seed, progress=progress))
    if replicates:
        main = found.motions[0].motion
        high = main.score > _middle(main, found.weight)
        member = np.stack([~high, high], axis=1)
        covered = population_coverage(
            found.products, found.weight, member, repeats=replicates, seed=seed, progress=progress
        )
        parts.append(calibration_check(*covered, len(subject.rows)))
    if not parts:
        return not_run(11, "at the standard level")
    status = Status.FAILED if any(p.status is Status.FAILED for p in parts) else parts[0].status
    values: dict[str, Any] = {}
    for part in parts:
        values |= part.values
    return Check(11, NAMES[11], status, " ".join(part.text for part in parts), values)


def verdict_on(
    found: Evidence, one: MotionEvidence, views: tuple[Check, bool], overlap: ModeOverlap | None
) -> JudgedMotion:
    """Put together what was found on one motion."""
    along = [other.motion for other in found.motions if other.motion.axis is not None]
    k = along.index(one.motion) if one.motion.axis is not None else None
    amplitudes = [one.motion.amplitude(weight) for weight in found.null_weight]
    return judge(
        one,
        one.motion.amplitude(found.weight),
        float(np.quantile(amplitudes, 0.99)),
        views[1],
        views[0].values,
        None if k is None or overlap is None else float(overlap.each[k]),
        None if k is None or overlap is None else float(overlap.rigid[k]),
    )
