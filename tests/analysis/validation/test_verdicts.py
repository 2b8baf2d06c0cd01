"""The order of questions behind a verdict."""

from types import SimpleNamespace

import numpy as np
import pytest

from cryoscape.analysis.validation.gains import Mean
from cryoscape.analysis.validation.results import Check, Level, ReportCard, Status, Verdict
from cryoscape.analysis.validation.verdicts import judge

MOTION = SimpleNamespace(name="motion 1", where="A:1-9", score=np.array([-1.0, 1.0]), unit="A", share=0.9)


REAL, POSED = Mean(1.0, 0.05), Mean(0.8, 0.05)


def verdict(gain, *, expected=REAL, posed=POSED, entangled=False, null=0.0, rigid=0.6):
    found = SimpleNamespace(
        motion=MOTION,
        real=SimpleNamespace(gain=gain),
        null=null + 0.01 * np.linspace(-1, 1, 40),
        p_value=0.5,
        expected=expected,
        beyond_poses=posed,
        null_beyond_poses=Mean(0.0, 0.02),
    )
    return judge(found, 1.0, 0.1, entangled, {}, 0.5, rigid)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"gain": Mean(1.0, 0.05)}, Verdict.SUPPORTED),
        ({"gain": Mean(0.02, 0.05), "expected": Mean(0.05, 0.05)}, Verdict.NULL),
        ({"gain": Mean(0.02, 0.05), "expected": Mean(2.0, 0.05)}, Verdict.PRIOR_LIMITED),
        # Half of what is claimed, but not significant: neither supported nor refuted.
        ({"gain": Mean(0.5, 0.3), "expected": Mean(1.0, 0.1)}, Verdict.NULL),
        ({"gain": Mean(1.0, 0.05), "posed": Mean(0.05, 0.05)}, Verdict.POSE_ENTANGLED),
        ({"gain": Mean(1.0, 0.05), "entangled": True}, Verdict.POSE_ENTANGLED),
        ({"gain": Mean(1.0, 0.05), "rigid": 0.99}, Verdict.POSE_ENTANGLED),
        # A gain that images of one structure have as well is none.
        ({"gain": Mean(0.3, 0.02), "null": 0.28, "expected": Mean(0.3, 0.02)}, Verdict.NULL),
    ],
)
def test_verdict(settings, expected):
    found = verdict(**settings)
    assert found.verdict is expected
    assert "nats" in found.why or "whole" in found.why


def test_a_card_is_read_back_as_it_was_written(tmp_path):
    check = Check(3, "one structure alone", Status.FAILED, "0.1 nats", {"gain": 0.1})
    card = ReportCard(Level.QUICK, "cryoscape", (verdict(Mean(1.0, 0.05)),), (check,), ("w",), {"seed": 0})
    card.write(tmp_path)
    again = ReportCard.read(tmp_path)
    assert again == card
    assert not again.sound
    more = again.with_checks([Check(3, "x", Status.PASSED, "0 nats"), Check(7, "halves", Status.PASSED, "")])
    assert [(one.number, one.status) for one in more.checks] == [(3, Status.FAILED), (7, Status.PASSED)]
    assert more.checks[0].text == "0.1 nats. Trained again: 0 nats"
    unrun = Check(7, "half-sets", Status.NOT_RUN, "needs training")
    assert unrun.joined(more.checks[1]) == Check(7, "half-sets", Status.PASSED, "")
    assert ReportCard.read(tmp_path / "nowhere") is None
