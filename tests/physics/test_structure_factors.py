"""The transform of Gaussians against the sum written out, in double precision."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cryoscape.physics import structure_factors as module
from cryoscape.physics.slices import invert_volume
from cryoscape.physics.structure_factors import structure_factors


def sample(n, spread, seed=0):
    rng = np.random.default_rng(seed)
    return spread * rng.normal(size=(n, 3)), rng.uniform(1, 3, n), rng.uniform(1, 2, n)


@pytest.mark.parametrize("memory", [module.TABLE_MEMORY, 1])
def test_every_coefficient_is_the_sum(memory, monkeypatch):
    monkeypatch.setattr(module, "TABLE_MEMORY", memory)
    x, w, sigma = sample(7, 8.0)
    found = structure_factors(*(torch.from_numpy(v) for v in (x, w, sigma)), 12, 3.0).numpy()
    full, half = np.fft.fftfreq(12, 3.0), np.fft.rfftfreq(12, 3.0)
    kz, ky, kx = np.meshgrid(full, full, half, indexing="ij")
    k = np.stack([kx, ky, kz], axis=-1)
    expected = sum(
        wi * np.exp(-2 * (np.pi * s) ** 2 * (k**2).sum(-1) - 2j * np.pi * k @ xi)
        for xi, wi, s in zip(x, w, sigma)
    )
    expected[6], expected[:, 6], expected[..., 6] = 0, 0, 0
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_finely_sampled_map_shows_the_gaussians():
    """Voxels well below sigma: the band limit cuts nothing off, and the map is the Gaussians' formula."""
    x, w, _ = sample(5, 3.0)
    density = invert_volume(structure_factors(torch.from_numpy(x), torch.from_numpy(w), 2.0, 32, 1.0), 1.0)
    axis = np.arange(32) - 16.0
    z, y, x_axis = np.meshgrid(axis, axis, axis, indexing="ij")
    expected = sum(
        wi * np.exp(-((x_axis - a) ** 2 + (y - b) ** 2 + (z - c) ** 2) / 8) / (8 * np.pi) ** 1.5
        for wi, (a, b, c) in zip(w, x)
    )
    np.testing.assert_allclose(density.numpy(), expected, atol=2e-5 * expected.max())


def test_an_odd_box_is_refused():
    with pytest.raises(ValueError, match="even"):
        structure_factors(torch.zeros(1, 3), torch.ones(1), 1.0, 15, 1.0)
