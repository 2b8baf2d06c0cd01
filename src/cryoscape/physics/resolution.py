"""Shells of Fourier space: correlation, radial averages and the resolution they give."""

from __future__ import annotations

import torch
from torch import Tensor


def volume_shells(box: int, *, device: torch.device | str | None = None) -> Tensor:
    """Number of the resolution shell of every coefficient of a volume, round(|k| * box * voxel_size).

    Parameters
    ----------
    box : int
        Even side.
    device
        Of the result.

    Returns
    -------
    Tensor, shape (box, box, box // 2 + 1), int64
    """
    k = torch.fft.fftfreq(box, d=1.0 / box, device=device, dtype=torch.float64).square()
    x = torch.arange(box // 2 + 1, device=device, dtype=torch.float64).square()
    return (k[:, None, None] + k[None, :, None] + x).sqrt().round().long()


def pair_weights(box: int, *, device: torch.device | str | None = None) -> Tensor:
    """How many coefficients of the full transform each stored one stands for.

    Returns
    -------
    Tensor, shape (box // 2 + 1,)
        Along kx: 1 for the first and last plane, which hold both members of a conjugate pair, and 2 between.
    """
    weights = torch.full((box // 2 + 1,), 2.0, device=device)
    weights[0] = weights[-1] = 1.0
    return weights


def shell_sum(values: Tensor) -> Tensor:
    """Sum over each shell of the full transform.

    Parameters
    ----------
    values : Tensor, shape (D, D, D // 2 + 1)
        Real quantity on the half-space, equal at k and -k.

    Returns
    -------
    Tensor, shape (D // 2 + 1,), float64
        Shell s at s / (D * voxel_size).
    """
    box = values.shape[0]
    weighted = (values.double() * pair_weights(box, device=values.device)).reshape(-1)
    shells = volume_shells(box, device=values.device).reshape(-1)
    sums = torch.zeros(int(shells.max()) + 1, dtype=torch.float64, device=values.device)
    return sums.index_add_(0, shells, weighted)[: box // 2 + 1]


def shell_correlation(a: Tensor, b: Tensor, weights: Tensor | None = None) -> Tensor:
    """Correlation coefficient of two transforms in every shell.

    Parameters
    ----------
    a, b : Tensor, shape (D, D, D // 2 + 1)
        Complex, same phase origin.
    weights : Tensor, shape (D, D, D // 2 + 1), optional
        Non-negative weight of every coefficient.

    Returns
    -------
    Tensor, shape (D // 2 + 1,), float64
        0 in shells where one of the two is empty.
    """
    w = torch.ones_like(a.real) if weights is None else weights
    cross = shell_sum(w * (a * b.conj()).real)
    power = shell_sum(w * a.abs().square()) * shell_sum(w * b.abs().square())
    return torch.where(power > 0, cross / power.clamp(min=1e-300).sqrt(), torch.zeros_like(cross))


def fsc(a: Tensor, b: Tensor, mask: Tensor | None = None) -> Tensor:
    """Fourier shell correlation of two maps.

    Source: Harauz and van Heel, Optik 73 (1986).

    Parameters
    ----------
    a, b : Tensor, shape (D, D, D)
        D even.
    mask : Tensor, shape (D, D, D), optional
        Multiplies both maps first. A sharp mask correlates by itself: use a soft one.

    Returns
    -------
    Tensor, shape (D // 2 + 1,), float64
        Shell s at s / (D * voxel_size).

    Raises
    ------
    ValueError
        If the shapes differ, are not cubes or are odd.
    """
    if a.shape != b.shape or a.dim() != 3 or len(set(a.shape)) != 1 or a.shape[0] % 2:
        raise ValueError(f"two cubes of the same even side are needed, not {[*a.shape]}, {[*b.shape]}")
    if mask is not None:
        a, b = a * mask, b * mask
    return shell_correlation(torch.fft.rfftn(a), torch.fft.rfftn(b))


def resolution_at(curve: Tensor, threshold: float, box: int, voxel_size: float) -> float:
    """Resolution where a shell correlation first falls below a threshold.

    Parameters
    ----------
    curve : Tensor, shape (S,)
        From `fsc`; shell 0 is ignored (the mean of a map is not a resolution).
    threshold : float
        0.143 for half maps, 0.5 for a map against a model (Rosenthal and Henderson, J. Mol. Biol. 333, 2003).
    box : int
        Side of the maps.
    voxel_size : float
        Angstrom.

    Returns
    -------
    float
        Angstrom, with the crossing interpolated linearly in frequency; the last shell's resolution where the
        curve never falls below, and infinity where it starts below.
    """
    below = (curve[1:] < threshold).nonzero()
    if len(below) == 0:
        return box * voxel_size / (len(curve) - 1)
    shell = int(below[0, 0]) + 1
    if shell == 1:
        return float("inf")
    before, after = float(curve[shell - 1]), float(curve[shell])
    crossing = shell - 1 + (before - threshold) / (before - after)
    return box * voxel_size / crossing


def reference_correlation(half_fsc: Tensor) -> Tensor:
    """Correlation of the map from all the data with the noise-free one: sqrt(2 F / (1 + F)).

    Source: Rosenthal and Henderson, J. Mol. Biol. 333 (2003).

    Parameters
    ----------
    half_fsc : Tensor
        Correlation F of two half maps; negative values count as 0.

    Returns
    -------
    Tensor
        Same shape.
    """
    f = half_fsc.clamp(0.0, 1.0)
    return (2 * f / (1 + f)).sqrt()


def radial_average(values: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean over each shell of a volume's half-space or ring of an image's half-plane.

    Parameters
    ----------
    values : Tensor, shape (D, D, D // 2 + 1) or (D, D // 2 + 1)
        Real.
    weights : Tensor, optional
        Same shape: a weighted mean.

    Returns
    -------
    Tensor, shape (D // 2 + 1,), float64
        0 where a shell has no weight.
    """
    if values.dim() == 2:
        values = values[None]
        weights = None if weights is None else weights[None]
        shells = volume_shells(values.shape[1], device=values.device)[:1]
    else:
        shells = volume_shells(values.shape[1], device=values.device)
    box = values.shape[1]
    w = torch.ones_like(values) if weights is None else weights
    w = (w.double() * pair_weights(box, device=values.device)).reshape(-1)
    total = torch.zeros(int(shells.max()) + 1, dtype=torch.float64, device=values.device)
    norm = torch.zeros_like(total).index_add_(0, shells.reshape(-1), w)
    total.index_add_(0, shells.reshape(-1), w * values.double().reshape(-1))
    return (total / norm.clamp(min=1e-300))[: box // 2 + 1]


def soft_sphere(box: int, radius: float, edge: float, *, device: torch.device | str | None = None) -> Tensor:
    """Spherical mask with a raised-cosine edge, about the centre voxel.

    Parameters
    ----------
    box : int
        Side in voxels.
    radius : float
        Where the edge begins, voxels.
    edge : float
        Its width, voxels.
    device
        Of the result.

    Returns
    -------
    Tensor, shape (box, box, box)
        1 inside, 0 outside.
    """
    axis = (torch.arange(box, device=device, dtype=torch.float32) - box // 2).square()
    r = (axis[:, None, None] + axis[None, :, None] + axis).sqrt()
    return 0.5 + 0.5 * torch.cos(torch.pi * ((r - radius) / edge).clamp(0.0, 1.0))
