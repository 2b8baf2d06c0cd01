import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cryoscape.training.sampling import BatchOrder, held_out_mask, step_generator


@settings(max_examples=25, deadline=None)
@given(n=st.integers(1, 60), batch=st.integers(1, 80), seed=st.integers(0, 5))
def test_every_particle_comes_once_a_pass(n, batch, seed):
    rows = np.arange(n) * 3 + 1
    order = BatchOrder(rows, batch, seed)
    size = min(batch, n)
    stream = torch.cat([order.at(s) for s in range(3 * n // size + 1)]).tolist()
    for start in range(0, 3 * n, n):
        assert sorted(stream[start : start + n]) == rows.tolist()


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 200), min_size=1, max_size=10))
def test_a_batch_depends_on_its_step_alone(steps):
    order = BatchOrder(np.arange(50), 16, 3)
    for step in steps:
        assert torch.equal(order.at(step), BatchOrder(np.arange(50), 16, 3).at(step))


def test_passes_and_seeds_are_shuffled_differently():
    order, other = (BatchOrder(np.arange(64), 64, s) for s in (0, 1))
    assert not torch.equal(order.at(0), order.at(1))
    assert not torch.equal(order.at(0), other.at(0))
    assert not torch.equal(order.at(0), torch.arange(64))


@pytest.mark.parametrize(
    ("n", "fraction", "count"), [(1000, 0.05, 50), (10, 0.05, 0), (1, 0.4, 0), (3, 0.49, 1)]
)
def test_how_many_are_held_out(n, fraction, count):
    mask = held_out_mask(n, fraction, 0)
    assert mask.dtype == bool
    assert mask.shape == (n,)
    assert mask.sum() == count


def test_who_is_held_out_depends_on_the_seed_alone():
    assert np.array_equal(held_out_mask(500, 0.1, 4), held_out_mask(500, 0.1, 4))
    assert not np.array_equal(held_out_mask(500, 0.1, 4), held_out_mask(500, 0.1, 5))


def test_noise_of_a_step():
    a, b, c, d = (torch.randn(4, generator=step_generator(*x)) for x in ((0, 1), (0, 1), (0, 2), (1, 1)))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    assert not torch.equal(a, d)
