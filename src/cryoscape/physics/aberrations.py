"""Aberrations beyond defocus and spherical aberration, in RELION's conventions.

An optics group may carry Zernike coefficients. The even ones are added to the phase aberration inside the
CTF; the odd ones and the beam tilt multiply the image by exp(i phase). Coordinates of the polynomials are
spatial frequencies in 1/Angstrom, not fractions of an aperture, so coefficients do not depend on box or
pixel size. `torch-ctf` has leading powers (rho^3 cos theta, ...) where RELION has full Zernike polynomials
(3 rho^3 - 2 rho), so its functions only serve as a check of the beam tilt.

Source: Zivanov, Nakane and Scheres, IUCrJ 7 (2020) 253-267; numbering as in RELION's optics table.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from cryoscape.physics.ctf import electron_wavelength


def even_index(i: int) -> tuple[int, int]:
    """Azimuthal and radial order (m, n) of RELION's i-th even coefficient, from 0."""
    k = math.isqrt(i)
    return 2 * (i - k * k - k), 2 * k


def odd_index(i: int) -> tuple[int, int]:
    """Azimuthal and radial order (m, n) of RELION's i-th odd coefficient, from 0."""
    k = (math.isqrt(1 + 4 * i) - 1) // 2
    n = 2 * k + 1
    return 2 * (i - k * k - k) - n, n


def zernike(frequencies: Tensor, m: int, n: int) -> Tensor:
    """R_n^|m|(rho) cos(m theta), for negative m R_n^|m|(rho) sin(|m| theta).

    Parameters
    ----------
    frequencies : Tensor, shape (..., 2)
        (kx, ky), 1/Angstrom.
    m, n : int
        Azimuthal and radial order, |m| <= n, n - |m| even.

    Returns
    -------
    Tensor, shape (...), float64
    """
    k = frequencies.double()
    order = abs(m)
    # rho^|m| (cos + i sin)(|m| theta) is a power of kx + i ky: no arctangent, no trouble at the origin.
    turned = torch.complex(k[..., 0], k[..., 1]) ** order
    angular = turned.real if m >= 0 else turned.imag
    rho2 = k.square().sum(-1)
    half = (n - order) // 2
    radial = torch.zeros_like(rho2)
    for s in range(half + 1):
        size = math.factorial(n - s) // (
            math.factorial(s) * math.factorial((n + order) // 2 - s) * math.factorial(half - s)
        )
        radial += (-1) ** s * size * rho2 ** (half - s)
    return radial * angular


def even_phase(frequencies: Tensor, coefficients: Sequence[float]) -> Tensor:
    """What the symmetric aberrations add to the phase aberration gamma of the CTF.

    Parameters
    ----------
    frequencies : Tensor, shape (..., 2)
        1/Angstrom.
    coefficients : sequence of float
        `rlnEvenZernike`, radians.

    Returns
    -------
    Tensor, shape (...), float64
        Radians.
    """
    phase = torch.zeros(frequencies.shape[:-1], dtype=torch.float64)
    for i, value in enumerate(coefficients):
        if value:
            phase += value * zernike(frequencies, *even_index(i))
    return phase


def odd_phase(
    frequencies: Tensor,
    coefficients: Sequence[float],
    beam_tilt: tuple[float, float] = (0.0, 0.0),
    *,
    voltage: float,
    cs: float,
) -> Tensor:
    """Phase by which the antisymmetric aberrations multiply an image, exp(i phase).

    sum_i c_i Z_i(k) - 2 pi Cs lambda^2 |k|^2 (k . tilt). RELION writes either the tilt or the cubic
    coefficients; where a table has both, they add.

    Parameters
    ----------
    frequencies : Tensor, shape (..., 2)
        1/Angstrom.
    coefficients : sequence of float
        `rlnOddZernike`, radians.
    beam_tilt : tuple of two floats
        (x, y), mrad.
    voltage : float
        kV.
    cs : float
        Spherical aberration, mm.

    Returns
    -------
    Tensor, shape (...), float64
        Radians, odd in k.
    """
    k = frequencies.double()
    phase = torch.zeros(k.shape[:-1], dtype=torch.float64)
    for i, value in enumerate(coefficients):
        if value:
            phase += value * zernike(k, *odd_index(i))
    if any(beam_tilt):
        tilt = torch.tensor(beam_tilt, dtype=torch.float64) * 1e-3
        scale = 2 * torch.pi * cs * 1e7 * electron_wavelength(voltage) ** 2
        phase -= scale * k.square().sum(-1) * (k @ tilt)
    return phase
