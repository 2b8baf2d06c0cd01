"""From numbers to a verdict on every motion.

The order of the questions: do images that were not trained on ask for the motion, beyond what images of one
object would? If not, would they have shown it? If they ask for it, would slightly wrong poses do as well, and
do the views agree on the populations?
"""

from __future__ import annotations

from typing import Any

from cryoscape.analysis.validation.evidence import MotionEvidence
from cryoscape.analysis.validation.gains import Mean
from cryoscape.analysis.validation.results import JudgedMotion, Verdict

SIGMAS = 3.0
"""Standard errors from which on a gain is real; `benchmarks/validation_nulls.py` shows what nulls reach."""

REFUTED = 0.25
"""A gain below this share of what the claim predicts, though it would be seen, refutes the claim."""

WHOLE = 0.95
"""A motion that is to so large a part (of squared displacement) a move of the whole is a matter of poses. A
domain of half the molecule that turns has 0.7."""


def judge(
    found: MotionEvidence,
    amplitude: float,
    floor: float,
    entangled: bool,
    entanglement: dict[str, Any],
    overlap: float | None,
    rigid: float | None = None,
) -> JudgedMotion:
    """Verdict on one motion.

    Parameters
    ----------
    found : MotionEvidence
    amplitude : float
        Standard deviation of the motion under the populations that the images give, in its unit.
    floor : float
        The 99th percentile of the same under the null.
    entangled : bool
        Whether views disagree on the populations of its two sides.
    entanglement : dict
        The numbers behind that.
    overlap : float or None
        With the soft modes of the restraints.
    rigid : float or None
        Share of it that is a move of the whole.
    """
    beyond = found.real.gain.less(Mean(max(float(found.null.mean()), 0.0), float(found.null.std(ddof=1))))
    posed = found.beyond_poses.less(_at_least_zero(found.null_beyond_poses))
    verdict, why = _decide(found, beyond, posed, entangled)
    if verdict is Verdict.SUPPORTED and rigid is not None and rigid > WHOLE:
        verdict, why = Verdict.POSE_ENTANGLED, f"{rigid:.0%} of it is a move of the whole: that is a pose"
    motion = found.motion
    claimed = motion.score
    values = {
        "unit": motion.unit,
        "share_of_variance": motion.share,
        "claimed_range": [float(claimed.min()), float(claimed.max())],
        "amplitude": amplitude,
        "amplitude_floor": floor,
        "gain": found.real.gain.value,
        "gain_error": found.real.gain.error,
        "null_gain": float(found.null.mean()),
        "null_gain_error": float(found.null.std(ddof=1)),
        "null_gain_largest": float(found.null.max()),
        "p_value": found.p_value,
        "expected_gain": found.expected.value,
        "expected_gain_error": found.expected.error,
        "gain_beyond_poses": found.beyond_poses.value,
        "gain_beyond_poses_error": found.beyond_poses.error,
        "sigmas": beyond.sigmas,
        "sigmas_beyond_poses": posed.sigmas,
        "overlap_with_restraints": overlap,
        "move_of_the_whole": rigid,
        "entanglement": entanglement,
    }
    return JudgedMotion(motion.name, motion.where, verdict, why, values)


def _at_least_zero(mean: Mean) -> Mean:
    return Mean(max(mean.value, 0.0), mean.error)


def _decide(found: MotionEvidence, beyond: Mean, posed: Mean, entangled: bool) -> tuple[Verdict, str]:
    gain, expected = found.real.gain, found.expected
    if beyond.sigmas < SIGMAS:
        missing = expected.less(gain)
        visible = expected.sigmas >= SIGMAS and missing.sigmas >= SIGMAS
        if visible and gain.value < REFUTED * expected.value:
            return (
                Verdict.PRIOR_LIMITED,
                f"it would be worth {expected.value:.2g} nats an image if it were as claimed, and the images "
                f"give {gain.value:+.2g} +- {gain.error:.1g}: model and restraints put it in",
            )
        return (
            Verdict.NULL,
            f"{gain.value:+.2g} +- {gain.error:.1g} nats an image on held-out images, "
            f"{found.null.mean():+.2g} +- {found.null.std(ddof=1):.1g} where nothing moves",
        )
    if posed.sigmas < SIGMAS:
        return (
            Verdict.POSE_ENTANGLED,
            f"{gain.value:.2g} +- {gain.error:.1g} nats an image, of which slightly wrong poses leave "
            f"{found.beyond_poses.value:+.2g} +- {found.beyond_poses.error:.1g}",
        )
    if entangled:
        return (
            Verdict.POSE_ENTANGLED,
            f"{gain.value:.2g} +- {gain.error:.1g} nats an image, but its populations follow the view",
        )
    return (
        Verdict.SUPPORTED,
        f"{gain.value:.2g} +- {gain.error:.1g} nats an image on held-out images "
        f"({found.null.mean():+.2g} where nothing moves), "
        f"{found.beyond_poses.value:.2g} beyond wrong poses",
    )
