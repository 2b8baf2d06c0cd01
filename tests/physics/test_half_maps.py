"""Half maps with known signal, noise and decay."""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from cryoscape.physics import backprojection as bp
from cryoscape.physics import half_maps, masking
from cryoscape.physics.masking import automatic_mask, inscribed_sphere
from cryoscape.physics.resolution import fsc, radial_average, soft_sphere, volume_shells

BOX, VOXEL = 32, 2.0


def noise(seed, box=BOX):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(box,) * 3))


def test_a_mask_on_pure_noise_leaves_no_correlation():
    """Shared low frequencies, independent noise beyond: what the sharp mask correlates is found out."""
    low = volume_shells(BOX) < 6
    shared = torch.fft.irfftn(torch.fft.rfftn(noise(0)) * low, s=(BOX,) * 3) * 20
    a, b = (shared + noise(s) for s in (101, 102))
    mask = (soft_sphere(BOX, 0.2 * BOX, 1e-3) > 0.5).double()
    got = half_maps.correlate_halves(a, b, mask, inscribed_sphere(BOX))
    assert 6 <= got.random_from <= 9
    beyond = slice(got.random_from + 2, None)
    assert got.masked[beyond].mean() > 0.4
    assert abs(got.corrected[beyond].mean()) < 0.15
    assert torch.equal(got.corrected[: got.random_from + 2], got.masked[: got.random_from + 2])


def test_random_phases_keep_amplitudes_and_low_frequencies():
    a = noise(3)
    mixed = half_maps.randomise_phases(a, 6, torch.Generator().manual_seed(0))
    before, after = torch.fft.rfftn(a), torch.fft.rfftn(mixed)
    low = volume_shells(BOX) < 6
    assert torch.allclose(before[low], after[low], atol=1e-9)
    inner = volume_shells(BOX) < BOX // 2
    assert torch.allclose(before.abs()[inner], after.abs()[inner], atol=1e-6)
    assert fsc(a, mixed)[8:].abs().max() < 0.2


def test_trusted_correlation_ends_at_the_first_shell_without_any():
    curve = torch.tensor([0.0, 1.0, 0.9, 0.3, -0.1, 0.4, 0.2])
    assert half_maps.trusted_correlation(curve).tolist() == pytest.approx([0.9999, 0.9999, 0.9, 0.3, 0, 0, 0])


@pytest.mark.parametrize("decay", [0.0, 80.0])
def test_guinier_finds_the_decay_and_sharpening_undoes_it(decay):
    voxel = 1.0
    white = noise(5)
    blurred = half_maps.sharpen(white, voxel, decay)
    amplitude = half_maps.signal_amplitude(blurred, torch.ones(BOX // 2 + 1), torch.ones_like(white))
    assert half_maps.guinier_b_factor(amplitude, BOX, voxel, 2.5) == pytest.approx(decay, abs=6)
    back = half_maps.sharpen(blurred, voxel, -decay)
    assert torch.allclose(back, white, atol=1e-4)


def test_no_guinier_plot_at_low_resolution():
    assert half_maps.guinier_b_factor(torch.ones(17), BOX, VOXEL, 9.0) is None


def blob(sigma=8.0):
    axis = (torch.arange(BOX) - BOX // 2).double() * VOXEL
    r2 = axis[:, None, None] ** 2 + axis[None, :, None] ** 2 + axis**2
    return torch.exp(-r2 / (2 * sigma**2))


def test_the_mask_holds_the_molecule_and_leaves_specks_out(monkeypatch):
    speck = torch.zeros(BOX, BOX, BOX).double()
    speck[4, 16, 16] = 12.0
    halves = [blob(5.0) + speck + 0.05 * noise(s) for s in (1, 2)]
    mask = automatic_mask(*halves, VOXEL)
    assert mask[16, 16, 16] == 1.0
    assert mask[4, 16, 16] < 0.1
    monkeypatch.setattr(masking, "SMALL", 0.0)
    assert automatic_mask(*halves, VOXEL)[4, 16, 16] > 0.5
    assert float(mask.max()) <= 1.0
    assert 0.02 < float(mask.mean()) < 0.4
    assert float(((blob(5.0) > 0.3) * (mask < 0.99)).sum()) == 0


def test_noise_alone_is_masked_by_the_sphere():
    assert torch.equal(automatic_mask(noise(1), noise(2), VOXEL), inscribed_sphere(BOX))


def test_tau_of_the_half_map_correlation_gives_the_wiener_estimate():
    """Images of white signal in white noise: the filter must be S / (S + N) of what was put in."""
    rng = np.random.default_rng(0)
    rotations = torch.from_numpy(Rotation.random(300, random_state=0).as_matrix()).float()
    shape = (300, BOX, BOX // 2 + 1)
    images = torch.from_numpy(rng.normal(size=shape) + 1j * rng.normal(size=shape)).to(torch.complex64)
    halves = torch.arange(300) % 2 + 1
    batch = bp.SliceBatch(images, torch.full(shape, 0.5), rotations, halves)
    sums = bp.accumulate([batch], BOX, VOXEL, BOX)
    for f in (0.0, 0.2, 0.8):
        curve = torch.full((BOX // 2 + 1,), f)
        tau = bp.signal_to_noise_tau(sums, curve)
        filtered = torch.fft.rfftn(bp.solve(sums, tau=tau, gridding=False).both)
        raw = torch.fft.rfftn(bp.solve(sums, floor=0.0, gridding=False).both)
        ratio = radial_average((filtered * raw.conj()).real)[3:8] / radial_average(raw.abs().square())[3:8]
        # Sampling is uneven within a shell, and poorly measured coefficients are damped more.
        assert ratio.numpy() == pytest.approx(2 * f / (1 + f), abs=0.12)
