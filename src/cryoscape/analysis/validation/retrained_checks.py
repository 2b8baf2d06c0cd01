"""All checks of a run that need it to be trained again."""

from __future__ import annotations

from pathlib import Path

from numpy.typing import NDArray

from cryoscape.analysis.validation.halves import half_set_check, split_check, train_halves
from cryoscape.analysis.validation.nulls import homogeneous_check, noise_check
from cryoscape.analysis.validation.other_references import matched_model
from cryoscape.analysis.validation.reference_swap import swap_check
from cryoscape.analysis.validation.results import Check, Level, Status
from cryoscape.analysis.validation.retrained_calibration import calibration_check
from cryoscape.analysis.validation.retraining import Retraining
from cryoscape.analysis.validation.two_states import Population, main_motion, upper_population
from cryoscape.progress import ProgressReporter
from cryoscape.training.run import Run

_NAMES = {
    1: "split",
    2: "noise only",
    3: "homogeneous",
    6: "reference swap",
    7: "half sets",
    11: "calibration",
}
_OF_FULL = (6, 11)


def retrained_checks(
    run: Run,
    level: Level,
    *,
    motion_axis: NDArray | None = None,
    reference: Path | None = None,
    steps: int | None = None,
    seed: int = 0,
    rotation_sd: float = 0.0,
    shift_sd: float = 0.0,
    progress: ProgressReporter | None = None,
) -> list[Check]:
    """Train a run again on halves and nulls, and at the full level from other references and simulations.

    Everything is below RUN/validation; what is there and still fits is not made again.

    Parameters
    ----------
    run : Run
        Trained, with an embedding and its images at hand.
    level : Level
        Nothing at `quick`; checks 1, 2, 3 and 7 at `standard`; 6 and 11 as well at `full`.
    motion_axis : ndarray, optional
        Main motion: as many numbers as a decoded structure (N, 3) or map has. By default the first principal
        component of what the posterior means decode to.
    reference : Path, optional
        An independent model of the same residues, for the reference swap.
    steps : int, optional
        Optimiser steps of each training; by default as many for each image as in the run.
    seed : int
    rotation_sd, shift_sd : float
        Error of the poses, degrees and A, that the homogeneous null is made with.
    progress : ProgressReporter, optional

    Returns
    -------
    list of Check
        In the order of their numbers.

    Raises
    ------
    InputError
        If there are too few particles, or the independent model does not match.
    Interrupted
        After Ctrl-C or SIGTERM; the same call goes on from there.
    """
    if level is Level.QUICK:
        return []
    wanted = [number for number in _NAMES if level is Level.FULL or number not in _OF_FULL]
    if run.latents is not None:
        why = "the density stage has no encoder to train; validate the run that its latents are from"
        return [_not_run(number, why) for number in wanted]
    retraining = Retraining(run, steps, seed, progress)
    # The cross-correlation and the squared error have no spectrum of noise to simulate, and are not in nats.
    in_nats = run.image_model.likelihood.in_nats
    motion = main_motion(run, motion_axis)
    if reference is not None and run.has_structures:
        # Before hours of training.
        matched_model(run.structure, reference)
    half_sets = train_halves(retraining)
    populations: tuple[Population, Population] | None = None
    if in_nats and motion.moves:
        populations = (
            upper_population(half_sets.run_a, motion, seed=seed, progress=progress),
            upper_population(half_sets.run_b, motion, seed=seed, progress=progress),
        )
    found = [split_check(half_sets), half_set_check(half_sets, motion, populations, seed)]
    if level is Level.FULL:
        first = None if populations is None else populations[0]
        found.append(swap_check(retraining, half_sets, motion, first, reference))
    if in_nats:
        found += [noise_check(retraining), homogeneous_check(retraining, rotation_sd, shift_sd)]
        if level is Level.FULL:
            found.append(calibration_check(retraining, motion))
    done = {check.number for check in found}
    why = f"the {run.config.likelihood.kind} likelihood is not in nats, and has no noise to simulate"
    found += [_not_run(number, why) for number in wanted if number not in done]
    return sorted(found, key=lambda check: check.number)


def _not_run(number: int, why: str) -> Check:
    return Check(number, _NAMES[number], Status.NOT_RUN, f"Not run: {why}.")
