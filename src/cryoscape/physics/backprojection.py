"""Plain back-projection: images with known poses to two half maps.

Every image coefficient is put at its place in the volume with trilinear weights; a voxel's value is the
least-squares estimate from all that fell there,

    V(q) = sum_i C_i X_i / (sum_i C_i^2 + tau(|q|)),

with X_i recentred images and C_i transfer functions. tau is a small part of the shell's mean weight, which
only keeps empty voxels finite, or the ratio of noise and signal found from two halves, which makes V the
Wiener estimate. Images are streamed, so memory is that of the accumulators alone.

Source: Grigorieff, J. Struct. Biol. 157 (2007), equation 6; Penczek, Methods Enzymol. 482 (2010).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from cryoscape.physics.resolution import radial_average, volume_shells
from cryoscape.physics.slices import half_plane, interpolation_envelope, invert_volume, trilinear_corners

POINTS = 50_000
"""Fourier coefficients inserted at a time: their tables of eight neighbours take about 10 MB."""


@dataclass(frozen=True)
class SliceBatch:
    """Some images ready to be inserted.

    Attributes
    ----------
    coefficients : Tensor, shape (B, M, M // 2 + 1)
        Unitary, recentred (the shift already taken out), cropped to the working box; complex.
    transfer : Tensor, shape (B, M, M // 2 + 1)
        What multiplied the projection: contrast transfer function, envelope and scale.
    rotations : Tensor, shape (B, 3, 3)
        From model to view.
    halves : Tensor, shape (B,)
        1 or 2.
    weights : Tensor, shape (B,), optional
        Responsibility of each image for this map, 0 to 1; default 1.
    """

    coefficients: Tensor
    transfer: Tensor
    rotations: Tensor
    halves: Tensor
    weights: Tensor | None = None


@dataclass(frozen=True)
class Accumulated:
    """Sums of a back-projection, by half.

    Attributes
    ----------
    numerator : Tensor, shape (2, M, M, M // 2 + 1)
        sum of C X in continuous units (electrons), complex.
    denominator : Tensor, shape (2, M, M, M // 2 + 1)
        sum of C^2.
    count : tuple of float
        Images (sum of weights) in each half.
    voxel_size : float
        Angstrom.
    """

    numerator: Tensor
    denominator: Tensor
    count: tuple[float, float]
    voxel_size: float

    @property
    def box(self) -> int:
        """Side M of the volume."""
        return self.numerator.shape[-2]


@dataclass(frozen=True)
class Volumes:
    """Half maps and their sum.

    Attributes
    ----------
    half1, half2, both : Tensor, shape (M, M, M)
        (z, y, x), density per cubic Angstrom in the scale of the images.
    voxel_size : float
        Angstrom.
    count : tuple of float
        Images in each half.
    """

    half1: Tensor
    half2: Tensor
    both: Tensor
    voxel_size: float
    count: tuple[float, float]


class BackProjector:
    """Streaming accumulator of central slices.

    Parameters
    ----------
    box : int
        Even side M of the working box.
    pixel_size : float
        Angstrom per pixel of the working box.
    image_box : int
        Side of the images before they were cropped in Fourier space; it fixes the scale of the coefficients.
    device : torch.device, optional
        Of the accumulators.
    """

    def __init__(
        self, box: int, pixel_size: float, image_box: int, *, device: torch.device | str | None = None
    ) -> None:
        self.box, self.pixel_size = box, pixel_size
        image_pixel = pixel_size * box / image_box
        self.scale = image_box * image_pixel**2
        self.index, self.frequency = half_plane(box, independent=True, device=device)
        self.cells = box * box * (box // 2 + 1)
        self.sums = torch.zeros(3, 2 * self.cells, device=device)
        self.count = [0.0, 0.0]

    def insert(self, batch: SliceBatch) -> None:
        """Add some images.

        Parameters
        ----------
        batch : SliceBatch
            Any number of images; they are worked off in parts that fit in a processor's cache.
        """
        n = max(1, POINTS // len(self.index))
        for part in torch.arange(len(batch.coefficients)).split(n):
            self._insert(
                SliceBatch(
                    batch.coefficients[part],
                    batch.transfer[part],
                    batch.rotations[part],
                    batch.halves[part],
                    None if batch.weights is None else batch.weights[part],
                )
            )

    def _insert(self, batch: SliceBatch) -> None:
        device = self.sums.device
        x = batch.coefficients.to(device).flatten(1)[:, self.index] * self.scale
        c = batch.transfer.to(device).flatten(1)[:, self.index]
        weights = torch.ones(len(x)) if batch.weights is None else batch.weights
        weights = weights.to(device=device, dtype=c.dtype)
        rotations = batch.rotations[:, :2].to(device=device, dtype=c.dtype)
        q = torch.einsum("pi,bij->bpj", self.frequency, rotations)
        corners, fraction, conjugate = trilinear_corners(q, self.box)
        second = (batch.halves == 2).to(device)
        corners = corners + (second * self.cells)[None, :, None]
        value = x * c * weights[:, None]
        parts = (value.real, torch.where(conjugate, -value.imag, value.imag), c.square() * weights[:, None])
        for total, part in zip(self.sums, parts, strict=True):
            total.index_add_(0, corners.reshape(-1), (fraction * part).reshape(-1))
        self.count[0] += float(weights[~second].sum())
        self.count[1] += float(weights[second].sum())

    def finish(self) -> Accumulated:
        """The sums so far, completed by Friedel symmetry.

        Returns
        -------
        Accumulated
        """
        m = self.box
        real, imag, weight = self.sums.reshape(3, 2, m, m, m // 2 + 1)
        # Only one member of each pair was inserted: in plane kx = 0 its mate's place must get its share.
        mate = (-torch.arange(m, device=real.device)) % m
        plane = torch.complex(real[..., 0], imag[..., 0])
        plane = plane + plane[:, mate][:, :, mate].conj()
        numerator = torch.complex(real, imag)
        numerator[..., 0] = plane
        denominator = weight.clone()
        denominator[..., 0] += weight[:, mate][:, :, mate, 0]
        return Accumulated(numerator, denominator, (self.count[0], self.count[1]), self.pixel_size)


def solve(
    accumulated: Accumulated, *, floor: float = 0.05, tau: Tensor | None = None, gridding: bool = True
) -> Volumes:
    """Half maps from the sums.

    Parameters
    ----------
    accumulated : Accumulated
        From `BackProjector.finish`.
    floor : float
        tau as a part of the mean weight of the shell.
    tau : Tensor, shape (M // 2 + 1,), optional
        tau of every shell itself, in place of `floor`; see `signal_to_noise_tau`.
    gridding : bool
        Divide the maps by the interpolation envelope (noise rises towards the corners of the box).

    Returns
    -------
    Volumes
    """
    halves = [
        _divide(n, d, floor, tau) for n, d in zip(accumulated.numerator, accumulated.denominator, strict=True)
    ]
    halves.append(_divide(accumulated.numerator.sum(0), accumulated.denominator.sum(0), floor, tau))
    maps = [invert_volume(h, accumulated.voxel_size) for h in halves]
    if gridding:
        envelope = interpolation_envelope(accumulated.box, device=maps[0].device)
        maps = [m / envelope for m in maps]
    return Volumes(maps[0], maps[1], maps[2], accumulated.voxel_size, accumulated.count)


def signal_to_noise_tau(accumulated: Accumulated, correlation: Tensor) -> Tensor:
    """Wiener term of each shell from the correlation F of the half maps.

    A half map of mean weight W has the signal-to-noise ratio F / (1 - F) = W / tau, which gives tau; it is
    the ratio of noise and signal variance, so it holds for the halves and for their sum alike.

    Source: Scheres, J. Struct. Biol. 180 (2012), equations 9 to 11.

    Parameters
    ----------
    accumulated : Accumulated
    correlation : Tensor, shape (M // 2 + 1,)
        Of the half maps; shells at or below 0 are emptied by `solve`.

    Returns
    -------
    Tensor, shape (M // 2 + 1,), float64
    """
    weight = radial_average(accumulated.denominator.mean(0))
    f = correlation.to(weight).clamp(0.0, 0.9999)
    return torch.where(f > 0, weight * (1 - f) / f.clamp(min=1e-9), torch.inf)


def _divide(numerator: Tensor, denominator: Tensor, floor: float, tau: Tensor | None) -> Tensor:
    shell_tau = floor * radial_average(denominator) if tau is None else tau
    shells = volume_shells(denominator.shape[0], device=denominator.device).clamp(max=len(shell_tau) - 1)
    per_cell = shell_tau[shells].to(denominator.dtype)
    inside = denominator > 0
    return torch.where(
        inside, numerator / (denominator + per_cell).clamp(min=1e-30), torch.zeros_like(numerator)
    )


def accumulate(
    batches: Iterable[SliceBatch],
    box: int,
    pixel_size: float,
    image_box: int,
    *,
    device: torch.device | str | None = None,
) -> Accumulated:
    """Insert all batches; see `BackProjector` for the parameters.

    Returns
    -------
    Accumulated
    """
    projector = BackProjector(box, pixel_size, image_box, device=device)
    for batch in batches:
        projector.insert(batch)
    return projector.finish()


def back_project(
    batches: Iterable[SliceBatch],
    box: int,
    pixel_size: float,
    image_box: int,
    *,
    floor: float = 0.05,
    device: torch.device | str | None = None,
) -> Volumes:
    """Half maps from a stream of images.

    Parameters
    ----------
    batches : iterable of SliceBatch
        Any number, one at a time in memory.
    box : int
        Even side of the working box.
    pixel_size : float
        Of the working box, Angstrom.
    image_box : int
        Side of the images before the Fourier crop.
    floor : float
        See `solve`.
    device
        Of the accumulators.

    Returns
    -------
    Volumes
    """
    return solve(accumulate(batches, box, pixel_size, image_box, device=device), floor=floor)
