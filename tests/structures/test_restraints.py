from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cryoscape.structures import distances
from cryoscape.structures.restraints import (
    EdgeMoments,
    adaptive_keep,
    clash,
    edge_moments,
    find_pairs,
    harmonic,
    pair_distances,
)
from tests.structures.builders import make_model, walk


def brute_network(model, cutoff, same_chain=True):
    d = np.linalg.norm(model.coords[:, None].astype(float) - model.coords[None], axis=-1)
    i, j = np.nonzero(np.triu(d <= cutoff, 1))
    if same_chain:
        keep = model.chain_id[i] == model.chain_id[j]
        i, j = i[keep], j[keep]
    return set(zip(i.tolist(), j.tolist()))


def as_set(pairs):
    return {tuple(p) for p in pairs.tolist()}


def test_bonds_respect_chains_gaps_insertions_and_breaks():
    coords = np.arange(9)[:, None] * np.array([3.8, 0, 0])
    coords[8] += [20, 0, 0]
    numbers = [1, 2, 2, 3, 7, 8, 8, 9, 10]
    insertions = ["", "", "A", "", "", "", "", "", ""]
    chains = list("AAAAAABBB")
    pairs = find_pairs(make_model(coords, chains, numbers, insertions))
    # 3-7 is a gap, 5-6 another chain, 7-8 a break in space.
    assert as_set(pairs.bonds) == {(0, 1), (1, 2), (2, 3), (4, 5), (6, 7)}
    torch.testing.assert_close(pairs.bond_lengths, torch.full((5,), 3.8))
    assert as_set(pairs.excluded) == as_set(pairs.bonds) | {(0, 2), (1, 3), (3, 4)}


def test_network_is_the_brute_force_one_without_bonds():
    model = make_model(walk(60), ["A"] * 30 + ["B"] * 30)
    pairs = find_pairs(model, amino_cutoff=12.0)
    expected = brute_network(model, 12.0) - as_set(pairs.bonds)
    assert as_set(pairs.network) == expected
    assert pairs.network_chain.tolist() == [int(i >= 30) for i, _ in pairs.network.tolist()]
    d = np.linalg.norm(np.diff(model.coords[pairs.network.numpy()], axis=1)[:, 0], axis=1)
    np.testing.assert_allclose(pairs.network_lengths, d, rtol=1e-6)


def test_inter_chain_edges_only_for_nucleotides_unless_asked():
    coords = walk(40)
    chains = ["A"] * 10 + ["B"] * 10 + ["R"] * 10 + ["S"] * 10
    kind = np.repeat([0, 0, 1, 1], 10)
    model = make_model(coords, chains, kind=kind)
    chain = model.chain_index
    i, j = find_pairs(model).network.T.numpy()
    across = chain[i] != chain[j]
    assert across.any()
    assert (kind[i][across] == 1).all()
    assert (kind[j][across] == 1).all()
    d = np.linalg.norm(coords[i] - coords[j], axis=1)
    assert d[kind[i] == 1].max() > 12 >= d[kind[i] == 0].max()
    i, j = find_pairs(model, inter_chain=True).network.T.numpy()
    assert ((kind[i] == 0) & (kind[j] == 0) & (chain[i] != chain[j])).any()
    group = find_pairs(model).network_chain
    assert sorted(set(group.tolist())) == list(range(int(group.max()) + 1))
    assert group.max() == 4  # A, B, R, R-S, S


def test_a_single_residue_has_no_pairs():
    pairs = find_pairs(make_model(np.zeros((1, 3))))
    assert [len(p) for p in (pairs.bonds, pairs.network, pairs.excluded)] == [0, 0, 0]
    coords = torch.zeros(2, 1, 3)
    assert harmonic(pair_distances(coords, pairs.network), pairs.network_lengths).tolist() == [0, 0]


@pytest.mark.parametrize("chunk", [7, 2**18])
def test_distances_and_gradient(monkeypatch, chunk):
    monkeypatch.setattr(distances, "_CHUNK", chunk)
    generator = torch.Generator().manual_seed(1)
    coords = torch.randn(3, 6, 3, dtype=torch.float64, generator=generator, requires_grad=True)
    pairs = torch.combinations(torch.arange(6))
    expected = torch.stack([torch.cdist(c, c)[pairs[:, 0], pairs[:, 1]] for c in coords.detach()])
    torch.testing.assert_close(pair_distances(coords, pairs), expected)
    assert torch.autograd.gradcheck(lambda x: pair_distances(x, pairs), coords)


def test_coincident_residues_have_a_finite_gradient():
    coords = torch.zeros(1, 2, 3, requires_grad=True)
    harmonic(pair_distances(coords, torch.tensor([[0, 1]])), torch.tensor([3.8])).sum().backward()
    assert torch.isfinite(coords.grad).all()


def test_harmonic_by_hand():
    d = torch.tensor([[3.0, 5.0], [4.0, 4.0]])
    d0 = torch.tensor([4.0, 3.0])
    torch.testing.assert_close(harmonic(d, d0, kappa=2.0), torch.tensor([1.0 + 4.0, 1.0]))
    keep = torch.tensor([True, False])
    torch.testing.assert_close(harmonic(d, d0, kappa=2.0, keep=keep), torch.tensor([1.0, 0.0]))


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    percentile=st.floats(0, 100),
    statistic=st.sampled_from(["distance", "squared_error"]),
)
def test_adaptive_keep_is_numpy_percentile_by_chain(seed, percentile, statistic):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 30, 3)
    chain = rng.permutation(np.repeat(np.arange(3), sizes))
    d0 = rng.uniform(4, 12, len(chain))
    d = d0 + rng.normal(size=(8, len(chain))) * rng.uniform(0.1, 3, len(chain))
    variance = (d if statistic == "distance" else (d - d0) ** 2).var(axis=0)
    expected = np.zeros(len(chain), dtype=bool)
    for c in range(3):
        expected[chain == c] = variance[chain == c] <= np.percentile(variance[chain == c], percentile) * (
            1 + 1e-12
        )
    keep = adaptive_keep(*map(torch.as_tensor, (d, d0, chain)), percentile, statistic)
    np.testing.assert_array_equal(keep.numpy(), expected)


def test_moments_of_parts_combine_to_those_of_the_whole():
    d = torch.rand(10, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 4
    d0 = torch.full((5,), 4.2, dtype=torch.float64)
    whole = edge_moments(d, d0)
    parts = edge_moments(d[:3], d0).combine(edge_moments(d[3:], d0))
    assert isinstance(parts, EdgeMoments)
    assert parts.count == 10
    torch.testing.assert_close(parts.mean, d.mean(0))
    torch.testing.assert_close(parts.variance, d.var(0, correction=0))
    torch.testing.assert_close(parts.variance, whole.variance)
    chain = torch.zeros(5, dtype=torch.long)
    kept = adaptive_keep(d[:3], d0, chain, 50, variance=parts.variance)
    assert kept.sum() == 3


def test_adaptive_keep_refuses_a_fraction_out_of_range():
    with pytest.raises(ValueError, match="percentile"):
        adaptive_keep(torch.ones(2, 1), torch.ones(1), torch.zeros(1, dtype=torch.long), 120)


def test_clash_by_hand_and_gradient():
    coords = torch.tensor([[[0.0, 0, 0], [3.0, 0, 0], [0, 6.0, 0]], [[0, 0, 0], [5.0, 0, 0], [0, 2.0, 0]]])
    coords = coords.double().requires_grad_()
    pairs = torch.tensor([[0, 1], [0, 2], [1, 2]])
    energy = clash(coords, pairs, kappa=5.0)
    torch.testing.assert_close(energy, torch.tensor([2.5, 10.0], dtype=torch.float64))
    assert torch.autograd.gradcheck(lambda x: clash(x, pairs), coords)
    assert clash(coords, pairs[:0]).tolist() == [0, 0]
