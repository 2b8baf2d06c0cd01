from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cryoscape.structures.neighbours import NeighbourList
from cryoscape.structures.restraints import clash, find_pairs
from tests.structures.builders import make_model, walk

NONE = torch.zeros(0, 2, dtype=torch.long)


def brute(coords, radius):
    """Pairs closer than the radius in any structure, from the full table of distances."""
    near = (torch.cdist(coords, coords, compute_mode="donot_use_mm_for_euclid_dist") < radius).any(0)
    return {tuple(p) for p in torch.nonzero(near.triu(1)).tolist()}


def as_set(pairs):
    return {tuple(p) for p in pairs.tolist()}


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), speed=st.floats(0.01, 3.0), skin=st.floats(0.0, 3.0))
def test_exact_list_never_misses_a_clash(seed, speed, skin):
    generator = torch.Generator().manual_seed(seed)
    coords = 12 * torch.rand(3, 25, 3, generator=generator)
    neighbours = NeighbourList(NONE, skin=skin, exact=True)
    for _ in range(12):
        assert as_set(neighbours.pairs(coords)) >= brute(coords, 4.0)
        coords = coords + speed * torch.randn(coords.shape, generator=generator) / 4


def test_exact_list_is_rebuilt_only_when_needed():
    coords = 12 * torch.rand(2, 25, 3, generator=torch.Generator().manual_seed(0))
    neighbours = NeighbourList(NONE, skin=2.0, exact=True)
    neighbours.pairs(coords)
    neighbours.pairs(coords + torch.tensor([0.99, 0, 0]))
    assert neighbours.n_examined == 2
    neighbours.pairs(coords + torch.tensor([1.01, 0, 0]))
    assert neighbours.n_examined == 4


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), batch=st.integers(1, 20), every=st.integers(1, 9))
def test_rotation_finds_a_lasting_clash_in_time(seed, batch, every):
    generator = torch.Generator().manual_seed(seed)
    far = 60 * torch.rand(batch, 20, 3, generator=generator)
    neighbours = NeighbourList(NONE, every=every)
    neighbours.pairs(far)
    close = 12 * torch.rand(batch, 20, 3, generator=generator)
    for _ in range(every):
        pairs = neighbours.pairs(close)
    assert as_set(pairs) >= brute(close, 4.0)


def test_rotation_spreads_the_work_and_forgets():
    generator = torch.Generator().manual_seed(0)
    close, far = (
        10 * torch.rand(8, 20, 3, generator=generator),
        1000 * torch.rand(8, 20, 3, generator=generator),
    )
    neighbours = NeighbourList(NONE, every=4)
    first = len(neighbours.pairs(close))
    assert neighbours.n_examined == 8
    assert len(neighbours.pairs(far)) == first
    assert neighbours.n_examined == 10
    for _ in range(15):
        last = neighbours.pairs(far)
    assert len(last) == len(brute(far, 6.0)) == 0
    assert first > 50


def test_excluded_pairs_are_never_listed_in_either_order():
    model = make_model(walk(40))
    pairs = find_pairs(model)
    coords = torch.as_tensor(model.coords)[None] * 0.3
    listed = as_set(NeighbourList(pairs.excluded, skin=0.0).pairs(coords))
    assert listed == brute(coords, 4.0) - as_set(pairs.excluded)
    assert as_set(NeighbourList(pairs.excluded.flip(1), skin=0.0).pairs(coords)) == listed


def test_clash_energy_of_the_list_equals_that_of_all_pairs():
    model = make_model(walk(60))
    pairs = find_pairs(model)
    generator = torch.Generator().manual_seed(3)
    coords = torch.as_tensor(model.coords)[None] * 0.6 + torch.randn(5, 60, 3, generator=generator)
    every_pair = as_set(torch.combinations(torch.arange(60))) - as_set(pairs.excluded)
    expected = clash(coords, torch.tensor(sorted(every_pair)))
    assert (expected > 0).all()
    torch.testing.assert_close(clash(coords, NeighbourList(pairs.excluded).pairs(coords)), expected)


def test_another_number_of_residues_starts_afresh():
    neighbours = NeighbourList(torch.tensor([[0, 1]]))
    neighbours.pairs(torch.rand(2, 10, 3))
    pairs = neighbours.pairs(torch.rand(2, 5, 3))
    assert as_set(pairs) == as_set(torch.combinations(torch.arange(5))) - {(0, 1)}


def test_settings_are_checked():
    with pytest.raises(ValueError, match="every"):
        NeighbourList(NONE, every=0)
    assert np.isclose(NeighbourList(NONE).cutoff, 4.0)
