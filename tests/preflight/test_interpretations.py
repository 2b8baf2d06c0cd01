"""The choice between readings, on made-up scores."""

from cryoscape.preflight.interpretations import HANDS, Candidate, choose

MIRROR = "mirrored in z"


def candidate(frame="corner", hand="as read", sign=1, score=0.1, z=1.0, offset=(0.0, 0.0, 0.0)):
    return Candidate(frame, hand, sign, offset, score, z)


def table(*known):
    """All frames and hands with poor scores, save those given."""
    special = {(c.frame, c.hand): c for c in known}
    return [special.get((f, h), candidate(f, h)) for f in ("corner", "centre", "centroid") for h in HANDS]


NOWHERE = candidate("moved", score=0.2, z=2.0)


def test_the_best_frame_wins_when_it_is_clearly_best():
    best = candidate("centre", score=0.9, z=20.0)
    assert choose(table(best), NOWHERE) == (best, ())


def test_the_usual_frame_wins_when_it_is_nearly_as_good():
    corner = candidate("corner", score=0.72, z=14.0)
    assert choose(table(corner, candidate("centroid", score=0.9, z=18.0)), NOWHERE)[0] == corner
    far = candidate("corner", score=0.6, z=11.0)
    assert choose(table(far, candidate("centroid", score=0.9, z=18.0)), NOWHERE)[0].frame == "centroid"


def test_a_frame_of_the_other_sign_is_not_nearly_as_good():
    best = candidate("centroid", sign=-1, score=0.9, z=18.0)
    assert choose(table(candidate("corner", score=0.8, z=9.0), best), NOWHERE)[0] == best


def test_the_hand_changes_only_on_evidence():
    mirrored, as_read = candidate(hand=MIRROR, score=0.8, z=9.0), candidate(score=0.78, z=7.5)
    winner, notes = choose(table(as_read, mirrored), NOWHERE)
    assert winner == as_read
    assert "hand cannot be told" in notes[0]
    assert choose(table(candidate(score=0.5, z=6.0), mirrored), NOWHERE) == (mirrored, ())


def test_a_moved_model_counts_only_where_no_frame_fits():
    moved = candidate("moved", score=0.9, z=15.0, offset=(5.0, 0.0, 0.0))
    winner, notes = choose(table(), moved)
    assert winner == moved
    assert "docked" in notes[0]
    assert choose(table(), candidate("moved", score=0.4, z=6.0))[0].frame == "corner"
    fitting = candidate(score=0.5, z=9.0)
    winner, notes = choose(table(fitting), moved)
    assert winner == fitting
    assert "moved by (-5.0, 0.0, 0.0) A" in notes[0]


def test_without_evidence_nothing_is_changed():
    best = candidate("centroid", MIRROR, sign=-1, score=0.3, z=3.0)
    winner, notes = choose(table(best), NOWHERE)
    assert (winner.frame, winner.hand, winner.sign) == ("corner", "as read", 1)
    assert (winner.score, winner.z) == (0.3, 3.0)
    assert notes == ()
