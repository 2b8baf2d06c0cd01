"""Could a rigid move of each particle explain as much as the motion? A move is an error of its pose.

Four models are compared on held-out images: the best single structure and many structures in their
populations, each in the poses as given and with Gaussian errors of the poses of the size that suits it best.
What many structures gain over one, both with such errors, no rigid move explains.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from cryoscape.analysis.populations.ensemble_weights import fit_weights
from cryoscape.analysis.validation.pose_expansion import PoseExpansion, expand_poses, fit_pose_sd
from cryoscape.analysis.validation.results import Check, Status
from cryoscape.analysis.validation.simulated_images import ImageSource
from cryoscape.models.decoders.base import Scene
from cryoscape.models.likelihoods import GaussianLikelihood
from cryoscape.progress import ProgressReporter

Array = NDArray[np.float64]

NEEDED_ERRORS = 2.0
"""Standard errors by which the motion has to win over rigid moves: chance does so once in 44."""


@dataclass(frozen=True, eq=False)
class RigidBodyRivals:
    """Held-out log evidence of each image under four models, shape (n,), nats over pure noise.

    Attributes
    ----------
    single, many : ndarray
        The best single structure, and all of them in their populations, in the given poses.
    single_moved, many_moved : ndarray
        The same with pose errors of the size that suits each best.
    single_sd, many_sd : tuple of float
        Those errors, degrees about each axis and A in each direction.
    best : int
        The best single structure, with pose errors.
    """

    single: Array
    many: Array
    single_moved: Array
    many_moved: Array
    single_sd: tuple[float, float]
    many_sd: tuple[float, float]
    best: int


def rigid_body_rivals(
    likelihood: GaussianLikelihood,
    scenes: Sequence[Scene],
    images: ImageSource,
    training_rows: Tensor,
    held_out_rows: Tensor,
    *,
    progress: ProgressReporter | None = None,
) -> RigidBodyRivals:
    """Evidence of held-out images under one structure and many, with and without pose errors.

    All that is fitted, populations and sizes of the errors, is fitted to the training images. Their size is
    first found about the given poses; the integrals are then done about the most likely ones, because errors
    of several degrees are not small: about the given poses they would be taken for a motion.

    Parameters
    ----------
    likelihood : GaussianLikelihood
    scenes : sequence of Scene, length K
        Structures that cover the motion, of one object each.
    images : callable
        Batches of rows (B,).
    training_rows, held_out_rows : Tensor, int64
        A few hundred of each are enough; every one costs 28 K projections.
    progress : ProgressReporter, optional

    Returns
    -------
    RigidBodyRivals

    Raises
    ------
    InputError
        If the likelihood is not in nats.
    """
    rows = (training_rows, held_out_rows)
    given = [expand_poses(likelihood, scenes, images, some, progress=progress) for some in rows]
    errors = fit_pose_sd(given[0], fit_weights(given[0].value, resamples=0).weight)
    if max(errors) == 0:
        return compare_with_rigid_moves(*given, *given)
    moved = [
        expand_poses(likelihood, scenes, images, some, prior_sd=errors, progress=progress) for some in rows
    ]
    return compare_with_rigid_moves(*given, *moved)


def compare_with_rigid_moves(
    training: PoseExpansion,
    held_out: PoseExpansion,
    training_moved: PoseExpansion,
    held_out_moved: PoseExpansion,
) -> RigidBodyRivals:
    """Fit the four models to expansions of training images and judge held-out ones.

    Parameters
    ----------
    training, held_out : PoseExpansion
        About the given poses, of the same K structures.
    training_moved, held_out_moved : PoseExpansion
        Of the same images, about the most likely poses.

    Returns
    -------
    RigidBodyRivals
    """
    alone = int(training.value.mean(axis=0).argmax())
    each = [_fit_single(training_moved.of(k)) for k in range(training.value.shape[1])]
    best = int(np.argmax([evidence for _, evidence in each]))
    single_sd = each[best][0]
    plain = fit_weights(training.value, resamples=0).weight
    weight, many_sd = plain, single_sd
    # Populations and errors in turns; a second turn changes the last digits.
    for _ in range(2):
        many_sd = fit_pose_sd(training_moved, weight)
        weight = fit_weights(training_moved.evidence(*many_sd), resamples=0).weight
    return RigidBodyRivals(
        held_out.value[:, alone],
        _mixed(held_out.value, plain),
        held_out_moved.of(best).evidence(*single_sd)[:, 0],
        _mixed(held_out_moved.evidence(*many_sd), weight),
        single_sd,
        many_sd,
        best,
    )


def _fit_single(expansion: PoseExpansion) -> tuple[tuple[float, float], float]:
    sds = fit_pose_sd(expansion, np.ones(1))
    return sds, float(expansion.evidence(*sds).mean())


def _mixed(table: Array, weight: Array) -> Array:
    """Log of the sum of weighted likelihoods, shape (n,)."""
    with np.errstate(divide="ignore"):
        return np.logaddexp.reduce(table + np.log(weight), axis=1)


def rigid_body_check(rivals: RigidBodyRivals) -> Check:
    """Whether the motion explains held-out images better than pose errors of one structure do.

    Parameters
    ----------
    rivals : RigidBodyRivals

    Returns
    -------
    Check
        Passed where the gain of many structures with pose errors over one with pose errors exceeds two
        standard errors.
    """
    motion, motion_error = _mean(rivals.many - rivals.single)
    rigid, rigid_error = _mean(rivals.single_moved - rivals.single)
    beyond, beyond_error = _mean(rivals.many_moved - rivals.single_moved)
    status = Status.PASSED if beyond > NEEDED_ERRORS * beyond_error else Status.FAILED
    text = (
        f"Beyond rigid moves of the particles the motion explains {beyond:+.3f} +- {beyond_error:.3f} nats a "
        f"held-out image; in the poses as given it explains {motion:+.3f} +- {motion_error:.3f}, and "
        f"rigid moves of one structure ({rivals.single_sd[0]:.2g} degrees, {rivals.single_sd[1]:.2g} A) "
        f"explain {rigid:+.3f} +- {rigid_error:.3f}."
    )
    values = {
        "motion": motion,
        "motion_error": motion_error,
        "rigid": rigid,
        "rigid_error": rigid_error,
        "beyond_rigid": beyond,
        "beyond_rigid_error": beyond_error,
        "rotation_sd_single": rivals.single_sd[0],
        "shift_sd_single": rivals.single_sd[1],
        "rotation_sd_many": rivals.many_sd[0],
        "shift_sd_many": rivals.many_sd[1],
        "images": len(rivals.single),
    }
    return Check(8, "rigid moves", status, text, values)


def _mean(difference: Array) -> tuple[float, float]:
    """Mean and its standard error."""
    return float(difference.mean()), float(difference.std(ddof=1) / math.sqrt(len(difference)))
