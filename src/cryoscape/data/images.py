"""Band-limited particle images: what training reads.

Only frequencies up to the cut-off carry the likelihood, so every image is cropped to that band once, in
Fourier space, and moved to the centre by the phase of its shift. Small stacks are kept in memory; larger
ones are read from the memory-mapped stack batch by batch, so memory does not grow with their number.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from cryoscape.data.group_optics import GroupOptics
from cryoscape.errors import InputError
from cryoscape.physics import fourier
from cryoscape.physics.ctf import ctf_coefficients
from cryoscape.progress import ProgressReporter, reporter_or_silent

if TYPE_CHECKING:
    from cryoscape.data.particles import Particles


@dataclass
class ImageBatch:
    """Images with all that is known of how they were taken.

    Attributes
    ----------
    rows : Tensor, shape (B,), int64
        Which particles.
    images : Tensor, shape (B, d, d // 2 + 1), complex64
        Band-limited coefficients, centred, protein positive.
    ctf : Tensor, shape (B, d, d // 2 + 1), float32
        Contrast transfer function.
    rotations : Tensor, shape (B, 3, 3), float32
        From model to view.
    group : Tensor, shape (B,), int64
        Optics group.
    """

    rows: Tensor
    images: Tensor
    ctf: Tensor
    rotations: Tensor
    group: Tensor

    def to(self, device: torch.device) -> ImageBatch:
        """Copy to a device (none where it is there already)."""
        return ImageBatch(
            *(
                getattr(self, name).to(device, non_blocking=True)
                for name in ("rows", "images", "ctf", "rotations", "group")
            )
        )


def band_box(box: int, pixel_size: float, cutoff: float) -> int:
    """Smallest even box whose Nyquist frequency reaches the cut-off, at most the box itself."""
    return min(box, 2 * math.ceil(box * pixel_size / cutoff - 1e-6))


class BandImages:
    """The particles of a run as band-limited Fourier images.

    Parameters
    ----------
    particles : Particles
        With poses and CTF.
    cutoff : float
        Resolution limit, Angstrom.
    cache_memory : float
        GiB up to which the cropped images are kept in memory.

    Raises
    ------
    InputError
        If the particles have no poses, were multiplied by their CTF, or the cut-off is beyond Nyquist; when
        images are read, if a pixel is not a finite number.
    """

    def __init__(self, particles: Particles, cutoff: float, *, cache_memory: float = 2.0) -> None:
        if particles.rotations is None:
            raise InputError(
                "the particles have no poses", remedy="Use a star or cs file after 3-D refinement."
            )
        if any(group.ctf_premultiplied for group in particles.optics):
            raise InputError(
                "the images were multiplied by their CTF", remedy="Extract the particles again without it."
            )
        nyquist = 2 * particles.pixel_size
        if cutoff < nyquist - 1e-6:
            raise InputError(
                f"the cut-off of {cutoff:.2f} A is beyond the Nyquist limit of {nyquist:.2f} A",
                remedy=f"Give --data.cutoff {nyquist:.2f} or more.",
            )
        self.particles, self.cutoff = particles, cutoff
        self.box = band_box(particles.box, particles.pixel_size, cutoff)
        self.pixel_size = particles.pixel_size * particles.box / self.box
        frequencies = fourier.frequency_grid(self.box, self.pixel_size)
        self._frequencies = frequencies
        self._optics = GroupOptics(particles.optics, frequencies)
        self._k2 = frequencies.square().sum(-1)
        self._shifts = torch.from_numpy(np.asarray(particles.shifts, dtype=np.float32))
        self._group = torch.from_numpy(np.asarray(particles.group, dtype=np.int64))
        rotations = torch.from_numpy(np.asarray(particles.rotations, dtype=np.float32))
        self._rotations = self._optics.view(rotations, self._group)
        self._bfactor = torch.from_numpy(np.asarray(particles.ctf_bfactor, dtype=np.float32))
        self._scale = torch.from_numpy(np.asarray(particles.ctf_scale, dtype=np.float32))
        self._flipped = torch.tensor([g.phase_flipped for g in particles.optics])
        self._aberrations = self._ctf_coefficients()
        self.cache_bytes = len(particles) * self.box * (self.box // 2 + 1) * 8
        self._cached = self.cache_bytes <= cache_memory * 2**30
        self._cache: Tensor | None = None

    def __len__(self) -> int:
        return len(self.particles)

    @property
    def n_groups(self) -> int:
        """Number of optics groups."""
        return len(self.particles.optics)

    def _ctf_coefficients(self) -> Tensor:
        p = self.particles
        optics = {
            name: torch.tensor([getattr(g, name) for g in p.optics], dtype=torch.float64)[self._group]
            for name in ("voltage", "cs", "amplitude_contrast")
        }
        return ctf_coefficients(
            torch.from_numpy(np.asarray(p.defocus_u)),
            torch.from_numpy(np.asarray(p.defocus_v)),
            torch.from_numpy(np.asarray(p.defocus_angle)),
            phase_shift=torch.from_numpy(np.asarray(p.phase_shift)),
            **optics,
        )

    def _read(self, rows: Tensor) -> Tensor:
        """Read, transform, crop and centre the images of some rows."""
        images = torch.from_numpy(self.particles.images(rows.numpy()))
        coefficients = fourier.crop(fourier.forward(images), self.box)
        shifts = self._shifts[rows]
        if bool((shifts != 0).any()):
            coefficients = coefficients * fourier.shift_phase(-shifts, self._frequencies)
        self._refuse_not_finite(rows, coefficients)
        return self.demodulate(coefficients.to(torch.complex64), rows)

    def view(self, rotations: Tensor, rows: Tensor) -> Tensor:
        """Rotations (B, 3, 3) of some particles as `ImageBatch` has them: with anisotropic magnification."""
        return self._optics.view(rotations, self._group[rows])

    def demodulate(self, coefficients: Tensor, rows: Tensor) -> Tensor:
        """Take beam tilt and odd aberrations of some particles off their coefficients in this band."""
        return self._optics.demodulate(coefficients, self._group[rows])

    def _refuse_not_finite(self, rows: Tensor, coefficients: Tensor) -> None:
        """One bad pixel makes every coefficient of its image bad, and would make the whole model so."""
        power = torch.view_as_real(coefficients).square().sum((1, 2, 3))
        bad = rows[~torch.isfinite(power)]
        if len(bad):
            raise InputError(
                "the image holds values that are not finite",
                file=self.particles.source.path,
                row=int(self.particles.row[int(bad[0])]) + 1,
                remedy="Extract the particles again or take the row out of the table.",
            )

    def prepare(self, progress: ProgressReporter | None = None, chunk: int = 256) -> None:
        """Fill the memory cache, where the stack is small enough for one."""
        if not self._cached or self._cache is not None:
            return
        cache = torch.empty(len(self), self.box, self.box // 2 + 1, dtype=torch.complex64)
        with reporter_or_silent(progress).task("reading images", len(self), "images") as task:
            for rows in torch.arange(len(self)).split(chunk):
                cache[rows[0] : rows[-1] + 1] = self._read(rows)
                task.advance(len(rows))
        self._cache = cache

    def ctf(self, rows: Tensor) -> Tensor:
        """CTF of some particles, shape (B, d, d // 2 + 1)."""
        gamma = self._optics.gamma(self._aberrations[rows], self._group[rows])
        values = -torch.sin(torch.remainder(gamma, 2 * torch.pi).float())
        bfactor = self._bfactor[rows]
        if bool((bfactor != 0).any()):
            values = values * torch.exp(-0.25 * bfactor[:, None, None] * self._k2)
        flipped = self._flipped[self._group[rows]]
        if bool(flipped.any()):
            values = torch.where(flipped[:, None, None], values.abs(), values)
        return values * self._scale[rows][:, None, None]

    def batch(self, rows: Tensor) -> ImageBatch:
        """Images and imaging parameters of some particles.

        Parameters
        ----------
        rows : Tensor, shape (B,), int64

        Returns
        -------
        ImageBatch
            On the CPU.
        """
        images = self._cache[rows] if self._cache is not None else self._read(rows)
        return ImageBatch(rows, images, self.ctf(rows), self._rotations[rows], self._group[rows])
