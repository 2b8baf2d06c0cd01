"""Images and their Fourier coefficients.

One layout everywhere: a real image of shape ``(..., D, D)`` (row y, column x, origin at pixel
``D // 2``) has the half-plane of coefficients ``(..., D, D // 2 + 1)``, rows ky in the order of
``fftfreq``, columns kx from 0 up. The transform is unitary (``norm="ortho"``), so white noise of
variance s2 per pixel has ``E|X(k)|^2 = s2`` in every coefficient, and its phases refer to the
centre pixel, so that a centred point has real, positive coefficients.
"""

from __future__ import annotations

import torch
from torch import Tensor


def frequency_grid(
    box: int,
    pixel_size: float,
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Spatial frequencies of the half-plane.

    Parameters
    ----------
    box : int
        Side of the image in pixels.
    pixel_size : float
        Angstrom per pixel.
    device, dtype
        Of the result.

    Returns
    -------
    Tensor, shape (box, box // 2 + 1, 2)
        (kx, ky) in 1/Angstrom.
    """
    ky = torch.fft.fftfreq(box, d=pixel_size, dtype=torch.float64)
    kx = torch.fft.rfftfreq(box, d=pixel_size, dtype=torch.float64)
    grid = torch.stack([kx.expand(box, -1), ky[:, None].expand(-1, box // 2 + 1)], dim=-1)
    return grid.to(device=device, dtype=dtype)


def _centre_sign(box: int, like: Tensor) -> Tensor:
    """exp(+2 pi i k c) for the centre c = box // 2: it is (-1)^(kx + ky) for even boxes."""
    c = box // 2
    ky = torch.fft.fftfreq(box, d=1.0 / box, dtype=torch.float64, device=like.device)
    kx = torch.fft.rfftfreq(box, d=1.0 / box, dtype=torch.float64, device=like.device)
    angle = 2 * torch.pi * c / box * (ky[:, None] + kx[None, :])
    if box % 2 == 0:
        return torch.cos(angle).round().to(like.real.dtype)
    return torch.polar(torch.ones_like(angle), angle).to(like.dtype)


def forward(images: Tensor) -> Tensor:
    """Unitary Fourier transform with the origin at the centre pixel.

    Parameters
    ----------
    images : Tensor, shape (..., D, D)
        Real images.

    Returns
    -------
    Tensor, shape (..., D, D // 2 + 1)
        Complex coefficients.
    """
    coefficients = torch.fft.rfft2(images, norm="ortho")
    return coefficients * _centre_sign(images.shape[-1], coefficients)


def inverse(coefficients: Tensor, box: int) -> Tensor:
    """Images from coefficients: the inverse of `forward`.

    Parameters
    ----------
    coefficients : Tensor, shape (..., D, D // 2 + 1)
        Complex coefficients.
    box : int
        D, which the half-plane alone does not tell.

    Returns
    -------
    Tensor, shape (..., D, D)
        Real images.
    """
    sign = _centre_sign(box, coefficients)
    if sign.is_complex():
        sign = sign.conj()
    return torch.fft.irfft2(coefficients * sign, s=(box, box), norm="ortho")


def crop(coefficients: Tensor, box_out: int) -> Tensor:
    """Keep the low frequencies: rows -box_out/2 .. box_out/2 - 1, columns 0 .. box_out/2.

    The values are untouched (the normalisation stays that of the large box), so the noise
    variance per coefficient is the same before and after. Exact for a band-limited analysis.

    Parameters
    ----------
    coefficients : Tensor, shape (..., D, D // 2 + 1)
        Half-plane of the large box.
    box_out : int
        Even side of the small box, at most D.

    Returns
    -------
    Tensor, shape (..., box_out, box_out // 2 + 1)

    Raises
    ------
    ValueError
        If `box_out` is odd or larger than the box.
    """
    box = coefficients.shape[-2]
    if box_out % 2 or box_out > box:
        raise ValueError(f"cannot crop a box of {box} to {box_out}: an even number up to {box} is needed")
    if box_out == box:
        return coefficients
    h = box_out // 2
    return torch.cat([coefficients[..., :h, : h + 1], coefficients[..., -h:, : h + 1]], dim=-2)


def pad(coefficients: Tensor, box_out: int) -> Tensor:
    """Put the half-plane of a small even box into a larger one, zeros outside.

    Parameters
    ----------
    coefficients : Tensor, shape (..., d, d // 2 + 1)
        Half-plane of the small box.
    box_out : int
        Side of the large box.

    Returns
    -------
    Tensor, shape (..., box_out, box_out // 2 + 1)
    """
    box = coefficients.shape[-2]
    if box_out == box:
        return coefficients
    h = box // 2
    out = coefficients.new_zeros((*coefficients.shape[:-2], box_out, box_out // 2 + 1))
    out[..., :h, : h + 1] = coefficients[..., :h, :]
    out[..., -h:, : h + 1] = coefficients[..., h:, :]
    return out


def shift_phase(shifts: Tensor, frequencies: Tensor) -> Tensor:
    """Phase ramp that moves an image: exp(-2 pi i k.t).

    Parameters
    ----------
    shifts : Tensor, shape (B, 2)
        (x, y) in Angstrom; positive x moves the image to higher columns.
    frequencies : Tensor, shape (D, D // 2 + 1, 2)
        From `frequency_grid`.

    Returns
    -------
    Tensor, shape (B, D, D // 2 + 1)
        Complex, modulus 1.
    """
    angle = -2 * torch.pi * torch.einsum("bi,yxi->byx", shifts, frequencies)
    return torch.polar(torch.ones_like(angle), angle)


def shell_index(box: int, *, device: torch.device | str | None = None) -> Tensor:
    """Number of the resolution shell of every coefficient, round(|k| in units of 1/box).

    Returns
    -------
    Tensor, shape (box, box // 2 + 1), int64
        Shell s holds the frequencies near s / (box * pixel_size).
    """
    grid = frequency_grid(box, 1.0 / box, device=device, dtype=torch.float64)
    return grid.norm(dim=-1).round().long()


def hermitian_weights(box: int, *, device: torch.device | str | None = None) -> Tensor:
    """How many independent-looking coefficients of the full plane each one stands for.

    2 for the columns whose conjugates are left out, 1 for column 0 and, in even boxes, the
    Nyquist column, where both members of a pair are present. The weights add up to box^2.

    Returns
    -------
    Tensor, shape (box, box // 2 + 1), float32
    """
    weights = torch.full((box, box // 2 + 1), 2.0, device=device)
    weights[:, 0] = 1.0
    if box % 2 == 0:
        weights[:, -1] = 1.0
    return weights


def band_weights(
    box: int, pixel_size: float, cutoff: float, *, device: torch.device | str | None = None
) -> Tensor:
    """Weights of the likelihood's sum: Hermitian weights inside the band, 0 outside and at k = 0.

    The constant term is left out because the mean of a particle image is not a measurement.
    The Nyquist row and column of an even box are left out because a crop splits their pairs.

    Parameters
    ----------
    box : int
        Side of the (cropped) box.
    pixel_size : float
        Angstrom per pixel of that box.
    cutoff : float
        Resolution limit in Angstrom.
    device
        Of the result.

    Returns
    -------
    Tensor, shape (box, box // 2 + 1), float32
    """
    radius = frequency_grid(box, pixel_size, device=device).norm(dim=-1)
    weights = hermitian_weights(box, device=device)
    inside = (radius <= 1.0 / cutoff) & (radius > 0)
    if box % 2 == 0:
        inside[box // 2, :] = False
        inside[:, -1] = False
    return weights * inside
