"""Scores of junk against scores of particles."""

from types import SimpleNamespace

import numpy as np
import pytest

from cryoscape.analysis.evaluation.junk import evaluate_junk
from cryoscape.errors import InputError


def test_the_number_is_the_share_of_pairs_in_order():
    rng = np.random.default_rng(0)
    junk = np.arange(60) % 3 == 0
    elbo, gain, log_prior = rng.normal(size=(3, 60)) - np.outer([2.0, 0.0, 0.7], junk)
    found = evaluate_junk(SimpleNamespace(elbo=elbo, gain=gain, log_prior=log_prior), junk)
    assert (found.particles, found.junk) == (40, 20)
    for name, score in (("evidence", elbo), ("gain", gain), ("log_prior", log_prior)):
        pairs = score[junk][:, None] < score[~junk]
        assert getattr(found, name) == pytest.approx(pairs.mean())


@pytest.mark.parametrize("junk", [np.zeros(5, bool), np.ones(5, bool)])
def test_nothing_is_said_where_there_is_nothing_to_tell_apart(junk):
    scores = np.arange(5.0)
    assert evaluate_junk(SimpleNamespace(elbo=scores, gain=scores, log_prior=scores), junk) is None


def test_the_score_of_the_junk_command(tmp_path):
    rng = np.random.default_rng(3)
    junk, uid = np.arange(60) % 3 == 0, np.arange(60, dtype=np.uint64)
    columns = rng.normal(size=(3, 60))
    embedding = SimpleNamespace(uid=uid, elbo=columns[0], gain=columns[1], log_prior=columns[2])
    assert evaluate_junk(embedding, junk, tmp_path).posterior is None
    odds = rng.normal(size=60) + 1.5 * junk
    (tmp_path / "analysis").mkdir()
    path = tmp_path / "analysis" / "junk.npz"
    np.savez(path, uid=uid, log_odds=odds)
    expected = (odds[junk][:, None] > odds[~junk]).mean()
    assert evaluate_junk(embedding, junk, tmp_path).posterior == pytest.approx(expected)
    assert evaluate_junk(embedding, junk).posterior is None
    np.savez(path, uid=uid[::-1], log_odds=odds)
    assert evaluate_junk(embedding, junk, tmp_path).posterior is None
    path.write_bytes(b"spoilt")
    with pytest.raises(InputError, match="cannot be read"):
        evaluate_junk(embedding, junk, tmp_path)
