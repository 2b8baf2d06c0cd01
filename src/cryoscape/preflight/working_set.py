"""A few thousand particles in memory, band-limited: what the pre-flight check works on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from cryoscape.data.checks import bad_pixels
from cryoscape.data.images import BandImages
from cryoscape.data.particles import check_pixels
from cryoscape.physics import fourier
from cryoscape.physics.backprojection import SliceBatch
from cryoscape.progress import ProgressReporter, reporter_or_silent

if TYPE_CHECKING:
    from cryoscape.data.particles import Particles

FINEST_RESOLUTION = 4.0
"""Angstrom. One bead a residue describes a density to about here; a quick look needs no more."""

SPECTRUM_IMAGES = 512
"""How many images the noise spectrum is estimated from."""

LARGEST_BOX = 128
"""Side of the working box at most: beyond it memory and time grow and a verdict gets no clearer."""


@dataclass(frozen=True)
class WorkingSet:
    """Images, poses and transfer functions of a sample of the particles.

    Attributes
    ----------
    coefficients : Tensor, shape (n, M, M // 2 + 1), complex64
        Unitary, cropped to the working box, *not* recentred: other readings of the shifts can be tried.
    transfer : Tensor, shape (n, M, M // 2 + 1), float32
        Contrast transfer functions.
    rotations : Tensor, shape (n, 3, 3), float32
        As read.
    shifts : Tensor, shape (n, 2), float32
        As read, Angstrom.
    halves : Tensor, shape (n,), int64
        1 or 2.
    background_sd : Tensor, shape (n,), float32
        Standard deviation of the pixels outside the inscribed circle of each image.
    noise_power : Tensor, shape (M // 2 + 1,), float64
        s2, the mean |X|^2 of the background in each ring, from the pixels outside the particle; of whole
        images where those are blank.
    masked : bool
        The stored images are blank outside the particle.
    pixel_size : float
        Of the working box, Angstrom.
    image_box : int
        Side of the images as stored.
    """

    coefficients: Tensor
    transfer: Tensor
    rotations: Tensor
    shifts: Tensor
    halves: Tensor
    background_sd: Tensor
    noise_power: Tensor
    masked: bool
    pixel_size: float
    image_box: int

    def __len__(self) -> int:
        return len(self.coefficients)

    @property
    def box(self) -> int:
        """Side M of the working box."""
        return self.coefficients.shape[-2]

    @property
    def image_pixel_size(self) -> float:
        """Angstrom per pixel of the stored images."""
        return self.pixel_size * self.box / self.image_box

    @property
    def image_scale(self) -> float:
        """Continuous units of a Fourier coefficient in one unitary unit."""
        return self.image_box * self.image_pixel_size**2

    def cropped(self, box: int) -> WorkingSet:
        """The same at lower resolution, in an even box of at most this side."""
        if box >= self.box:
            return self
        return replace(
            self,
            coefficients=fourier.crop(self.coefficients, box),
            transfer=fourier.crop(self.transfer, box),
            noise_power=self.noise_power[: box // 2 + 1],
            pixel_size=self.pixel_size * self.box / box,
        )

    def batches(
        self, rotations: Tensor | None = None, shifts: Tensor | None = None, *, limit: int | None = None
    ) -> Iterator[SliceBatch]:
        """Recentred images for a back-projection.

        Parameters
        ----------
        rotations, shifts : Tensor, optional
            In place of those read.
        limit : int, optional
            Only the first so many.

        Yields
        ------
        SliceBatch
            64 images each.
        """
        rotations = self.rotations if rotations is None else rotations
        shifts = self.shifts if shifts is None else shifts
        frequencies = fourier.frequency_grid(self.box, self.pixel_size)
        for rows in torch.arange(min(len(self), limit or len(self))).split(64):
            centred = self.coefficients[rows]
            if bool((shifts[rows] != 0).any()):
                centred = centred * fourier.shift_phase(-shifts[rows], frequencies)
            yield SliceBatch(centred, self.transfer[rows], rotations[rows], self.halves[rows])


def working_box(box: int, pixel_size: float) -> int:
    """Even side of the working box: to `FINEST_RESOLUTION`, `LARGEST_BOX` at most.

    Parameters
    ----------
    box : int
        Side of the images.
    pixel_size : float
        Angstrom.

    Returns
    -------
    int
    """
    wanted = 2 * round(box * pixel_size / FINEST_RESOLUTION)
    return max(8, min(wanted, LARGEST_BOX, box))


def load_working_set(
    particles: Particles, limit: int = 3000, seed: int = 0, progress: ProgressReporter | None = None
) -> WorkingSet:
    """Read a random sample of the particles.

    Parameters
    ----------
    particles : Particles
        With poses.
    limit : int
        How many at most.
    seed : int
        Of the sample.
    progress : ProgressReporter, optional
        Told as images come in.

    Returns
    -------
    WorkingSet
        In random order, so that a part of it is a sample too.

    Raises
    ------
    InputError
        If an image cannot be read or is not usable (see `Particles.images`).
    """
    rows = np.random.default_rng(seed).permutation(len(particles))[:limit]
    chosen = particles.select(np.sort(rows))
    place = torch.from_numpy(np.argsort(rows))
    box = working_box(particles.box, particles.pixel_size)
    imaging = BandImages(chosen, 2 * particles.box * particles.pixel_size / box)
    outside = _outside(particles.box)
    coefficients = torch.empty(len(rows), box, box // 2 + 1, dtype=torch.complex64)
    transfer = torch.empty(len(rows), box, box // 2 + 1)
    background, spectra = torch.empty(len(rows)), []
    with reporter_or_silent(progress).task("read images", len(rows), "images") as task:
        for part in torch.arange(len(rows)).split(64):
            pixels = chosen.images(part.numpy())
            if bad_pixels(pixels) is not None:
                check_pixels(chosen, part.numpy())
            images, here = torch.from_numpy(pixels), place[part]
            coefficients[here] = imaging.demodulate(fourier.crop(fourier.forward(images), box), part)
            transfer[here] = imaging.ctf(part)
            background[here] = images[:, outside == 1].std(dim=1)
            if int(part[0]) < SPECTRUM_IMAGES:
                spectra.append(_background_power(images, outside, box))
            task.advance(len(part))
    noise_power = torch.stack(spectra).mean(0)
    # Blank corners carry less than a hundredth of the power that whole images have at high frequency.
    whole = _ring_mean(coefficients)
    masked = bool(noise_power[-box // 8 :].mean() < 0.01 * whole[-box // 8 :].mean())
    if masked:
        noise_power = whole
    return WorkingSet(
        coefficients,
        transfer,
        torch.from_numpy(np.asarray(particles.rotations)[rows].astype(np.float32)),
        torch.from_numpy(np.asarray(particles.shifts)[rows].astype(np.float32)),
        torch.from_numpy(np.asarray(particles.half)[rows].astype(np.int64)),
        background,
        noise_power,
        masked,
        particles.box * particles.pixel_size / box,
        particles.box,
    )


def _outside(box: int) -> Tensor:
    """1 outside the inscribed circle, falling smoothly to 0 a tenth of the radius inside it; (box, box)."""
    axis = (torch.arange(box, dtype=torch.float32) - box // 2).square()
    r = (axis[:, None] + axis).sqrt() / (box // 2)
    return 0.5 - 0.5 * torch.cos(torch.pi * ((r - 0.9) / 0.1).clamp(0.0, 1.0))


def _background_power(images: Tensor, outside: Tensor, box: int) -> Tensor:
    """Mean |X|^2 per ring of what lies outside the particle, corrected for the masked-out area."""
    mean = (images * outside).sum((1, 2), keepdim=True) / outside.sum()
    background = fourier.crop(fourier.forward((images - mean) * outside), box)
    spectrum = _ring_mean(background) / float(outside.square().mean())
    # Taking out the mean empties the lowest frequencies.
    spectrum[:2] = spectrum[2]
    return spectrum


def _ring_mean(coefficients: Tensor) -> Tensor:
    """Mean |X|^2 over images and over each ring, shape (M // 2 + 1,), float64."""
    box = coefficients.shape[-2]
    power = sum(c.abs().square().double().sum(0) for c in coefficients.split(256)) / len(coefficients)
    ring = fourier.shell_index(box).reshape(-1)
    weight = fourier.hermitian_weights(box).double().reshape(-1)
    total = torch.zeros(int(ring.max()) + 1, dtype=torch.float64).index_add_(
        0, ring, weight * power.reshape(-1)
    )
    count = torch.zeros_like(total).index_add_(0, ring, weight)
    return (total / count)[: box // 2 + 1]
