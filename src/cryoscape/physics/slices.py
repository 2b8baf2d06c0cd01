"""Central slices of a density map: volume to image in Fourier space.

The transforms here are *continuous* ones: F(k) = integral of the density times exp(-2 pi i k.x), phases
referred to the centre voxel. Such a value does not depend on the box or the voxel size, cropping and padding
leave it alone, and a slice compares directly with `gaussians.project_fourier`. Divide a slice by
``D * pixel_size**2`` for the unitary coefficients of `fourier.forward`.

A view is ``A @ x``, and an image frequency (kx, ky) therefore samples the volume at ``A.T @ (kx, ky, 0)``
(projection-slice theorem).
"""

from __future__ import annotations

import torch
from torch import Tensor


def _axis_sign(size: int, like: Tensor) -> Tensor:
    """(-1)^k along a full axis of an even grid: moves the phase origin to the centre voxel."""
    return 1.0 - 2.0 * (torch.arange(size, device=like.device) % 2).to(like.real.dtype)


def _centre_sign(size: int, like: Tensor) -> Tensor:
    full = _axis_sign(size, like)
    return full[:, None, None] * full[None, :, None] * full[None, None, : size // 2 + 1]


def interpolation_envelope(box: int, pad: int = 1, *, device: torch.device | str | None = None) -> Tensor:
    """What trilinear interpolation in Fourier space does to the map: a product of sinc^2 in real space.

    Parameters
    ----------
    box : int
        Side of the map.
    pad : int
        The Fourier grid is the one of a box this many times larger.
    device
        Of the result.

    Returns
    -------
    Tensor, shape (box, box, box)
        1 at the centre, falling to 0.066 in the corners without padding.
    """
    axis = (torch.arange(box, device=device, dtype=torch.float32) - box // 2) / (box * pad)
    sinc = torch.sinc(axis).square()
    return sinc[:, None, None] * sinc[None, :, None] * sinc[None, None, :]


def transform_volume(volume: Tensor, voxel_size: float, *, pad: int = 1, gridding: bool = False) -> Tensor:
    """Continuous Fourier transform of a map.

    Parameters
    ----------
    volume : Tensor, shape (..., D, D, D)
        (z, y, x), D even, density per cubic Angstrom.
    voxel_size : float
        Angstrom.
    pad : int
        Zero-pad to ``pad * D`` first: 2 halves the spacing of the Fourier grid that slices are
        interpolated on.
    gridding : bool
        Divide by the interpolation envelope first, so that slices taken with trilinear interpolation come out
        unattenuated. Leave off where the transform is not going to be interpolated.

    Returns
    -------
    Tensor, shape (..., M, M, M // 2 + 1) with M = pad * D
        Complex; the value at k = 0 is the integral of the density.

    Raises
    ------
    ValueError
        If the box is odd.
    """
    box = volume.shape[-1]
    if box % 2:
        raise ValueError(f"slices need an even box, got {box}")
    if gridding:
        volume = volume / interpolation_envelope(box, pad, device=volume.device)
    if pad > 1:
        margin = (pad - 1) * box // 2
        volume = torch.nn.functional.pad(volume, (margin,) * 6)
    coefficients = torch.fft.rfftn(volume, dim=(-3, -2, -1))
    return coefficients * (_centre_sign(volume.shape[-1], coefficients) * voxel_size**3)


def invert_volume(coefficients: Tensor, voxel_size: float) -> Tensor:
    """Map from its continuous transform: the inverse of `transform_volume` without padding.

    Parameters
    ----------
    coefficients : Tensor, shape (..., M, M, M // 2 + 1)
        Complex.
    voxel_size : float
        Of the map to make, Angstrom.

    Returns
    -------
    Tensor, shape (..., M, M, M)
        Density per cubic Angstrom.
    """
    size = coefficients.shape[-2]
    signed = coefficients * (_centre_sign(size, coefficients) / voxel_size**3)
    return torch.fft.irfftn(signed, s=(size, size, size), dim=(-3, -2, -1))


def crop_volume(coefficients: Tensor, box_out: int) -> Tensor:
    """Keep the low frequencies of a volume's transform.

    Parameters
    ----------
    coefficients : Tensor, shape (..., M, M, M // 2 + 1)
        Complex or real (weights are cropped in the same way).
    box_out : int
        Even side, at most M.

    Returns
    -------
    Tensor, shape (..., box_out, box_out, box_out // 2 + 1)

    Raises
    ------
    ValueError
        If `box_out` is odd or larger than the box.
    """
    size = coefficients.shape[-2]
    if box_out % 2 or box_out > size:
        raise ValueError(f"cannot crop a box of {size} to {box_out}: an even number up to {size} is needed")
    if box_out == size:
        return coefficients
    h = box_out // 2
    keep = torch.cat([torch.arange(h), torch.arange(size - h, size)]).to(coefficients.device)
    return coefficients.index_select(-3, keep).index_select(-2, keep)[..., : h + 1]


def half_plane(
    box: int, *, independent: bool = False, device: torch.device | str | None = None
) -> tuple[Tensor, Tensor]:
    """The coefficients of an image inside the inscribed circle.

    Parameters
    ----------
    box : int
        Even side.
    independent : bool
        Leave out the constant term and one member of every conjugate pair of column kx = 0, so that each
        independent coefficient is listed once.
    device
        Of the result.

    Returns
    -------
    index : Tensor, shape (P,), int64
        Position in the flattened half-plane (box, box // 2 + 1).
    frequency : Tensor, shape (P, 2), float32
        (kx, ky) in units of 1 / (box * pixel_size).
    """
    ky = torch.fft.fftfreq(box, d=1.0 / box, device=device)[:, None].expand(-1, box // 2 + 1)
    kx = torch.arange(box // 2 + 1, device=device, dtype=torch.float32).expand(box, -1)
    inside = kx**2 + ky**2 < (box // 2) ** 2
    if independent:
        inside &= (kx > 0) | (ky > 0)
    index = inside.reshape(-1).nonzero()[:, 0]
    return index, torch.stack([kx.reshape(-1)[index], ky.reshape(-1)[index]], dim=-1)


def trilinear_corners(frequencies: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """The eight grid points around each frequency, in the half-space that `rfftn` stores.

    Parameters
    ----------
    frequencies : Tensor, shape (..., 3)
        (qx, qy, qz) in grid units, inside the sphere of radius size / 2.
    size : int
        Side M of the volume.

    Returns
    -------
    index : Tensor, shape (8, ...), int64
        Positions in the flattened (M, M, M // 2 + 1).
    weight : Tensor, shape (8, ...)
        Trilinear weights; they add up to 1.
    conjugate : Tensor, shape (...), bool
        True where the stored point is the Friedel mate, so that the value must be conjugated.
    """
    conjugate = frequencies[..., 0] < 0
    q = torch.where(conjugate[..., None], -frequencies, frequencies)
    low = q.floor()
    fraction = q - low
    low = low.long()
    half = size // 2 + 1
    x = torch.stack([low[..., 0], (low[..., 0] + 1).clamp(max=half - 1)])
    y = torch.stack([low[..., 1] % size, (low[..., 1] + 1) % size]) * half
    z = torch.stack([low[..., 2] % size, (low[..., 2] + 1) % size]) * (half * size)
    wx, wy, wz = (torch.stack([1 - fraction[..., i], fraction[..., i]]) for i in range(3))
    index = z[:, None, None] + y[None, :, None] + x[None, None, :]
    weight = wz[:, None, None] * wy[None, :, None] * wx[None, None, :]
    return index.flatten(0, 2), weight.flatten(0, 2), conjugate


def extract_slices(volume_rfft: Tensor, rotations: Tensor, box: int | None = None) -> Tensor:
    """Central slices: the transforms of projections along z of the rotated map.

    Parameters
    ----------
    volume_rfft : Tensor, shape (..., M, M, M // 2 + 1)
        From `transform_volume`; leading axes (a basis of maps) are kept. Differentiable.
    rotations : Tensor, shape (B, 3, 3)
        From model to view.
    box : int, optional
        Even side of the images; M must be a whole multiple of it (that multiple is the padding).
        Default: M.

    Returns
    -------
    Tensor, shape (..., B, box, box // 2 + 1)
        Complex, layout of `fourier.forward`, continuous units. Frequencies outside the inscribed circle are
        0; the constant term is the integral of the map.

    Raises
    ------
    ValueError
        If M is not a multiple of the box.
    """
    size = volume_rfft.shape[-2]
    box = size if box is None else box
    if size % box or box % 2:
        raise ValueError(f"slices of side {box} need an even divisor of the transform's side {size}")
    index, k = half_plane(box, device=volume_rfft.device)
    q = torch.einsum("pi,bij->bpj", k * (size // box), rotations[:, :2].to(k.dtype))
    corners, weight, conjugate = trilinear_corners(q, size)
    flat = volume_rfft.flatten(-3)
    value = flat[..., corners[0]] * weight[0]
    for i in range(1, 8):
        value = value + flat[..., corners[i]] * weight[i]
    value = torch.where(conjugate, value.conj(), value)
    lead = (*volume_rfft.shape[:-3], len(rotations))
    out = value.new_zeros(*lead, box * (box // 2 + 1)).index_copy(-1, index, value)
    return out.reshape(*lead, box, box // 2 + 1)
