import numpy as np
import pytest
import torch
from torch_ctf import calculate_ctf_2d

from cryoscape.physics import fourier
from cryoscape.physics.ctf import ctf, electron_wavelength


def relion_ctf(kx, ky, u, v, angle, kv, cs, q0, phase=0.0):
    """RELION's formula, written out with an arctangent for one frequency."""
    volts = kv * 1e3
    lam = 12.2643247 / np.sqrt(volts * (1 + volts * 0.978466e-6))
    k2 = kx**2 + ky**2
    ellipse = np.arctan2(ky, kx) - np.deg2rad(angle)
    deltaf = (u + v) / 2 + (u - v) / 2 * np.cos(2 * ellipse)
    gamma = np.pi / 2 * cs * 1e7 * lam**3 * k2**2 - np.pi * lam * deltaf * k2
    return -np.sin(gamma - np.deg2rad(phase) - np.arctan(q0 / np.sqrt(1 - q0**2)))


def test_wavelength_at_300_kv():
    assert abs(float(electron_wavelength(300.0)) - 0.019687) < 1e-6


@pytest.mark.parametrize(("row", "column"), [(0, 0), (3, 5), (60, 7), (33, 20), (0, 31)])
def test_equals_relions_formula(row, column):
    box, pixel = 64, 1.3
    grid = fourier.frequency_grid(box, pixel)
    got = ctf(
        grid, torch.tensor([18000.0]), torch.tensor([15000.0]), torch.tensor([37.0]), 300, 2.7, 0.1, 20.0
    )
    kx, ky = column / (box * pixel), np.fft.fftfreq(box, pixel)[row]
    want = relion_ctf(kx, ky, 18000, 15000, 37, 300, 2.7, 0.1, 20.0)
    assert abs(float(got[0, row, column]) - want) < 1e-5


def test_is_plus_amplitude_contrast_at_zero_frequency():
    grid = fourier.frequency_grid(16, 2.0)
    got = ctf(grid, torch.tensor([1e4]), torch.tensor([1e4]), torch.tensor([0.0]), 300, 2.7, 0.07)
    assert abs(float(got[0, 0, 0]) - 0.07) < 1e-6


def test_agrees_with_torch_ctf():
    u, v, angle = (
        torch.tensor([21000.0, 9000.0]),
        torch.tensor([19500.0, 8800.0]),
        torch.tensor([12.0, 140.0]),
    )
    got = ctf(fourier.frequency_grid(48, 1.5), u, v, angle, 200, 2.0, 0.1)
    args = ((u + v) / 2e4, (u - v) / 2e4, angle, 200.0, 2.0, 0.1, 0.0, 1.5, (48, 48))
    want = calculate_ctf_2d(*args, rfft=True, fftshift=False)
    assert float((got - want).abs().max()) < 5e-3


def test_swapping_the_axes_and_turning_by_90_degrees_changes_nothing():
    grid = fourier.frequency_grid(32, 2.0)
    a = ctf(grid, torch.tensor([14000.0]), torch.tensor([11000.0]), torch.tensor([25.0]), 300, 2.7, 0.1)
    b = ctf(grid, torch.tensor([11000.0]), torch.tensor([14000.0]), torch.tensor([115.0]), 300, 2.7, 0.1)
    torch.testing.assert_close(a, b, atol=1e-5, rtol=0)


def test_gradient_is_finite_without_astigmatism():
    u = torch.tensor([12000.0], requires_grad=True)
    v = torch.tensor([12000.0], requires_grad=True)
    ctf(fourier.frequency_grid(16, 2.0), u, v, torch.tensor([0.0]), 300, 2.7, 0.1).sum().backward()
    assert torch.isfinite(u.grad).all()
    assert torch.isfinite(v.grad).all()


def test_bfactor_is_an_envelope():
    grid = fourier.frequency_grid(16, 2.0)
    args = (torch.tensor([12000.0]), torch.tensor([12000.0]), torch.tensor([0.0]), 300, 2.7, 0.1)
    ratio = ctf(grid, *args, bfactor=80.0)[0, 3, 4] / ctf(grid, *args)[0, 3, 4]
    k2 = (3 / 32) ** 2 + (4 / 32) ** 2
    assert abs(float(ratio) - np.exp(-20.0 * k2)) < 1e-5
