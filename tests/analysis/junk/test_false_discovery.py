"""The cut against all sets there are."""

from itertools import combinations

import numpy as np
import pytest

from cryoscape.analysis.junk.false_discovery import call_junk


@pytest.mark.parametrize("rate", [0.02, 0.1, 0.3, 0.6])
def test_no_larger_set_keeps_the_rate(rate):
    rng = np.random.default_rng(2)
    for _ in range(20):
        good = rng.beta(0.4, 0.4, 9)
        called = call_junk(good, rate)
        largest = max(
            (n for n in range(1, 10) for some in combinations(good, n) if np.mean(some) <= rate), default=0
        )
        assert called.sum() == largest
        if largest:
            assert good[called].mean() <= rate
            assert good[called].max() <= good[~called].min(initial=1.0)


def test_nothing_and_everything():
    assert not call_junk(np.full(5, 0.9), 0.05).any()
    assert call_junk(np.zeros(5), 0.05).all()
