"""Shell statistics against plain numpy over the full transform."""

import numpy as np
import pytest
import torch

from cryoscape.physics import resolution

BOX = 12


def numpy_fsc(a, b):
    fa, fb = np.fft.fftn(a), np.fft.fftn(b)
    k = np.fft.fftfreq(len(a), 1 / len(a))
    shell = np.round(np.sqrt(k[:, None, None] ** 2 + k[:, None] ** 2 + k**2)).astype(int)
    curve = []
    for s in range(len(a) // 2 + 1):
        at = shell == s
        norm = np.sqrt((abs(fa[at]) ** 2).sum() * (abs(fb[at]) ** 2).sum())
        curve.append((fa[at] * fb[at].conj()).sum().real / norm)
    return np.array(curve)


@pytest.fixture
def maps():
    rng = np.random.default_rng(0)
    a = rng.normal(size=(BOX,) * 3)
    return a, a + rng.normal(size=(BOX,) * 3)


def test_fsc_equals_the_definition(maps):
    a, b = maps
    got = resolution.fsc(torch.from_numpy(a), torch.from_numpy(b)).numpy()
    assert np.allclose(got, numpy_fsc(a, b), atol=1e-10)
    assert 0.5 < got[1:].mean() < 0.9


def test_fsc_of_a_map_with_itself_its_negative_and_its_mask(maps):
    a = torch.from_numpy(maps[0])
    assert torch.allclose(resolution.fsc(a, a), torch.ones(BOX // 2 + 1, dtype=torch.float64))
    assert torch.allclose(resolution.fsc(a, -a), -torch.ones(BOX // 2 + 1, dtype=torch.float64))
    mask = resolution.soft_sphere(BOX, 3, 2).double()
    b = torch.from_numpy(maps[1])
    masked = resolution.fsc(a, b, mask).numpy()
    assert np.allclose(masked, numpy_fsc(maps[0] * mask.numpy(), maps[1] * mask.numpy()), atol=1e-10)


def test_fsc_refuses_other_shapes():
    with pytest.raises(ValueError, match="same even side"):
        resolution.fsc(torch.zeros(4, 4, 4), torch.zeros(6, 6, 6))


def test_resolution_is_interpolated_in_frequency():
    curve = torch.tensor([1.0, 1.0, 0.8, 0.2, 0.9, 0.0])
    # Shell 2 to 3 falls through 0.5 half-way: 2.5 / (10 * 2 A).
    assert resolution.resolution_at(curve, 0.5, 10, 2.0) == pytest.approx(20 / 2.5)
    assert resolution.resolution_at(curve, 0.143, 10, 2.0) == pytest.approx(20 / (4 + (0.9 - 0.143) / 0.9))
    assert resolution.resolution_at(torch.ones(6), 0.5, 10, 2.0) == pytest.approx(4.0)
    assert resolution.resolution_at(torch.zeros(6), 0.5, 10, 2.0) == float("inf")


def test_radial_average_over_volume_and_image():
    k = np.fft.fftfreq(BOX, 1 / BOX)
    radius = np.sqrt(k[:, None, None] ** 2 + k[:, None] ** 2 + k[: BOX // 2 + 1] ** 2)
    shells = torch.from_numpy(np.round(np.abs(radius)))
    assert torch.allclose(resolution.radial_average(shells), torch.arange(BOX // 2 + 1).double())
    assert torch.allclose(resolution.radial_average(shells[0]), torch.arange(BOX // 2 + 1).double())
    weights = torch.zeros_like(shells)
    weights[0, 0, 1] = 1.0
    values = shells.clone()
    values[0, 0, 1] = 7.0
    average = resolution.radial_average(values, weights)
    assert average[1] == 7.0
    assert average[2] == 0.0


def test_reference_correlation_against_simulated_halves():
    rng = np.random.default_rng(1)
    signal, n1, n2 = rng.normal(size=(3, 200_000))
    half = np.corrcoef(signal + n1, signal + n2)[0, 1]
    full = np.corrcoef(signal, 2 * signal + n1 + n2)[0, 1]
    assert float(resolution.reference_correlation(torch.tensor(half))) == pytest.approx(full, abs=0.005)


def test_soft_sphere_is_centred():
    mask = resolution.soft_sphere(BOX, 3.0, 2.0)
    assert mask[6, 6, 9] == 1.0
    assert mask[6, 6, 3] == 1.0
    assert mask[6, 6, 1] == 0.0
    assert mask[6, 10, 6] == pytest.approx(0.5)
