"""What two half maps say: resolution inside a mask, signal in every shell, decay with frequency."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cryoscape.physics.resolution import fsc, radial_average, reference_correlation, volume_shells
from cryoscape.physics.slices import invert_volume, transform_volume

RANDOM_BELOW = 0.8
"""Phases are made random from the shell where the unmasked correlation falls below this (as in RELION)."""

_MARGIN = 2
"""Shells after that one whose masked correlation is left as it is: the mask smears over neighbours."""

_GUINIER_START = 10.0
_GUINIER_SHELLS = 5


@dataclass(frozen=True)
class HalfMapCorrelation:
    """Fourier shell correlation of two half maps, with and without a mask.

    Attributes
    ----------
    unmasked : Tensor, shape (S,), float64
        Inside the sphere that fits the box only.
    masked : Tensor, shape (S,), float64
        Inside the mask, FSC_t.
    randomised : Tensor, shape (S,), float64
        The same with random phases beyond `random_from`, FSC_n: what the mask alone correlates.
    corrected : Tensor, shape (S,), float64
        (FSC_t - FSC_n) / (1 - FSC_n) beyond `random_from` and a margin of two shells, FSC_t before.
    random_from : int
        First shell with random phases.
    """

    unmasked: Tensor
    masked: Tensor
    randomised: Tensor
    corrected: Tensor
    random_from: int


def correlate_halves(
    half1: Tensor, half2: Tensor, mask: Tensor, sphere: Tensor, seed: int = 0
) -> HalfMapCorrelation:
    """Correlate two half maps and take out what a mask adds.

    A mask convolves the transforms, which makes neighbouring coefficients of independent noise alike. How
    much is measured on maps whose phases were made random beyond the shell where the unmasked correlation
    falls below 0.8.

    Source: Chen et al., Ultramicroscopy 135 (2013), equation 4.

    Parameters
    ----------
    half1, half2 : Tensor, shape (D, D, D)
        Not filtered.
    mask : Tensor, shape (D, D, D)
        Soft, 0 to 1.
    sphere : Tensor, shape (D, D, D)
        Soft sphere that fits the box; stands for no mask, because interpolated back-projections are
        unreliable in the corners.
    seed : int
        Of the random phases.

    Returns
    -------
    HalfMapCorrelation
    """
    unmasked, masked = fsc(half1, half2, sphere), fsc(half1, half2, mask)
    below = (unmasked[1:] < RANDOM_BELOW).nonzero()
    start = int(below[0, 0]) + 1 if len(below) else len(unmasked)
    randomised, corrected = masked.clone(), masked.clone()
    if start < len(unmasked):
        generator = torch.Generator().manual_seed(seed)
        mixed = [randomise_phases(half, start, generator) for half in (half1, half2)]
        randomised = fsc(mixed[0], mixed[1], mask)
        beyond = slice(min(start + _MARGIN, len(masked)), None)
        noise = randomised[beyond].clamp(max=0.999)
        corrected[beyond] = (masked[beyond] - noise) / (1 - noise)
    return HalfMapCorrelation(unmasked, masked, randomised, corrected, start)


def randomise_phases(volume: Tensor, first_shell: int, generator: torch.Generator) -> Tensor:
    """The map with random phases from a shell on; amplitudes stay.

    Parameters
    ----------
    volume : Tensor, shape (D, D, D)
    first_shell : int
        Shells below keep their phases.
    generator : torch.Generator
        On the CPU.

    Returns
    -------
    Tensor, shape (D, D, D)
    """
    box = volume.shape[0]
    coefficients = torch.fft.rfftn(volume)
    # Phases of a real white map have the symmetry that a real map needs.
    noise = torch.fft.rfftn(torch.randn(volume.shape, generator=generator).to(volume))
    turned = coefficients.abs() * noise / noise.abs().clamp(min=1e-30)
    far = volume_shells(box, device=volume.device) >= first_shell
    return torch.fft.irfftn(torch.where(far, turned, coefficients), s=(box,) * 3)


def trusted_correlation(corrected: Tensor) -> Tensor:
    """The half-map correlation that filters may use: 0 from the first shell on that has none.

    Parameters
    ----------
    corrected : Tensor, shape (S,)

    Returns
    -------
    Tensor, shape (S,), float64
        Between 0 and 0.9999. Chance agreement further out would come back as ripples. Shell 0, the mean of
        the map, which images do not measure, is taken from shell 1.
    """
    trusted = corrected.double().clamp(0.0, 0.9999)
    trusted[0] = trusted[1]
    gone = (corrected[1:] <= 0).nonzero()
    if len(gone):
        trusted[int(gone[0, 0]) + 1 :] = 0.0
    return trusted


def signal_amplitude(combined: Tensor, trusted: Tensor, mask: Tensor) -> Tensor:
    """Root mean square amplitude of the signal in each shell.

    Parameters
    ----------
    combined : Tensor, shape (D, D, D)
        The map from all images, not filtered.
    trusted : Tensor, shape (S,)
        From `trusted_correlation`.
    mask : Tensor, shape (D, D, D)

    Returns
    -------
    Tensor, shape (S,), float64
        The map's own amplitude times sqrt(2 F / (1 + F)), its correlation with the noise-free map.
    """
    power = radial_average(torch.fft.rfftn(combined * mask).abs().square())
    return power.sqrt() * reference_correlation(trusted)


def guinier_b_factor(amplitude: Tensor, box: int, voxel_size: float, resolution: float) -> float | None:
    """Decay of a map with frequency: ln F = const - B k^2 / 4 between 10 A and its resolution.

    Source: Rosenthal and Henderson, J. Mol. Biol. 333 (2003), section 3.3.

    Parameters
    ----------
    amplitude : Tensor, shape (S,)
        From `signal_amplitude`.
    box : int
        Side of the map.
    voxel_size : float
        Angstrom.
    resolution : float
        Angstrom.

    Returns
    -------
    float or None
        B in A^2; sharpening uses its negative. None where fewer than five shells lie between 10 A and the
        resolution: protein at lower resolution does not follow the law.
    """
    shell = torch.arange(len(amplitude), dtype=torch.float64)
    k = shell / (box * voxel_size)
    used = (k >= 1 / _GUINIER_START) & (k <= 1 / resolution) & (amplitude > 0)
    if int(used.sum()) < _GUINIER_SHELLS:
        return None
    x, y, w = k[used].square(), amplitude[used].log(), shell[used].square()
    x, y = x - (w * x).sum() / w.sum(), y - (w * y).sum() / w.sum()
    return float(-4 * (w * x * y).sum() / (w * x.square()).sum())


def sharpen(volume: Tensor, voxel_size: float, b_factor: float) -> Tensor:
    """Multiply a map's transform by exp(-b k^2 / 4).

    Parameters
    ----------
    volume : Tensor, shape (D, D, D)
        A filtered map: noise is raised with the signal.
    voxel_size : float
        Angstrom.
    b_factor : float
        A^2; negative sharpens.

    Returns
    -------
    Tensor, shape (D, D, D)
    """
    box = volume.shape[0]
    shells = volume_shells(box, device=volume.device).clamp(max=box // 2)
    k2 = (torch.arange(box // 2 + 1, device=volume.device) / (box * voxel_size)).square()
    factor = torch.exp(-0.25 * b_factor * k2)[shells].to(volume.dtype)
    return invert_volume(transform_volume(volume, voxel_size) * factor, voxel_size)
