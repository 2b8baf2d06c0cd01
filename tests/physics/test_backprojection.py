"""Back-projection of analytic projections gives the map back."""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from cryoscape.physics import backprojection as bp
from cryoscape.physics.resolution import fsc, soft_sphere

IMAGE_BOX, BOX, PIXEL, SIGMA = 40, 32, 2.0, 5.0
POINTS = np.array([[12.0, -6.0, 9.0], [-10.0, 8.0, 2.0], [4.0, 14.0, -13.0], [0.0, -12.0, -5.0]])
WEIGHTS = np.array([100.0, 60.0, 150.0, 80.0])


def projections(rotations, shifts):
    """Sums of 2-D Gaussians drawn in real space."""
    axis = (np.arange(IMAGE_BOX) - IMAGE_BOX // 2) * PIXEL
    images = np.zeros((len(rotations), IMAGE_BOX, IMAGE_BOX))
    for p, w in zip(POINTS, WEIGHTS, strict=True):
        x, y = (rotations @ p)[:, :2].T + shifts.T
        ex = np.exp(-((axis - x[:, None]) ** 2) / (2 * SIGMA**2))
        ey = np.exp(-((axis - y[:, None]) ** 2) / (2 * SIGMA**2))
        images += w / (2 * np.pi * SIGMA**2) * ey[:, :, None] * ex[:, None, :]
    return images


def unitary(images, shifts):
    """Recentred, cropped, centre-referred coefficients, with numpy alone."""
    c = IMAGE_BOX // 2
    full = np.fft.fft2(np.roll(images, (-c, -c), (1, 2)), norm="ortho")
    k = np.fft.fftfreq(IMAGE_BOX, PIXEL)
    phase = shifts[:, 0, None, None] * k + shifts[:, 1, None, None] * k[:, None]
    full = full * np.exp(2j * np.pi * phase)
    h = BOX // 2
    rows = np.r_[0:h, IMAGE_BOX - h : IMAGE_BOX]
    return torch.from_numpy(full[:, rows][:, :, : h + 1]).to(torch.complex64)


def truth():
    step = PIXEL * IMAGE_BOX / BOX
    axis = (np.arange(BOX) - BOX // 2) * step
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    out = np.zeros((BOX,) * 3)
    for p, w in zip(POINTS, WEIGHTS, strict=True):
        r2 = (x - p[0]) ** 2 + (y - p[1]) ** 2 + (z - p[2]) ** 2
        out += w * np.exp(-r2 / (2 * SIGMA**2)) / (2 * np.pi * SIGMA**2) ** 1.5
    return torch.from_numpy(out).float()


def batches(n=600, seed=0, noise=0.0, weights=None, turn=False):
    rng = np.random.default_rng(seed)
    rotations = Rotation.random(n, random_state=seed).as_matrix()
    shifts = rng.uniform(-5, 5, (n, 2))
    coefficients = unitary(projections(rotations, shifts), shifts)
    transfer = torch.from_numpy(rng.uniform(0.3, 1.0, n)).float()[:, None, None].expand(coefficients.shape)
    transfer = transfer * torch.from_numpy(rng.choice([-1.0, 1.0], n)).float()[:, None, None]
    coefficients = coefficients * transfer
    grain = torch.from_numpy(rng.normal(size=(*coefficients.shape, 2))).float()
    coefficients = coefficients + noise * coefficients.abs().mean() * torch.view_as_complex(grain)
    used = torch.from_numpy(rotations.transpose(0, 2, 1) if turn else rotations)
    halves = torch.arange(n) % 2 + 1
    for rows in torch.arange(n).split(100):
        w = None if weights is None else weights[rows]
        yield bp.SliceBatch(coefficients[rows], transfer[rows], used[rows], halves[rows], w)


def run(**options):
    return bp.back_project(batches(**options), BOX, PIXEL * IMAGE_BOX / BOX, IMAGE_BOX, floor=0.0)


def test_the_map_comes_back_in_absolute_units():
    maps, want = run(), truth()
    mask = soft_sphere(BOX, 11, 3)
    curve = fsc(maps.both * mask, want * mask)
    assert curve[1:8].min() > 0.98
    assert float((maps.both * mask * want).sum() / (mask * want * want).sum()) == pytest.approx(1.0, abs=0.05)
    peak = np.unravel_index(int((maps.both * mask).argmax()), (BOX,) * 3)
    strongest = POINTS[2] / (PIXEL * IMAGE_BOX / BOX) + BOX // 2
    assert np.abs(np.array(peak)[::-1] - strongest).max() < 1.0
    assert maps.count == (300.0, 300.0)


def test_transposed_rotations_do_not_give_the_map():
    mask = soft_sphere(BOX, 11, 3)
    assert fsc(run(turn=True).both * mask, truth() * mask)[2:12].mean() < 0.6


def test_halves_are_independent_and_both_is_their_sum():
    maps = run(noise=2.0)
    assert fsc(maps.half1, maps.half2)[-4:].abs().max() < 0.3
    sums = bp.accumulate(batches(noise=2.0), BOX, PIXEL * IMAGE_BOX / BOX, IMAGE_BOX)
    merged = bp.Accumulated(
        torch.stack([sums.numerator.sum(0), torch.zeros_like(sums.numerator[0])]),
        torch.stack([sums.denominator.sum(0), torch.zeros_like(sums.denominator[0])]),
        sums.count,
        sums.voxel_size,
    )
    assert torch.allclose(bp.solve(merged, floor=0.0).half1, maps.both, atol=1e-6)


def test_weights_select_images():
    weights = (torch.arange(600) < 300).float()
    assert torch.allclose(run(n=300).both, run(n=300, weights=torch.ones(300)).both)
    chosen = bp.accumulate(batches(weights=weights), BOX, PIXEL * IMAGE_BOX / BOX, IMAGE_BOX)
    assert chosen.count == (150.0, 150.0)
    everything = bp.accumulate(batches(), BOX, PIXEL * IMAGE_BOX / BOX, IMAGE_BOX)
    ratio = float(chosen.denominator.sum() / everything.denominator.sum())
    assert 0.4 < ratio < 0.6


def test_friedel_symmetry_of_the_sums():
    sums = bp.accumulate(batches(n=100), BOX, PIXEL * IMAGE_BOX / BOX, IMAGE_BOX)
    mate = (-np.arange(BOX)) % BOX
    plane = sums.numerator[0, :, :, 0].numpy()
    assert np.allclose(plane, plane[mate][:, mate].conj(), atol=1e-3 * np.abs(plane).max())
    assert np.abs(plane).max() > 0
