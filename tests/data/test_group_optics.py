"""Images of several optics groups against sums written out point by point."""

from __future__ import annotations

import mrcfile
import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from cryoscape.data.images import BandImages
from cryoscape.data.particles import Particles
from cryoscape.errors import InputError
from cryoscape.physics import gaussians
from tests.data.builders import OPTICS, particle_columns, write_star

BOX, PIXEL, N = 16, 1.25, 6
EVEN = (0.2, 1.0, -2.0, 3.0, 20.0, -30.0, 40.0, 15.0, -25.0)
ODD = (0.5, -0.7, 20.0, 0.0, 0.0, -15.0)
TILT = (0.4, -0.3)
MAGNIFICATION = np.array([[1.02, 0.01], [-0.005, 0.985]])


def optics_rows() -> dict[str, list[str]]:
    """Three groups: 300 kV plain, 200 kV with even terms and distortion, 300 kV with tilt and odd terms."""
    rows = {tag: [value] * 3 for tag, value in OPTICS.items()}
    rows |= {
        "rlnOpticsGroupName": ["a", "b", "c"],
        "rlnOpticsGroup": ["1", "2", "3"],
        "rlnVoltage": ["300", "200", "300"],
        "rlnAmplitudeContrast": ["0.1", "0.07", "0.1"],
        "rlnImageSize": [str(BOX)] * 3,
        "rlnBeamTiltX": ["0", "0", str(TILT[0])],
        "rlnBeamTiltY": ["0", "0", str(TILT[1])],
        "rlnEvenZernike": ["[0]", "[" + ",".join(map(str, EVEN)) + "]", "[0]"],
        "rlnOddZernike": ["[0]", "[0]", "[" + ",".join(map(str, ODD)) + "]"],
    }
    for i, value in enumerate(MAGNIFICATION.flat):
        rows[f"rlnMagMat{i // 2}{i % 2}"] = [str(float(i in (0, 3))), str(value), str(float(i in (0, 3)))]
    return rows


def zernike_sum(kx: np.ndarray, ky: np.ndarray, terms: dict[tuple[int, int], float]) -> np.ndarray:
    """Zernike polynomials up to the fourth order, written out."""
    r2 = kx**2 + ky**2
    x3, y3 = kx**3 - 3 * kx * ky**2, 3 * kx**2 * ky - ky**3
    x2, y2 = kx**2 - ky**2, 2 * kx * ky
    table = {
        (0, 0): 1.0, (-2, 2): y2, (0, 2): 2 * r2 - 1, (2, 2): x2,
        (-4, 4): 2 * x2 * y2, (-2, 4): (4 * r2 - 3) * y2, (0, 4): 6 * r2**2 - 6 * r2 + 1,
        (2, 4): (4 * r2 - 3) * x2, (4, 4): x2**2 - y2**2,
        (-1, 1): ky, (1, 1): kx, (-3, 3): y3, (3, 3): x3,
    }  # fmt: skip
    return sum((c * table[mn] for mn, c in terms.items()), np.zeros_like(kx))


def predict(points: np.ndarray, columns: dict[str, list[str]], i: int) -> np.ndarray:
    """Fourier image of unit points as RELION predicts it, (BOX, BOX // 2 + 1), forward of norm ortho."""
    g = int(columns["rlnOpticsGroup"][i]) - 1
    kx, ky = np.meshgrid(np.fft.rfftfreq(BOX, PIXEL), np.fft.fftfreq(BOX, PIXEL))
    mag = MAGNIFICATION if g == 1 else np.eye(2)
    mx, my = mag[0, 0] * kx + mag[0, 1] * ky, mag[1, 0] * kx + mag[1, 1] * ky
    value = {
        tag: float(columns[tag][i]) for tag in columns if tag not in ("rlnImageName", "rlnMicrographName")
    }
    volts, q0 = (2e5, 0.07) if g == 1 else (3e5, 0.1)
    lam = 12.2643247 / np.sqrt(volts * (1 + 0.978466e-6 * volts))
    angle = np.deg2rad(value["rlnDefocusAngle"])
    along, across = mx * np.cos(angle) + my * np.sin(angle), my * np.cos(angle) - mx * np.sin(angle)
    r2 = mx**2 + my**2
    gamma = -np.pi * lam * (value["rlnDefocusU"] * along**2 + value["rlnDefocusV"] * across**2)
    gamma += np.pi / 2 * 2.7e7 * lam**3 * r2**2 - np.arcsin(q0)
    odd = np.zeros_like(kx)
    if g == 1:
        order = [(0, 0), (-2, 2), (0, 2), (2, 2), (-4, 4), (-2, 4), (0, 4), (2, 4), (4, 4)]
        gamma += zernike_sum(mx, my, dict(zip(order, EVEN)))
    if g == 2:
        odd += zernike_sum(mx, my, {(-1, 1): ODD[0], (1, 1): ODD[1], (-3, 3): ODD[2], (3, 3): ODD[5]})
        odd -= 2e-3 * np.pi * 2.7e7 * lam**2 * r2 * (mx * TILT[0] + my * TILT[1])
    euler = [value[f"rlnAngle{name}"] for name in ("Rot", "Tilt", "Psi")]
    seen = points @ Rotation.from_euler("ZYZ", euler, degrees=True).as_matrix()
    wave = np.exp(-2j * np.pi * (mx[..., None] * seen[:, 0] + my[..., None] * seen[:, 1])).sum(-1)
    shift = kx * -value["rlnOriginXAngst"] + ky * -value["rlnOriginYAngst"]
    return -np.sin(gamma) * np.exp(1j * odd) * wave * np.exp(-2j * np.pi * shift) / BOX


@pytest.fixture
def points() -> np.ndarray:
    return np.random.default_rng(5).normal(scale=2.0, size=(4, 3))


@pytest.fixture
def star(tmp_path, points):
    columns = particle_columns(N)
    columns["rlnOpticsGroup"] = [str(1 + i % 3) for i in range(N)]
    path = write_star(tmp_path / "particles.star", columns, optics_rows(), stack=False)
    centre = np.fft.rfftn(np.eye(1, BOX * BOX, BOX // 2 * BOX + BOX // 2).reshape(BOX, BOX))
    images = [np.fft.irfftn(predict(points, columns, i) * centre, (BOX, BOX), norm="ortho") for i in range(N)]
    with mrcfile.new(tmp_path / "particles.mrcs") as mrc:
        mrc.set_data(np.stack(images).astype(np.float32))
        mrc.set_image_stack()
    return path


def test_images_of_every_group_are_ctf_times_projection(star, points) -> None:
    images = BandImages(Particles.read(star), 2 * PIXEL)
    images.prepare()
    batch = images.batch(torch.arange(N))
    coords = torch.from_numpy(points).float()[None].expand(N, -1, -1)
    y = gaussians.project_fourier(coords, torch.ones(len(points)), batch.rotations, BOX, PIXEL) / BOX
    inside = torch.ones(BOX, BOX // 2 + 1, dtype=torch.bool)
    # On the Nyquist row and column a real image cannot tell the sign of an odd phase.
    inside[BOX // 2], inside[:, -1] = False, False
    for i in range(N):
        torch.testing.assert_close(
            (batch.ctf[i] * y[i])[inside], batch.images[i][inside], atol=2e-4, rtol=1e-3
        )


def test_noise_power_is_untouched_by_odd_terms(star) -> None:
    particles = Particles.read(star)
    images = BandImages(particles, 2 * PIXEL)
    white = torch.randn(N, BOX, BOX // 2 + 1, dtype=torch.complex64)
    out = images.demodulate(white, torch.arange(N))
    torch.testing.assert_close(out.abs(), white.abs())
    assert not torch.allclose(out[2], white[2], atol=0.1)
    assert torch.equal(out[0], white[0])


def test_absurd_magnification_is_refused(tmp_path) -> None:
    rows = optics_rows()
    rows["rlnMagMat00"] = ["1", "1.9", "1"]
    columns = particle_columns(N) | {"rlnOpticsGroup": ["2"] * N}
    path = write_star(tmp_path / "particles.star", columns, rows, stack=False)
    with mrcfile.new(tmp_path / "particles.mrcs") as mrc:
        mrc.set_data(np.random.default_rng(0).normal(size=(N, BOX, BOX)).astype(np.float32))
        mrc.set_image_stack()
    with pytest.raises(InputError, match="magnification matrix of optics group 'b' is off by 90 %"):
        BandImages(Particles.read(path), 2 * PIXEL)
