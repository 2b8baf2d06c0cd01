"""Zernike aberrations against Jacobi polynomials of scipy, RELION's numbering and torch-ctf's tilt."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import eval_jacobi

from cryoscape.physics import aberrations

RELION_EVEN = [(0, 0), (-2, 2), (0, 2), (2, 2), (-4, 4), (-2, 4), (0, 4), (2, 4), (4, 4)]
RELION_ODD = [(-1, 1), (1, 1), (-3, 3), (-1, 3), (1, 3), (3, 3), (-5, 5)]


@pytest.fixture
def k() -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(3).uniform(-0.5, 0.5, (7, 5, 2)))


def oracle(k: torch.Tensor, m: int, n: int) -> np.ndarray:
    """R_n^m = (-1)^h rho^m P_h^(m, 0)(1 - 2 rho^2) with h = (n - m) / 2 (Abramowitz and Stegun, 22)."""
    x, y = k.numpy()[..., 0], k.numpy()[..., 1]
    rho, theta, order = np.hypot(x, y), np.arctan2(y, x), abs(m)
    half = (n - order) // 2
    radial = (-1) ** half * rho**order * eval_jacobi(half, order, 0, 1 - 2 * rho**2)
    return radial * (np.cos(m * theta) if m >= 0 else np.sin(-m * theta))


def test_numbering_is_relions() -> None:
    assert [aberrations.even_index(i) for i in range(9)] == RELION_EVEN
    assert [aberrations.odd_index(i) for i in range(7)] == RELION_ODD


@pytest.mark.parametrize(("m", "n"), RELION_EVEN + RELION_ODD)
def test_polynomials(k: torch.Tensor, m: int, n: int) -> None:
    np.testing.assert_allclose(aberrations.zernike(k, m, n).numpy(), oracle(k, m, n), atol=1e-13)


def test_phases_are_sums_of_the_right_parity(k: torch.Tensor) -> None:
    even = [0.1, 0.0, -2.0, 3.0, 40.0, -5.0, 60.0, 7.0, -8.0]
    odd = [1.0, -2.0, 30.0, -40.0, 50.0, 6.0]
    phase = aberrations.even_phase(k, even)
    expected = sum(c * oracle(k, *mn) for c, mn in zip(even, RELION_EVEN))
    np.testing.assert_allclose(phase.numpy(), expected, atol=1e-11)
    torch.testing.assert_close(aberrations.even_phase(-k, even), phase)
    antisymmetric = aberrations.odd_phase(k, odd, voltage=300.0, cs=2.7)
    expected = sum(c * oracle(k, *mn) for c, mn in zip(odd, RELION_ODD))
    np.testing.assert_allclose(antisymmetric.numpy(), expected, atol=1e-11)


def test_beam_tilt_is_the_cubic_zernike_pair_relion_makes_of_it(k: torch.Tensor) -> None:
    """A tilt t stands for Z(+-1, 3) of -2 pi Cs lambda^2 t / 3 and twice that of Z(+-1, 1)."""
    tilt, cs, wavelength = (0.7, -0.4), 2.7, 0.0196875
    size = [-np.pi * cs * 20000 * wavelength**2 * t / 3 for t in tilt]
    expected = sum(s * (oracle(k, m, 3) + 2 * oracle(k, m, 1)) for s, m in zip(size, (1, -1), strict=True))
    phase = aberrations.odd_phase(k, (), tilt, voltage=300.0, cs=cs)
    np.testing.assert_allclose(phase.numpy(), expected, rtol=1e-4, atol=1e-6)


def test_beam_tilt_has_the_size_torch_ctf_gives_it(k: torch.Tensor) -> None:
    from torch_ctf import apply_odd_zernikes

    kv, cs, tilt = torch.tensor(200.0), torch.tensor(1.4), torch.tensor([0.3, 0.9])
    rho, theta = k.norm(dim=-1), torch.atan2(k[..., 1], k[..., 0])
    theirs = apply_odd_zernikes(None, rho, theta, kv, cs, beam_tilt_mrad=tilt)
    ours = aberrations.odd_phase(k, (), (0.3, 0.9), voltage=200.0, cs=1.4)
    torch.testing.assert_close(ours, -theirs, rtol=1e-4, atol=1e-6)
