"""Evidence that an image shows the molecule far from where the table puts it.

Moved by t, a projection Y becomes Y exp(-2 pi i k.t), so L of all shifts at once is one Fourier transform,

    L(t) = Re sum_k w (X T / s2)* Y exp(-2 pi i k.t),

while Q stays. The prior over shifts is flat over a ring: nearer than its inner edge is an error of a pose,
and beyond the outer edge nothing is left of the molecule in the image.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryoscape.analysis.junk.hypotheses import scaled_evidence
from cryoscape.analysis.junk.scan import BATCH, weighting
from cryoscape.physics.fourier import pad
from cryoscape.progress import ProgressReporter, reporter_or_silent

if TYPE_CHECKING:
    from cryoscape.data.images import BandImages
    from cryoscape.models.decoders.base import Scene
    from cryoscape.models.likelihoods import GaussianLikelihood

Array = NDArray[np.float64]

NEAREST = 10.0
"""Displacement, A, from which on a particle counts as displaced; a smaller one is an error of its pose."""

# Points of the grid of shifts in a pixel of the band-limited box, along each axis.
_FINER = 2
_GRID = 2**24


@torch.no_grad()
def displaced_evidence(
    likelihood: GaussianLikelihood,
    scenes: Sequence[Scene],
    shares: Array,
    images: BandImages,
    mean: float,
    variance: float,
    *,
    progress: ProgressReporter | None = None,
) -> Array:
    """Log evidence of a molecule anywhere in the ring.

    Parameters
    ----------
    likelihood : GaussianLikelihood
    scenes : sequence of Scene
        Of one object each, K of them.
    shares : ndarray, shape (K,)
        Their populations.
    images : BandImages
        N images.
    mean, variance : float
        Of the strength of a structure in an image.
    progress : ProgressReporter, optional

    Returns
    -------
    ndarray, shape (N,)
        Nats over pure noise. A sum over a grid, which misses part of peaks narrower than that: a lower bound.
    """
    side = _FINER * likelihood.box
    log_prior = ring(likelihood.box, likelihood.pixel_size)
    log_share = np.log(np.maximum(shares / shares.sum(), 1e-300))
    out = np.empty(len(images))
    size = max(1, min(BATCH, _GRID // side**2))
    with reporter_or_silent(progress).task("displaced particles", len(images), "images") as task:
        for rows in torch.arange(len(images)).split(size):
            batch = images.batch(rows)
            _, weighted, quadratic = weighting(likelihood, batch)
            # The transform of a half-plane counts conjugate pairs itself.
            target = (batch.images * weighted).conj() / likelihood.weights.clamp_min(1.0)
            found = []
            for share, scene in zip(log_share, scenes):
                y = scene.project(batch.rotations, likelihood.box, likelihood.pixel_size)
                power = (quadratic * y.abs().square()).sum((1, 2))[:, None, None]
                linear = torch.fft.irfft2(pad(target * y, side), s=(side, side), norm="forward")
                value = scaled_evidence(linear, power, mean, variance)
                found.append(share + torch.logsumexp((value + log_prior).flatten(1), 1).double())
            out[rows.numpy()] = torch.logsumexp(torch.stack(found), 0).numpy()
            task.advance(len(rows))
    return out


def ring(box: int, pixel_size: float) -> Tensor:
    """Log prior of every shift of the grid (side, side): flat from `NEAREST` to half of the box."""
    side = _FINER * box
    place = torch.fft.fftfreq(side, 1.0 / (box * pixel_size))
    distance = torch.hypot(place[:, None], place[None])
    outer = 0.5 * box * pixel_size
    inside = (distance >= min(NEAREST, outer)) & (distance <= outer)
    return torch.where(inside, -math.log(int(inside.sum())), -torch.inf)
