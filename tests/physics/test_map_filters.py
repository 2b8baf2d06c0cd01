import numpy as np
import pytest
import torch

from cryoscape.physics.map_filters import coarsen, lowpass


def wave(box, cycles):
    """A wave along y with so many periods in the box."""
    y = torch.arange(box, dtype=torch.float32) / box
    return torch.cos(2 * torch.pi * cycles * y)[None, :, None].expand(box, box, box).clone()


def test_coarse_waves_pass_and_fine_ones_do_not():
    """Box of 32 voxels of 2 A; 8 A is 8 periods."""
    kept, half, lost = (lowpass(wave(32, n), 2.0, 8.0) for n in (5, 8, 11))
    torch.testing.assert_close(kept, wave(32, 5), atol=1e-5, rtol=0)
    torch.testing.assert_close(half, 0.5 * wave(32, 8), atol=1e-5, rtol=0)
    assert lost.abs().max() < 1e-5


def test_beyond_the_grid_nothing_is_filtered():
    volume = torch.randn(2, 8, 8, 8, generator=torch.Generator().manual_seed(0))
    assert lowpass(volume, 2.0, 4.0) is volume
    with pytest.raises(ValueError, match="positive"):
        lowpass(volume, 2.0, 0.0)


def test_coarser_voxels_show_the_same_density():
    """A Gaussian sampled on the coarse grid itself is what comes out, centre on centre."""

    def gaussian(box, voxel_size):
        axis = (np.arange(box) - box // 2) * voxel_size
        line = np.exp(-0.5 * (axis / 8.0) ** 2)
        shifted = np.exp(-0.5 * ((axis - 5.0) / 8.0) ** 2)
        return torch.from_numpy(shifted[:, None, None] * line[:, None] * line).float()

    coarse = coarsen(gaussian(48, 2.0)[None], 2.0, 24)
    torch.testing.assert_close(coarse[0], gaussian(24, 4.0), atol=1e-4, rtol=0)
    with pytest.raises(ValueError, match="crop"):
        coarsen(gaussian(24, 4.0), 4.0, 25)
