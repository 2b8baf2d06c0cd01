"""Poses, images and noise against formulas of their own."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cryoscape.physics.fourier import crop, inverse
from cryoscape.physics.gaussians import project_real
from cryoscape.physics.rotations import random_rotations
from cryoscape.simulate.imaging import (
    draw_rotations,
    draw_views,
    noise_spectrum,
    project,
    signal_power,
    stream,
    unit_noise,
)
from cryoscape.simulate.options import SimulationOptions


def test_streams_differ_by_name_index_and_seed():
    draws = {(s, n, i): stream(s, n, i).random() for s in (0, 1) for n in ("a", "b") for i in (0, 1)}
    assert len(set(draws.values())) == 8
    assert stream(0, "a").random() == draws[0, "a", 0]


def test_uniform_orientations_have_no_preferred_direction():
    directions = draw_rotations(4000, 0.0, 3)[:, 2]
    assert np.linalg.norm(directions.mean(0)) < 4 / np.sqrt(4000)
    np.testing.assert_allclose(directions.T @ directions / 4000, np.eye(3) / 3, atol=0.03)


@pytest.mark.parametrize("kappa", [0.5, 3.0, 20.0])
def test_preferred_orientations_are_von_mises_fisher(kappa):
    rotations = draw_rotations(4000, kappa, 3)
    np.testing.assert_allclose(
        rotations @ rotations.transpose(0, 2, 1), np.tile(np.eye(3), (4000, 1, 1)), atol=1e-9
    )
    # Mean resultant length of the distribution on the sphere: coth(kappa) - 1 / kappa.
    assert rotations[:, 2, 2].mean() == pytest.approx(1 / np.tanh(kappa) - 1 / kappa, abs=0.03)
    assert np.abs(rotations[:, 2, :2].mean(0)).max() < 0.05


def test_fine_pixels_show_the_gaussians_themselves():
    generator = torch.Generator().manual_seed(0)
    coords = 5 * torch.randn(3, 40, 3, generator=generator)
    weights = torch.rand(3, 40, generator=generator)
    rotations = random_rotations(3, generator).float()
    shifts = 4 * torch.randn(3, 2, generator=generator)
    images = inverse(project(coords, weights, 1.5, rotations, shifts, 64, 1.0), 64)
    for b in range(3):
        args = coords[b : b + 1], weights[b], 1.5, rotations[b : b + 1], 64, 1.0, shifts[b : b + 1]
        expected = project_real(*args)[0]
        torch.testing.assert_close(images[b], expected, rtol=0, atol=1e-4 * float(expected.max()))


def test_coarse_pixels_show_the_low_frequencies_of_fine_ones():
    """Six Angstrom pixels and one Angstrom atoms: nothing of the high frequencies may fold back."""
    generator = torch.Generator().manual_seed(1)
    coords = 25 * torch.randn(2, 60, 3, generator=generator)
    arguments = torch.ones(60), 1.0, random_rotations(2, generator).float(), torch.full((2, 2), 2.7)
    fine, coarse = (project(coords, *arguments, box, pixel) for box, pixel in ((192, 1.0), (32, 6.0)))
    inside = np.r_[:16, 17:32]
    expected = crop(fine, 32)[:, inside, :16] * (192 / (32 * 6.0**2))
    torch.testing.assert_close(
        coarse[:, inside, :16], expected, rtol=0, atol=1e-5 * float(expected.abs().max())
    )


def test_views_follow_their_options():
    options = SimulationOptions(
        junk=0.25, shift=3.0, astigmatism=400.0, scale_spread=0.2, pose_error=5.0, shift_error=0.7
    )
    views = draw_views(np.array([0.7, 0.3]), 4000, options, 5)
    assert views.junk.sum() == 1000
    assert np.bincount(views.state[~views.junk]).tolist() == [2100, 900]
    assert np.abs(views.shifts).max() <= 3
    assert views.shifts.std() == pytest.approx(3 / np.sqrt(3), rel=0.03)
    difference = views.defocus_u - views.defocus_v
    assert difference.min() >= 0
    assert difference.max() == pytest.approx(400, rel=0.01)
    assert np.log(0.5 * (views.defocus_u + views.defocus_v) / 1e4).std() == pytest.approx(0.3, rel=0.05)
    assert np.log(views.scale).std() == pytest.approx(0.2, rel=0.05)
    assert (views.given_shifts - views.shifts).std() == pytest.approx(0.7, rel=0.05)
    cosine = (np.einsum("nij,nij->n", views.rotations, views.given_rotations) - 1) / 2
    # The rotation vector has three components of 5 degrees each.
    assert np.sqrt((np.rad2deg(np.arccos(cosine)) ** 2).mean() / 3) == pytest.approx(5.0, rel=0.05)
    assert np.bincount(views.half).tolist() == [0, 2000, 2000]


def test_shifts_and_defocus_do_not_touch_the_poses():
    a = draw_views(np.ones(1), 50, SimulationOptions(), 1)
    b = draw_views(np.ones(1), 50, SimulationOptions(shift=5.0, defocus="uniform"), 1)
    np.testing.assert_array_equal(a.rotations, b.rotations)
    assert not np.array_equal(a.defocus_u, b.defocus_u)
    assert b.defocus_u.min() >= 5000
    assert b.defocus_u.max() <= 25000


def test_noise_has_the_spectrum_it_claims():
    box, pixel = 32, 4.0
    spectrum = noise_spectrum("coloured", box, pixel)
    noise = unit_noise(np.arange(600), spectrum, box, 0).numpy()
    assert noise.var() == pytest.approx(1.0, rel=0.02)
    power = (np.abs(np.fft.rfft2(noise, norm="ortho")) ** 2).mean(0)
    ky, kx = np.meshgrid(np.fft.fftfreq(box, pixel), np.fft.rfftfreq(box, pixel), indexing="ij")
    expected = 1 + 4 / (1 + (30.0**2) * (kx**2 + ky**2))
    ratio = power / expected
    assert ratio.std() / ratio.mean() < 0.08
    assert power[0, 0] / power[box // 2, box // 2] == pytest.approx(5 / expected[box // 2, -1], rel=0.2)


def test_whitened_power_is_the_sum_over_all_coefficients():
    box = 16
    images = torch.randn(3, box, box, generator=torch.Generator().manual_seed(1))
    variance, white = signal_power(images, None)
    centred = images.numpy() - images.numpy().mean(axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(white, (centred.astype(float) ** 2).sum((1, 2)), rtol=1e-5)
    np.testing.assert_allclose(variance, images.numpy().var((1, 2)), rtol=1e-5)
    spectrum = noise_spectrum("coloured", box, 2.0)
    _, coloured = signal_power(images, spectrum)
    k2 = np.add.outer(np.fft.fftfreq(box, 2.0) ** 2, np.fft.fftfreq(box, 2.0) ** 2)
    s2 = 1 + 4 / (1 + 900 * k2)
    power = np.abs(np.fft.fft2(centred, norm="ortho")) ** 2
    np.testing.assert_allclose(coloured, (power / (s2 / s2.mean())).sum((1, 2)), rtol=1e-5)
