import numpy as np

from cryoscape.analysis.geometry import bond_deviation, clash_counts


def test_bond_deviation_of_a_stretched_chain():
    line = np.zeros((1, 5, 3))
    line[0, :, 0] = 4.0 * np.arange(5)
    bonds = np.stack([np.arange(4), np.arange(1, 5)], axis=1)
    np.testing.assert_allclose(bond_deviation(line, bonds, np.full(4, 3.8)), 0.2)
    np.testing.assert_allclose(bond_deviation(line, np.zeros((0, 2), int), np.zeros(0)), 0)


def test_clashes_are_close_pairs_without_a_bond():
    points = np.array([[[0, 0, 0], [3.8, 0, 0], [7.6, 0, 0], [7.6, 3.0, 0], [30, 0, 0]]], dtype=float)
    bonds = np.array([[0, 1], [2, 1]])
    assert clash_counts(points, bonds)[0] == 1
    assert clash_counts(points, bonds, cutoff=2.0)[0] == 0
    # The bonds (0, 1) and (1, 2) no longer excuse their pairs.
    assert clash_counts(points, np.zeros((0, 2), int))[0] == 3
