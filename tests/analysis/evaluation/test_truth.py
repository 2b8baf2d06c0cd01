"""True maps of a simulation, against its images and against formulas of their own."""

from __future__ import annotations

import mrcfile
import numpy as np
import pytest
import torch

from cryoscape.analysis.evaluation.truth import Truth
from cryoscape.errors import InputError
from cryoscape.physics.fourier import inverse
from cryoscape.physics.slices import extract_slices, transform_volume
from cryoscape.simulate.dataset import simulate
from cryoscape.simulate.imaging import project
from cryoscape.simulate.options import SimulationOptions


@pytest.fixture(scope="module", params=["corner", "centre"])
def folder(request, tmp_path_factory):
    out = tmp_path_factory.mktemp("truth") / request.param
    # Amplitude contrast of nearly 1 without defocus: the CTF is close to 1, and an image is its projection.
    options = SimulationOptions(
        frame=request.param, states=3, amplitude_contrast=0.9999, defocus_median=1.0, cs=0.0, shift=3.0
    )
    simulate("hinge", out, particles=6, box=48, pixel=3.0, snr=1e8, options=options)
    return out


def view_of(density, pixel_size, rotation):
    """Transform of a projection, each voxel summed at its own place: no slice, no interpolation."""
    box = len(density)
    axis = (np.arange(box) - box // 2) * pixel_size
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    places = np.stack([x, y, z], axis=-1).reshape(-1, 3) @ rotation[:2].T
    frequencies = np.fft.fftfreq(box, pixel_size)
    ex, ey = (np.exp(-2j * np.pi * places[:, i, None] * frequencies) for i in (0, 1))
    transform = (ey * density.reshape(-1, 1)).T @ ex * pixel_size**3
    k = np.hypot(*np.meshgrid(frequencies, frequencies))
    return transform, k


def test_projecting_the_map_gives_the_image(folder):
    truth = Truth.read(folder)
    known = np.load(folder / "truth.npz")
    images = mrcfile.read(folder / "particles.mrcs")
    for row in (0, 3):
        density = truth.density([truth.state[row]], 48, 3.0)[0]
        transform, k = view_of(density.astype(np.float64), 3.0, known["rotations"][row])
        shift = known["shifts"][row]
        frequencies = np.fft.fftfreq(48, 3.0)
        ramp = np.exp(-2j * np.pi * (frequencies[:, None] * shift[1] + frequencies[None] * shift[0]))
        image = np.fft.fft2(np.fft.ifftshift(images[row].astype(np.float64))) * 3.0**2 / truth.atoms.gain
        inside = k < 0.8 / 6.0
        error = np.abs(transform * ramp - image)[inside]
        assert np.sqrt((error**2).mean() / (np.abs(image[inside]) ** 2).mean()) < 0.01


def test_slices_of_the_map_are_the_simulators_projections(folder):
    truth = Truth.read(folder)
    atoms = truth.atoms
    coords = torch.from_numpy(atoms.coords[2] - np.float32(atoms.origin))
    rotations = torch.from_numpy(np.load(folder / "truth.npz")["rotations"][:2]).float()
    density = torch.from_numpy(truth.density([2], 48, 3.0)[0])
    slices = extract_slices(transform_volume(density, 3.0, pad=2, gridding=True), rotations, 48) / (48 * 9.0)
    weights = torch.from_numpy(atoms.weights)
    exact = project(
        coords.expand(2, -1, -1), weights, float(atoms.sigma), rotations, torch.zeros(2, 2), 48, 3.0
    )
    a, b = (inverse(c * (exact != 0) * (slices != 0), 48).flatten(1) for c in (slices, exact))
    # Two per cent is what trilinear interpolation on a grid padded twofold costs.
    assert float(((a - b).norm(dim=1) / b.norm(dim=1)).max()) < 0.03


def test_a_smaller_box_is_the_same_map_with_fewer_frequencies(folder):
    truth = Truth.read(folder)
    large, small = truth.density(1, 48, 3.0)[0], truth.density(1, 24, 6.0)[0]
    a, b = (np.fft.fftshift(np.fft.fftn(np.fft.ifftshift(m.astype(float)))) for m in (large, small))
    inside = slice(1, 24)
    cut = a[12:36, 12:36, 12:36][inside, inside, inside] * 27.0
    np.testing.assert_allclose(b[inside, inside, inside] * 216.0, cut, atol=1e-3 * np.abs(cut).max())
    assert small.sum() * 216.0 == pytest.approx(float(truth.atoms.weights.sum()), rel=1e-4)


def test_maps_that_cannot_be_made_are_refused(folder, tmp_path):
    truth = Truth.read(folder)
    with pytest.raises(InputError, match="none is number 3"):
        truth.density([0, 3], 8, 3.0)
    with pytest.raises(InputError, match="even box"):
        truth.density([0], 9, 3.0)
    known = np.load(folder / "truth.npz")
    np.savez(tmp_path / "truth.npz", state=known["state"], coords=known["coords"])
    old = Truth.read(tmp_path)
    assert old.atoms is None
    with pytest.raises(InputError, match="does not hold the atoms") as caught:
        old.density([0], 8, 3.0)
    assert "Simulate again" in str(caught.value)
