"""Normal modes against ProDy and against a dense formula that shares no code with ours."""

from __future__ import annotations

import numpy as np
import pytest

from cryoscape.structures import normal_modes
from cryoscape.structures.normal_modes import anisotropic_network_modes


@pytest.fixture
def coords():
    """A helix folded on itself: a compact chain with low modes that are well apart."""
    t = np.arange(90)
    radius = 8 + 0.05 * t
    angle = np.deg2rad(100) * t
    helix = np.stack([2.3 * np.cos(angle), 2.3 * np.sin(angle), np.zeros(90)], axis=1)
    axis = np.stack([radius * np.cos(0.08 * t), radius * np.sin(0.08 * t), 0.35 * t], axis=1)
    return helix + axis


def numerical_eigenvalues(coords, cutoff):
    """Eigenvalues of the Hessian of the spring energy by automatic differentiation."""
    import torch

    x0 = torch.as_tensor(coords)
    d0 = torch.cdist(x0, x0, compute_mode="donot_use_mm_for_euclid_dist")
    i, j = torch.nonzero(torch.triu(d0 <= cutoff, 1)).T

    def energy(flat):
        x = flat.view(-1, 3)
        d = (x[i] - x[j]).square().sum(-1).sqrt()
        return 0.5 * (d - d0[i, j]).square().sum()

    hessian = torch.autograd.functional.hessian(energy, x0.reshape(-1))
    return np.linalg.eigvalsh(hessian.numpy())


@pytest.mark.parametrize("dense_up_to", [900, 0])
def test_eigenvalues_are_those_of_the_energy(monkeypatch, coords, dense_up_to):
    monkeypatch.setattr(normal_modes, "_DENSE", dense_up_to)
    frequencies, _ = anisotropic_network_modes(coords[:60], n_modes=12, cutoff=12.0)
    np.testing.assert_allclose(frequencies**2, numerical_eigenvalues(coords[:60], 12.0)[6:18], rtol=1e-6)


@pytest.mark.parametrize("dense_up_to", [900, 0])
def test_modes_equal_those_of_prody(monkeypatch, coords, dense_up_to):
    prody = pytest.importorskip("prody")
    prody.confProDy(verbosity="none")
    monkeypatch.setattr(normal_modes, "_DENSE", dense_up_to)
    anm = prody.ANM("test")
    anm.buildHessian(coords, cutoff=12.0)
    anm.calcModes(n_modes=8)
    frequencies, modes = anisotropic_network_modes(coords, n_modes=8, cutoff=12.0)
    np.testing.assert_allclose(frequencies**2, anm.getEigvals(), rtol=1e-6)
    overlap = np.abs(modes.reshape(8, -1) @ anm.getEigvecs())
    np.testing.assert_allclose(np.diag(overlap), 1, atol=1e-6)
