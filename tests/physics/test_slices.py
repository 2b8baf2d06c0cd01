"""Slices against projections computed directly, without Fourier transforms of ours."""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from cryoscape.physics import slices

BOX, PIXEL, SIGMA = 32, 2.0, 4.0
POINT = np.array([14.0, -6.0, 9.0])


def gaussian_map(points, weights, sigma=SIGMA):
    axis = (np.arange(BOX) - BOX // 2) * PIXEL
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    total = np.zeros((BOX,) * 3)
    for (px, py, pz), w in zip(points, weights, strict=True):
        r2 = (x - px) ** 2 + (y - py) ** 2 + (z - pz) ** 2
        total += w * np.exp(-r2 / (2 * sigma**2)) / (2 * np.pi * sigma**2) ** 1.5
    return torch.from_numpy(total).float()


def analytic_slices(points, weights, rotations, sigma=SIGMA):
    """Continuous transform of the projected Gaussians on the half-plane, by the formula."""
    ky = np.fft.fftfreq(BOX, PIXEL)[:, None]
    kx = np.fft.rfftfreq(BOX, PIXEL)[None, :]
    out = np.zeros((len(rotations), BOX, BOX // 2 + 1), complex)
    for i, a in enumerate(rotations):
        for p, w in zip(points, weights, strict=True):
            x, y, _ = a @ p
            out[i] += w * np.exp(-2j * np.pi * (kx * x + ky * y))
    return out * np.exp(-2 * np.pi**2 * sigma**2 * (kx**2 + ky**2))


def poses(n=5, seed=0):
    return Rotation.random(n, random_state=seed).as_matrix()


@pytest.mark.parametrize(("pad", "tolerance"), [(1, 0.4), (2, 0.08), (4, 0.025)])
def test_one_off_axis_point(pad, tolerance):
    rotations = poses()
    transform = slices.transform_volume(gaussian_map([POINT], [100.0]), PIXEL, pad=pad, gridding=True)
    got = slices.extract_slices(transform, torch.from_numpy(rotations), BOX).numpy()
    want = analytic_slices([POINT], [100.0], rotations)
    inside = np.abs(got) > 0
    assert inside.mean() > 0.7
    assert np.abs(got - want)[inside].max() < tolerance * 100
    transposed = analytic_slices([POINT], [100.0], rotations.transpose(0, 2, 1))
    assert np.abs(got - transposed)[inside].max() > 50


def test_transform_of_a_map_and_back():
    volume = gaussian_map([POINT, -0.5 * POINT], [10.0, 20.0])
    transform = slices.transform_volume(volume, PIXEL)
    assert transform[0, 0, 0].real == pytest.approx(30.0, rel=1e-4)
    assert torch.allclose(slices.invert_volume(transform, PIXEL), volume, atol=1e-6)


def test_cropping_a_band_limited_map_resamples_it():
    smooth = gaussian_map([0.2 * POINT], [10.0], sigma=6.0)
    small = slices.crop_volume(slices.transform_volume(smooth, PIXEL), BOX // 2)
    resampled = slices.invert_volume(small, 2 * PIXEL)
    assert torch.allclose(resampled, smooth[::2, ::2, ::2], rtol=0, atol=float(smooth.max()) * 1e-3)


def test_leading_axes_and_gradient():
    volume = torch.stack([gaussian_map([POINT], [1.0]), gaussian_map([-POINT], [2.0])])
    transform = slices.transform_volume(volume, PIXEL).requires_grad_()
    got = slices.extract_slices(transform, torch.from_numpy(poses(3)))
    assert got.shape == (2, 3, BOX, BOX // 2 + 1)
    alone = slices.extract_slices(transform[1], torch.from_numpy(poses(3)))
    assert torch.allclose(got[1], alone)
    got.abs().square().sum().backward()
    assert transform.grad is not None
    assert float(transform.grad.abs().max()) > 0


def test_independent_coefficients_list_each_pair_once():
    index, k = slices.half_plane(8, independent=True)
    full = {tuple(v) for v in k.long().tolist()}
    assert len(full) == len(index)
    assert not any((-x, -y) in full for x, y in full)
    inside = [(x, y) for x in range(-4, 4) for y in range(-4, 4) if 0 < x * x + y * y < 16]
    assert 2 * len(full) == len(inside)


def test_odd_boxes_are_refused():
    with pytest.raises(ValueError, match="even box"):
        slices.transform_volume(torch.zeros(5, 5, 5), 1.0)
    with pytest.raises(ValueError, match="even divisor"):
        slices.extract_slices(torch.zeros(32, 32, 17, dtype=torch.complex64), torch.eye(3)[None], 24)
