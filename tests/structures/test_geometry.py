from __future__ import annotations

import numpy as np
import pytest

from cryoscape.structures.geometry import geometry_report
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
