import numpy as np
import pytest

from cryoscape.analysis.evaluation.latent_metrics import (
    compare_descriptions,
    information_imbalance,
    neighbour_ranks,
    neighbourhood_similarity,
)


def ranks_by_hand(points, order):
    """Rank of j seen from i, ties broken by `order`: one particle after another, by Python's sort."""
    n = len(points)
    ranks = np.zeros((n, n), dtype=int)
    for i in range(n):
        distance = [float(np.round(np.sqrt(((points[i] - points[j]) ** 2).sum()), 12)) for j in range(n)]
        others = sorted((j for j in range(n) if j != i), key=lambda j: (distance[j], order[j]))
        for rank, j in enumerate(others, 1):
            ranks[i, j] = rank
    return ranks


def imbalance_by_hand(a, b):
    n = len(a)
    return 2 / n * np.mean([b[i, int(np.flatnonzero(a[i] == 1)[0])] for i in range(n)])


def shared_by_hand(a, b, k):
    """With the particle itself (rank 0), as CryoBench counts."""
    return np.mean([sum(a[i, j] <= k and b[i, j] <= k for j in range(len(a))) for i in range(len(a))])


def test_five_points_worked_out_on_paper():
    """A on a line at 0, 1, 3, 7, 15; in B the last two have changed places with the first two."""
    a, b = neighbour_ranks([0.0, 1, 3, 7, 15]), neighbour_ranks([7.0, 15, 3, 0, 1])
    np.testing.assert_array_equal(
        a.low, [[0, 1, 2, 3, 4], [1, 0, 2, 3, 4], [2, 1, 0, 3, 4], [3, 2, 1, 0, 4], [4, 3, 2, 1, 0]]
    )
    np.testing.assert_array_equal(a.low, a.high)
    np.testing.assert_array_equal(
        b.low, [[0, 4, 1, 3, 2], [1, 0, 2, 4, 3], [3, 4, 0, 2, 1], [3, 4, 2, 0, 1], [3, 4, 2, 1, 0]]
    )
    # Nearest in A: 1, 0, 1, 2, 3; their ranks in B: 4, 1, 4, 2, 1.
    assert information_imbalance(a, b) == pytest.approx(2 / 5 * (4 + 1 + 4 + 2 + 1) / 5)
    # Nearest in B: 2, 0, 4, 4, 3; their ranks in A: 2, 1, 4, 4, 1.
    assert information_imbalance(b, a) == pytest.approx(2 / 5 * (2 + 1 + 4 + 4 + 1) / 5)
    # Two nearest in A 12, 02, 01, 12, 23; in B 24, 02, 34, 24, 23: shared 1, 2, 0, 1, 2.
    found = neighbourhood_similarity(a, b, 2)
    assert found.fraction == pytest.approx((1 + 2 + 0 + 1 + 2) / 10)
    assert found.shared == pytest.approx(1 + 6 / 5)
    assert found.floor == pytest.approx(2 / 4)
    assert found.best == 1


def test_against_loops_without_ties():
    rng = np.random.default_rng(0)
    a = rng.standard_normal((40, 2))
    b = np.concatenate([a + 0.5 * rng.standard_normal((40, 2)), rng.standard_normal((40, 3))], axis=1)
    plain = [ranks_by_hand(p, np.arange(40)) for p in (a, b)]
    ranks = [neighbour_ranks(p) for p in (a, b)]
    for mine, theirs in zip(ranks, plain):
        np.testing.assert_array_equal(mine.low, theirs)
        np.testing.assert_array_equal(mine.high, theirs)
    assert information_imbalance(*ranks) == pytest.approx(imbalance_by_hand(*plain))
    assert information_imbalance(*ranks[::-1]) == pytest.approx(imbalance_by_hand(*plain[::-1]))
    for k in (1, 5, 39):
        found = neighbourhood_similarity(*ranks, k)
        assert found.shared == pytest.approx(shared_by_hand(*plain, k))
        assert found.fraction == pytest.approx((found.shared - 1) / k)


def test_ties_are_the_mean_over_ways_of_breaking_them():
    rng = np.random.default_rng(1)
    state = rng.integers(0, 4, 24)
    a, b = np.sort(rng.random(4))[state][:, None], rng.standard_normal((24, 2))
    tied, plain = neighbour_ranks(a), neighbour_ranks(b)
    into, out, shared = [], [], []
    hand_b = ranks_by_hand(b, np.arange(24))
    for _ in range(600):
        # A new order for every row, as if every particle broke its own ties.
        hand_a = np.stack([ranks_by_hand_row(a, i, rng.permutation(24)) for i in range(24)])
        into.append(imbalance_by_hand(hand_b, hand_a))
        out.append(imbalance_by_hand(hand_a, hand_b))
        shared.append(shared_by_hand(hand_a, hand_b, 7))
    for found, sample in (
        (information_imbalance(plain, tied), into),
        (information_imbalance(tied, plain), out),
        (neighbourhood_similarity(tied, plain, 7).shared, shared),
    ):
        assert found == pytest.approx(np.mean(sample), abs=5 * np.std(sample) / np.sqrt(len(sample)))
        assert np.std(sample) > 0


def ranks_by_hand_row(points, i, order):
    distance = np.round(np.abs(points - points[i]).sum(axis=1), 12)
    rank = np.empty(len(points), dtype=int)
    distance[i] = -1
    rank[np.lexsort([order, distance])] = np.arange(len(points))
    return rank


def test_best_is_reached_by_codes_that_know_the_state():
    rng = np.random.default_rng(2)
    state = rng.integers(0, 5, 120)
    # Distances between the states all differ, and the scatter within them is far smaller.
    level = np.array([0.0, 1, 3, 7, 15])[state]
    truth = neighbour_ranks(level)
    codes = neighbour_ranks(np.stack([level, 1e-3 * rng.standard_normal(120)], axis=1))
    for k in (3, 30, 60):
        found = neighbourhood_similarity(truth, codes, k)
        assert found.fraction == pytest.approx(found.best, abs=0.04)
        assert found.best < 1
        assert neighbourhood_similarity(truth, truth, k).fraction == pytest.approx(found.best)
    found = compare_descriptions("truth", codes, truth)
    counts = np.bincount(state)
    assert found.best == pytest.approx(np.mean(counts[state]) / 120)
    assert found.from_codes == pytest.approx(found.best)
    assert found.to_codes == pytest.approx(found.best, abs=0.02)


def test_codes_that_know_nothing_are_at_the_floor():
    rng = np.random.default_rng(3)
    state = rng.integers(0, 6, 300)
    truth, codes = neighbour_ranks(state), neighbour_ranks(rng.standard_normal((300, 3)))
    found = compare_descriptions("truth", codes, truth, shuffles=20)
    assert found.floor == pytest.approx(1, abs=0.05)
    assert 0 < found.floor_sd < 0.05
    assert abs(found.from_codes - found.floor) < 4 * found.floor_sd
    assert found.to_codes == pytest.approx(1, abs=0.1)
    neighbours = neighbourhood_similarity(truth, codes, 30)
    assert neighbours.fraction == pytest.approx(neighbours.floor, abs=0.01)


def test_codes_that_have_collapsed_know_nothing():
    truth = neighbour_ranks(np.arange(30.0))
    codes = neighbour_ranks(np.ones((30, 4)))
    assert neighbourhood_similarity(truth, codes, 5).fraction == pytest.approx(5 / 29)
    assert information_imbalance(codes, truth) == pytest.approx(1)
    assert information_imbalance(truth, codes) == pytest.approx(1)


def test_asymmetry_tells_which_description_holds_the_other():
    rng = np.random.default_rng(4)
    both = rng.random((200, 2))
    whole, part = neighbour_ranks(both), neighbour_ranks(both[:, 0])
    assert information_imbalance(whole, part) < 0.2
    assert information_imbalance(part, whole) > 0.4


def test_what_has_no_neighbours():
    with pytest.raises(ValueError, match="three or more"):
        neighbour_ranks(np.zeros((2, 3)))
    with pytest.raises(ValueError, match="finite"):
        neighbour_ranks([0.0, np.nan, 1.0])
    ranks = neighbour_ranks(np.arange(5.0))
    with pytest.raises(ValueError, match="no 5 neighbours"):
        neighbourhood_similarity(ranks, ranks, 5)
