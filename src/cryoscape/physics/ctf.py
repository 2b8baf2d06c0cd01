"""The contrast transfer function, with RELION's formula and sign.

    CTF(k) = -s exp(-B k^2 / 4) sin(gamma(k)),
    gamma = -pi lam dz k^2 + pi/2 Cs lam^3 k^4 - phi - arctan(Q0 / sqrt(1 - Q0^2))

so that CTF(0) = +Q0 (amplitude contrast) and protein is positive. The defocus term is the quadratic
form U k_u^2 + V k_v^2 of the frequency along the two astigmatism axes: it needs no arctangent, is
symmetric under swapping (U, V) and turning the angle by 90 degrees, and has a finite gradient at U = V.

Source: RELION, `src/ctf.h`; Rohou and Grigorieff, J. Struct. Biol. 192 (2015), equations 3 to 5.
"""

from __future__ import annotations

import torch
from torch import Tensor


def electron_wavelength(voltage: Tensor | float) -> Tensor:
    """Relativistic wavelength of the electron.

    Parameters
    ----------
    voltage : Tensor or float
        Acceleration voltage in kV.

    Returns
    -------
    Tensor
        Angstrom.
    """
    volts = torch.as_tensor(voltage, dtype=torch.float64) * 1e3
    return 12.2643247 / torch.sqrt(volts * (1.0 + 0.978466e-6 * volts))


def ctf_coefficients(
    defocus_u: Tensor,
    defocus_v: Tensor,
    defocus_angle: Tensor,
    *,
    voltage: Tensor | float,
    cs: Tensor | float,
    amplitude_contrast: Tensor | float,
    phase_shift: Tensor | float = 0.0,
) -> Tensor:
    """Coefficients of the phase aberration on the basis (kx^2, ky^2, kx ky, k^4, 1).

    Parameters
    ----------
    defocus_u, defocus_v : Tensor, shape (B,)
        Defocus along the two axes, Angstrom, underfocus positive.
    defocus_angle : Tensor, shape (B,)
        From the x axis to the U axis, degrees.
    voltage : Tensor or float
        kV.
    cs : Tensor or float
        Spherical aberration, mm.
    amplitude_contrast : Tensor or float
        Fraction Q0.
    phase_shift : Tensor or float
        Phase plate, degrees.

    Returns
    -------
    Tensor, shape (B, 5), float64
        gamma(k) = coefficients @ basis(k), in radians.
    """
    u, v, angle = (torch.as_tensor(x).double() for x in (defocus_u, defocus_v, defocus_angle))
    cos, sin = torch.cos(torch.deg2rad(angle)), torch.sin(torch.deg2rad(angle))
    wavelength = electron_wavelength(voltage).to(u.device)
    q0 = torch.as_tensor(amplitude_contrast).double().to(u.device)
    phi = torch.deg2rad(torch.as_tensor(phase_shift).double().to(u.device))
    cs_angstrom = torch.as_tensor(cs).double().to(u.device) * 1e7
    parts = [
        -torch.pi * wavelength * (u * cos**2 + v * sin**2),
        -torch.pi * wavelength * (u * sin**2 + v * cos**2),
        -torch.pi * wavelength * 2 * (u - v) * cos * sin,
        torch.pi / 2 * cs_angstrom * wavelength**3 + torch.zeros_like(u),
        -phi - torch.arctan(q0 / torch.sqrt(1 - q0**2)) + torch.zeros_like(u),
    ]
    return torch.stack(parts, dim=-1)


def aberration_basis(frequencies: Tensor) -> Tensor:
    """The five functions (kx^2, ky^2, kx ky, k^4, 1) at every frequency.

    Parameters
    ----------
    frequencies : Tensor, shape (D, D // 2 + 1, 2)
        1/Angstrom.

    Returns
    -------
    Tensor, shape (5, D * (D // 2 + 1)), float64
    """
    kx, ky = frequencies.double().reshape(-1, 2).unbind(-1)
    return torch.stack([kx**2, ky**2, kx * ky, (kx**2 + ky**2) ** 2, torch.ones_like(kx)])


def ctf(
    frequencies: Tensor,
    defocus_u: Tensor,
    defocus_v: Tensor,
    defocus_angle: Tensor,
    voltage: Tensor | float,
    cs: Tensor | float,
    amplitude_contrast: Tensor | float,
    phase_shift: Tensor | float = 0.0,
    bfactor: Tensor | float = 0.0,
    scale: Tensor | float = 1.0,
) -> Tensor:
    """Contrast transfer function of every particle.

    Parameters
    ----------
    frequencies : Tensor, shape (D, D // 2 + 1, 2)
        1/Angstrom, from `fourier.frequency_grid` of the box in use: after a Fourier crop the pixel
        size changes and the defocus does not.
    defocus_u, defocus_v, defocus_angle : Tensor, shape (B,)
        Angstrom, Angstrom, degrees.
    voltage, cs, amplitude_contrast, phase_shift : Tensor or float
        kV, mm, fraction, degrees; scalars or shape (B,).
    bfactor : Tensor or float
        Envelope exp(-B k^2 / 4), Angstrom^2.
    scale : Tensor or float
        Factor of the whole function.

    Returns
    -------
    Tensor, shape (B, D, D // 2 + 1), float32
    """
    coefficients = ctf_coefficients(
        defocus_u,
        defocus_v,
        defocus_angle,
        voltage=voltage,
        cs=cs,
        amplitude_contrast=amplitude_contrast,
        phase_shift=phase_shift,
    )
    basis = aberration_basis(frequencies.to(coefficients.device))
    shape = (coefficients.shape[0], *frequencies.shape[:2])
    # Phases reach hundreds of radians: the product is double, the sine may be single.
    values = -torch.sin(torch.remainder(coefficients @ basis, 2 * torch.pi).float()).reshape(shape)
    b = torch.as_tensor(bfactor, dtype=torch.float32, device=values.device).reshape(-1, 1, 1)
    if bool((b != 0).any()):
        k2 = frequencies.to(values.device).square().sum(-1)
        values = values * torch.exp(-0.25 * b * k2)
    return values * torch.as_tensor(scale, dtype=torch.float32, device=values.device).reshape(-1, 1, 1)
