"""What a back-projection says by itself, and how well a density fits it.

Everything here works on the sums of a back-projection (`physics.backprojection.Accumulated`) and never on the
images: the log-likelihood of a density given all images is, up to interpolation,

    log p = const + (1 / s2) [ Re <N, Y> - <Y, W Y> / 2 ],    N = sum C X,  W = sum C^2,

so that trying a frame, a hand or a sign costs one pass over a small volume.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cryoscape.physics.backprojection import Accumulated, Volumes, solve
from cryoscape.physics.resolution import (
    fsc,
    reference_correlation,
    shell_sum,
    soft_sphere,
    volume_shells,
)
from cryoscape.physics.slices import crop_volume, interpolation_envelope, transform_volume


@dataclass(frozen=True)
class MapEvidence:
    """A consensus map with its own error.

    Attributes
    ----------
    volumes : Volumes
        Half maps and their sum.
    half_fsc : Tensor, shape (M // 2 + 1,), float64
        Of the half maps inside a soft sphere.
    signal_nats : Tensor, shape (M // 2 + 1,), float64
        sum |signal|^2 / (2 s2) of each shell per image, cross-validated between the halves.
    signal_power : Tensor, shape (M // 2 + 1,), float64
        Mean |signal|^2 per image coefficient (unitary units), from the same cross term.
    noise_power : Tensor, shape (M // 2 + 1,), float64
        s2 of the background.
    """

    volumes: Volumes
    half_fsc: Tensor
    signal_nats: Tensor
    signal_power: Tensor
    noise_power: Tensor

    @property
    def nats_per_image(self) -> float:
        """Signal energy of one image over twice the noise variance, up to where the half maps part.

        The likelihood of the consensus over nothing. What differs between conformations is not in it.
        """
        return float(self.signal_nats[1 : self.last_shell + 1].sum())

    @property
    def last_shell(self) -> int:
        """Last shell before the half maps' correlation first falls below 0.143."""
        below = (self.half_fsc[1:] < 0.143).nonzero()
        return int(below[0, 0]) if len(below) else len(self.half_fsc) - 1


def image_ring_counts(box: int) -> Tensor:
    """Coefficients of the full plane of one image in each ring, shape (box // 2 + 1,), float64."""
    k = torch.fft.fftfreq(box, d=1.0 / box, dtype=torch.float64).square()
    ring = (k[:, None] + k).sqrt().round().long().reshape(-1)
    return torch.bincount(ring).double()[: box // 2 + 1]


def weigh_map(sums: Accumulated, noise_power: Tensor, image_scale: float) -> MapEvidence:
    """Half-map correlation, noise and signal of a back-projection.

    The signal's energy is <N_1, N_2 / W_2> + <N_2, N_1 / W_1>: each half predicts the other, so noise does
    not count as signal.

    Parameters
    ----------
    sums : Accumulated
        From the images.
    noise_power : Tensor, shape (M // 2 + 1,)
        s2 of the background per ring, unitary.
    image_scale : float
        Continuous units per unitary unit, ``image_box * pixel_size**2``.

    Returns
    -------
    MapEvidence
    """
    box = sums.box
    volumes = solve(sums)
    mask = soft_sphere(box, 0.4 * box, 0.08 * box)
    half_fsc = fsc(volumes.half1, volumes.half2, mask)
    n1, n2 = sums.numerator
    w1, w2 = sums.denominator
    tiny = 0.02 * torch.stack([w1, w2]).mean()
    cross = (n1 * n2.conj()).real
    energy = torch.zeros_like(half_fsc)
    for w in (w1, w2):
        energy += shell_sum(torch.where(w > tiny, cross / w.clamp(min=1e-30), torch.zeros_like(cross)))
    energy /= sum(sums.count) * image_scale**2
    rings = image_ring_counts(box)
    return MapEvidence(volumes, half_fsc, energy / (2 * noise_power), energy / rings, noise_power)


@dataclass(frozen=True)
class Density:
    """A density ready to be scored.

    Attributes
    ----------
    transform : Tensor, shape (box, box, box // 2 + 1)
        Continuous Fourier transform, complex.
    power : Tensor, shape (box // 2 + 1,)
        <Y, W Y> of each shell.
    """

    transform: Tensor
    power: Tensor


class DensityScore:
    """How well densities fit a back-projection, shell by shell.

    Parameters
    ----------
    sums : Accumulated
        From the images.
    evidence : MapEvidence
        Of the same sums.
    box : int
        Even side of the box to score in, at most that of the sums.
    """

    def __init__(self, sums: Accumulated, evidence: MapEvidence, box: int) -> None:
        self.box = box
        self.voxel_size = sums.voxel_size * sums.box / box
        self.numerator = crop_volume(sums.numerator.sum(0), box)
        self.weight = crop_volume(sums.denominator.sum(0), box)
        self.envelope = interpolation_envelope(box)
        inverse = torch.where(
            self.weight > 0, 1 / self.weight.clamp(min=1e-30), torch.zeros_like(self.weight)
        )
        self.map_power = shell_sum(inverse * self.numerator.abs().square())
        self.shells = volume_shells(box)
        half = evidence.half_fsc[: box // 2]
        counts = torch.bincount(self.shells.reshape(-1)).double()[: box // 2]
        # The best weights of Stouffer's sum: expected correlation over its variance under the null.
        expected = reference_correlation(half)
        expected[0] = 0.0
        weight = expected * counts
        self.shell_weight = weight / (weight * expected).sum().clamp(min=1e-12)

    def density(self, density: Tensor) -> Density:
        """A map (box, box, box) as the back-projection would show it (with the interpolation envelope)."""
        transform = transform_volume(density * self.envelope, self.voxel_size)
        return Density(transform, shell_sum(self.weight * transform.abs().square()))

    def moved(self, density: Density, shift: Tensor) -> Density:
        """The density moved by a vector (x, y, z) in Angstrom, shape (3,)."""
        k = torch.fft.fftfreq(self.box, d=self.voxel_size)
        angle = -2 * torch.pi * k[:, None] * shift.to(k.dtype)
        x, y, z = torch.polar(torch.ones_like(angle), angle).unbind(-1)
        # The last plane stands for +Nyquist in a half-space and -Nyquist in a full axis; no shell holds it.
        transform = density.transform * z[:, None, None] * y[:, None] * x[: self.box // 2 + 1]
        return Density(transform, density.power)

    def correlations(self, density: Density) -> Tensor:
        """Correlation of map and density per shell, each coefficient weighted by how well it is measured.

        Parameters
        ----------
        density : Density

        Returns
        -------
        Tensor, shape (box // 2,), float64
        """
        dot = shell_sum((self.numerator * density.transform.conj()).real)
        power = density.power * self.map_power
        curve = torch.where(power > 0, dot / power.clamp(min=1e-300).sqrt(), torch.zeros_like(dot))
        return curve[: self.box // 2]

    def score(self, curve: Tensor) -> float:
        """Mean correlation over the shells that hold signal, relative to that of the noise-free map.

        1 for a perfect density (noise may carry it a little beyond), 0 where no shell holds signal.
        """
        return float((self.shell_weight * curve).sum())

    def best_shift(self, density: Density, *, sign: int = 1) -> tuple[Tensor, float]:
        """The translation of a density that scores best, among all voxels of the box.

        Parameters
        ----------
        density : Density
            About the box centre.
        sign : int
            -1 to look for the strongest negative correlation.

        Returns
        -------
        shift : Tensor, shape (3,)
            (x, y, z), Angstrom.
        score : float
            As `score`, positive for a fit with this sign.
        """
        power = density.power * self.map_power
        factor = torch.zeros_like(power)
        inner = slice(1, self.box // 2)
        factor[inner] = self.shell_weight[1:] / power[inner].clamp(min=1e-300).sqrt()
        weight = torch.cat([factor, factor.new_zeros(1)])[self.shells.clamp(max=self.box // 2 + 1)]
        product = (self.numerator * density.transform.conj() * weight * sign).to(torch.complex64)
        # Undoing the centre sign of both factors leaves none, so the zero shift is element (0, 0, 0).
        surface = torch.fft.irfftn(product, s=(self.box,) * 3, norm="forward")
        place = torch.tensor(torch.unravel_index(surface.argmax(), surface.shape))
        fine = torch.stack([_refine(surface, place, axis) for axis in range(3)])
        shift = (fine + self.box / 2) % self.box - self.box / 2
        return shift.flip(0) * self.voxel_size, float(surface.max())


def _refine(surface: Tensor, place: Tensor, axis: int) -> Tensor:
    """Vertex of the parabola through a peak and its two neighbours along one axis."""
    size = surface.shape[0]
    step = torch.zeros(3, dtype=torch.long)
    step[axis] = 1
    low, mid, high = (surface[tuple((place + d * step) % size)] for d in (-1, 0, 1))
    return place[axis] + 0.5 * (low - high) / (low - 2 * mid + high)
