from __future__ import annotations

import numpy as np
import pytest

from cryoscape.structures.geometry import bond_deviation, clash_counts, geometry_report
from cryoscape.structures.restraints import find_pairs
from tests.structures.builders import make_model, walk


def test_reference_is_clean_and_faults_are_counted():
    model = make_model(walk(40))
    pairs = find_pairs(model)
    stretched = model.coords * 1.1
    knotted = model.coords.copy()
    knotted[30] = knotted[5] + [0.5, 0, 0]
    report = geometry_report([model.coords, stretched, knotted], pairs)
    np.testing.assert_allclose(report.bond_rms[:2], [0, 0.38], atol=1e-5)
    d = np.linalg.norm(knotted[:, None] - knotted[None], axis=-1)
    assert report.n_clashes.tolist() == [0, 0, int((d[np.triu_indices(40, 3)] <= 4).sum())]
    assert report.n_clashes[2] >= 1
    before, after = (np.linalg.norm(np.diff(x, axis=0), axis=1) for x in (model.coords, knotted))
    assert report.bond_worst[2] == pytest.approx(np.abs(after - before).max(), rel=1e-5)
    assert report.summary()["structures_with_clashes"] == pytest.approx(1 / 3)
    assert report.n_bonds == 39


def test_a_model_without_bonds():
    model = make_model(np.array([[0.0, 0, 0], [50, 0, 0]]))
    report = geometry_report(model.coords[None] * 0.01, find_pairs(model))
    assert report.bond_rms.tolist() == [0]
    assert report.n_clashes.tolist() == [1]
    with pytest.raises(ValueError, match="shape"):
        geometry_report(model.coords, find_pairs(model))


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
