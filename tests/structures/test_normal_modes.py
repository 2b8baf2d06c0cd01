from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial import cKDTree

from cryoscape.errors import InputError
from cryoscape.structures import normal_modes
from cryoscape.structures.normal_modes import anisotropic_network_modes
from tests.structures.builders import walk


def test_modes_are_orthonormal_and_hold_no_rigid_motion():
    coords = walk(80)
    frequencies, modes = anisotropic_network_modes(coords, n_modes=10, cutoff=15.0)
    flat = modes.reshape(10, -1)
    np.testing.assert_allclose(flat @ flat.T, np.eye(10), atol=1e-8)
    assert (np.diff(frequencies) >= 0).all()
    assert frequencies[0] > 1e-3
    np.testing.assert_allclose(modes.sum(axis=1), 0, atol=1e-7)
    np.testing.assert_allclose(np.cross(coords - coords.mean(0), modes).sum(axis=1), 0, atol=1e-5)
    assert (flat[np.arange(10), np.abs(flat).argmax(1)] > 0).all()


def test_sparse_and_dense_solvers_agree(monkeypatch):
    coords = walk(60)
    dense = anisotropic_network_modes(coords, n_modes=6, cutoff=15.0)
    monkeypatch.setattr(normal_modes, "_DENSE", 0)
    sparse = anisotropic_network_modes(coords, n_modes=6, cutoff=15.0)
    np.testing.assert_allclose(sparse[0], dense[0], rtol=1e-7)
    np.testing.assert_allclose(np.abs(np.sum(sparse[1] * dense[1], axis=(1, 2))), 1, atol=1e-6)


@pytest.mark.parametrize("n", [30, 300])
def test_a_loose_piece_is_refused_with_the_cutoff_that_mends_it(n):
    one, other = walk(n), walk(n, seed=1) + np.array([250, 0, 0])
    with pytest.raises(InputError, match="2 separate pieces") as caught:
        anisotropic_network_modes(np.concatenate([one, other]))
    cutoff = float(caught.value.remedy.split("at least ")[1].split(" A")[0])
    assert cutoff == np.ceil(cKDTree(one).query(other)[0].min())


def test_free_motions_of_a_floppy_end_are_left_out():
    # A bead on one spring moves sideways for nothing: eight motions without cost.
    core = walk(30)
    out = core[np.argmax(np.linalg.norm(core - core.mean(0), axis=1))]
    end = out + (out - core.mean(0)) / np.linalg.norm(out - core.mean(0)) * 14.9
    coords = np.vstack([core, end])
    assert (np.linalg.norm(core - end, axis=1) < 15).sum() == 1
    frequencies, _ = anisotropic_network_modes(coords, n_modes=5, cutoff=15.0)
    assert frequencies[0] > 1e-2


def test_too_many_modes():
    with pytest.raises(InputError, match="9 residues have 21"):
        anisotropic_network_modes(walk(9), n_modes=22, cutoff=40.0)
