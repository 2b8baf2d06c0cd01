"""Scores of junk against scores of particles."""

from types import SimpleNamespace

import numpy as np
import pytest

from cryoscape.analysis.junk_evaluation import evaluate_junk


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
