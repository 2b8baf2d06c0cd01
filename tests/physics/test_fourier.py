import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cryoscape.physics import fourier


@pytest.mark.parametrize("box", [8, 9, 16, 31])
def test_inverse_undoes_forward(box):
    images = torch.randn(3, box, box, dtype=torch.float64)
    back = fourier.inverse(fourier.forward(images), box)
    torch.testing.assert_close(back, images)


@pytest.mark.parametrize("box", [12, 13])
def test_a_point_off_the_centre_has_the_phase_of_its_position(box):
    image = torch.zeros(box, box, dtype=torch.float64)
    image[box // 2 + 2, box // 2 - 3] = 1.0
    pixel = 1.7
    got = fourier.forward(image)
    kx = np.arange(box // 2 + 1) / (box * pixel)
    ky = np.fft.fftfreq(box, pixel)
    want = np.exp(-2j * np.pi * (kx[None] * (-3 * pixel) + ky[:, None] * (2 * pixel))) / box
    np.testing.assert_allclose(got.numpy(), want, atol=1e-12)


def test_parseval_holds_with_hermitian_weights():
    image = torch.randn(16, 16, dtype=torch.float64)
    power = fourier.forward(image).abs().square()
    total = (power * fourier.hermitian_weights(16)).sum()
    torch.testing.assert_close(total, image.square().sum())


def test_white_noise_keeps_its_variance_in_every_shell():
    noise = torch.randn(400, 16, 16) * 1.5
    power = fourier.forward(noise).abs().square().mean(0)
    assert abs(power[1:7, 1:7].mean() - 2.25) < 0.05


def test_crop_then_pad_is_a_low_pass():
    coefficients = fourier.forward(torch.randn(2, 16, 16, dtype=torch.float64))
    small = fourier.crop(coefficients, 8)
    assert small.shape == (2, 8, 5)
    back = fourier.pad(small, 16)
    kept = back != 0
    torch.testing.assert_close(back[kept], coefficients[kept])
    radius = fourier.frequency_grid(16, 1 / 16).norm(dim=-1)
    assert kept[0][radius < 4].all()
    assert not kept[0][radius > 6].any()


def test_crop_refuses_an_odd_box():
    with pytest.raises(ValueError, match="even"):
        fourier.crop(torch.zeros(8, 5, dtype=torch.complex64), 5)


@given(x=st.integers(-5, 5), y=st.integers(-5, 5))
def test_shift_phase_moves_an_image_by_whole_pixels(x, y):
    image = torch.randn(16, 16, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    pixel = 2.5
    grid = fourier.frequency_grid(16, pixel, dtype=torch.float64)
    phase = fourier.shift_phase(torch.tensor([[x * pixel, y * pixel]], dtype=torch.float64), grid)
    moved = fourier.inverse(fourier.forward(image)[None] * phase, 16)[0]
    # The Nyquist row and column of a real image have no sign, so compare without them.
    keep = fourier.crop(fourier.forward(torch.roll(image, (y, x), (0, 1))), 14)
    torch.testing.assert_close(fourier.crop(fourier.forward(moved), 14)[:7, :7], keep[:7, :7])


def test_band_weights_count_the_disc():
    weights = fourier.band_weights(32, 2.0, 4.0 * 32 / 20)
    # About pi r^2 coefficients of the full plane lie within r = 10 of the origin.
    assert abs(float(weights.sum()) - np.pi * 100) < 12
    assert weights[0, 0] == 0
