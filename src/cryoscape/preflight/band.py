"""Which resolution the likelihood should use."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cryoscape.physics.resolution import reference_correlation, resolution_at
from cryoscape.preflight.working_set import FINEST_RESOLUTION

HALF_MAP_LIMIT = 0.143
PARTED = 0.143
COARSEST_BAND = 10.0


@dataclass(frozen=True)
class Band:
    """The resolution limit with its reason.

    Attributes
    ----------
    cutoff : float
        Angstrom.
    agreement : float or None
        Resolution where model and noise-free map fall below a correlation of 0.5; None without a model.
    limited_by : str
        "noise": the correlation was still above 0.5 where the sample's noise begins, or "model".
    reason : str
        One sentence.
    """

    cutoff: float
    agreement: float | None
    limited_by: str
    reason: str


def smooth(curve: Tensor) -> Tensor:
    """Mean over three neighbouring shells; ends are repeated."""
    padded = torch.cat([curve[:1], curve, curve[-1:]])
    return (padded[:-2] + padded[1:-1] + padded[2:]) / 3


def more_particles(half_fsc: Tensor, factor: float) -> Tensor:
    """Half-map correlation to expect from `factor` times as many particles.

    The spectral signal-to-noise ratio F / (1 - F) grows in proportion.
    """
    f = half_fsc.clamp(0.0, 1.0)
    return factor * f / (1 + (factor - 1) * f)


def choose_band(
    half_fsc: Tensor, model_fsc: Tensor | None, box: int, voxel_size: float, nyquist: float, factor: float
) -> Band:
    """The band of a run.

    The correlation of map and model is divided by what noise leaves of it, sqrt(2 F / (1 + F)), so that it
    tells about the model and not about the size of the sample. The band ends where nothing is left of that
    (0.143): a consensus of moving parts agrees with any one conformation less and less, and images
    still hold signal there. Where noise hides the end, the band goes to the limit of one bead a residue.

    Parameters
    ----------
    half_fsc : Tensor, shape (S,)
        Of the sample's half maps.
    model_fsc : Tensor, shape (S,) or None
        Of map and model.
    box : int
        Side of the maps.
    voxel_size : float
        Angstrom.
    nyquist : float
        Finest resolution of the images, Angstrom.
    factor : float
        Particles in all over particles in the sample.

    Returns
    -------
    Band
    """
    finest = max(FINEST_RESOLUTION, nyquist)
    side = box * voxel_size
    if model_fsc is None:
        reached = resolution_at(more_particles(half_fsc, factor), HALF_MAP_LIMIT, box, voxel_size)
        cutoff = min(max(nyquist, reached), max(side / 4, nyquist))
        return Band(
            cutoff, None, "noise", "where half maps of all particles are expected to part (FSC 0.143)"
        )
    size = min(len(half_fsc), len(model_fsc))
    half, model = half_fsc[:size], model_fsc[:size]
    below = (half[1:] < HALF_MAP_LIMIT).nonzero()
    last = int(below[0, 0]) if len(below) else size - 1
    corrected = smooth(model / reference_correlation(half).clamp(min=1e-3))[: last + 1]
    if last < 2:
        return Band(finest, None, "noise", "the sample is too noisy to tell; the limit of one bead a residue")
    agreement = resolution_at(corrected, 0.5, box, voxel_size)
    limited_by = "model" if bool((corrected[1:] < 0.5).any()) else "noise"
    if not bool((corrected[1:] < PARTED).any()):
        hidden = f"model and map agree as far as this sample shows ({side / last:.1f} A)"
        return Band(
            finest, agreement, limited_by, f"{hidden}; the limit of one bead a residue or of the pixels"
        )
    parted = resolution_at(corrected, PARTED, box, voxel_size)
    if parted > COARSEST_BAND:
        reason = f"model and map part at {parted:.1f} A already; the coarsest band that shows motions"
        return Band(max(COARSEST_BAND, nyquist), agreement, limited_by, reason)
    return Band(max(finest, parted), agreement, limited_by, "where model and map part (correlation 0.143)")
