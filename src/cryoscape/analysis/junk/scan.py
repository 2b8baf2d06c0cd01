"""One pass over the images: what each says of every structure, and of a random signal of their spectrum."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryoscape.analysis.junk.hypotheses import random_signal_evidence
from cryoscape.progress import ProgressReporter, reporter_or_silent

if TYPE_CHECKING:
    from cryoscape.data.images import BandImages, ImageBatch
    from cryoscape.models.decoders.base import Scene
    from cryoscape.models.likelihoods import GaussianLikelihood

Array = NDArray[np.float64]

FACTORS = tuple(2.0**e for e in range(-3, 5))
"""Powers of contaminants that are tried, in units of that of the model's own projections."""

BATCH = 256

_VIEWS = 256


@dataclass(frozen=True, eq=False)
class Spectrum:
    """Radial mean and power of projections without CTF and gain.

    Attributes
    ----------
    mean : Tensor, shape (shells,)
        Real part: the outline that all views have in common.
    power : Tensor, shape (shells,)
        Mean square.
    """

    mean: Tensor
    power: Tensor


@dataclass(frozen=True, eq=False)
class Scan:
    """What N images say of K structures and of random signals.

    Attributes
    ----------
    linear, power : ndarray, shape (N, K)
        L and Q of `cryoscape.analysis.junk.hypotheses`.
    contaminant : ndarray, shape (N, 2 A)
        Evidence of random signals of each power of `FACTORS`, nats: anywhere in the image, and then of the
        outline of the molecule, in its place.
    """

    linear: Array
    power: Array
    contaminant: Array


@torch.no_grad()
def scan_images(
    likelihood: GaussianLikelihood,
    scenes: Sequence[Scene],
    images: BandImages,
    spectrum: Spectrum,
    *,
    progress: ProgressReporter | None = None,
) -> Scan:
    """Compare all images with all structures.

    Parameters
    ----------
    likelihood : GaussianLikelihood
        Gain and noise.
    scenes : sequence of Scene
        Of one object each, K of them.
    images : BandImages
        N images.
    spectrum : Spectrum
        Of the projections, from `projection_spectrum`.
    progress : ProgressReporter, optional

    Returns
    -------
    Scan
    """
    n, k = len(images), len(scenes)
    linear, power = np.empty((n, k)), np.empty((n, k))
    contaminant = np.empty((n, 2 * len(FACTORS)))
    with reporter_or_silent(progress).task("compare images", n, "images") as task:
        for rows in torch.arange(n).split(BATCH):
            batch, at = images.batch(rows), rows.numpy()
            transfer, weighted, quadratic = weighting(likelihood, batch)
            target = batch.images * weighted
            for column, scene in enumerate(scenes):
                y = scene.project(batch.rotations, likelihood.box, likelihood.pixel_size)
                linear[at, column] = _product(target, y).numpy()
                power[at, column] = (quadratic * y.abs().square()).sum((1, 2), dtype=torch.float64).numpy()
            contaminant[at] = _contaminants(likelihood, batch, transfer, spectrum).numpy()
            task.advance(len(rows))
    return Scan(linear, power, contaminant)


def _contaminants(
    likelihood: GaussianLikelihood, batch: ImageBatch, transfer: Tensor, spectrum: Spectrum
) -> Tensor:
    """Evidence of random signals, (B, 2 A)."""
    noise = likelihood.noise[:, likelihood.shells][batch.group]
    x, scaled = batch.images / noise.sqrt(), transfer / noise.sqrt()
    mean, power = spectrum.mean[likelihood.shells], spectrum.power[likelihood.shells]
    factors, w = torch.tensor(FACTORS), likelihood.weights
    anywhere = random_signal_evidence(x, torch.zeros(()), scaled.square() * power, w, factors)
    spread = (power - mean.square()).clamp_min(0.0)
    in_place = random_signal_evidence(x, scaled * mean, scaled.square() * spread, w, factors)
    return torch.cat([anywhere, in_place], 1)


def weighting(likelihood: GaussianLikelihood, batch: ImageBatch) -> tuple[Tensor, Tensor, Tensor]:
    """Transfer function T, w T / s2 and w T^2 / s2 of a batch, each (B, box, box // 2 + 1)."""
    transfer = likelihood.transfer(batch.ctf, batch.group)
    weighted = transfer * (likelihood.weights / likelihood.noise[:, likelihood.shells])[batch.group]
    return transfer, weighted, transfer * weighted


def _product(a: Tensor, b: Tensor) -> Tensor:
    """Sum of Re(a* b) over the coefficients, shape (B,), float64."""
    return (torch.view_as_real(a) * torch.view_as_real(b)).sum((1, 2, 3), dtype=torch.float64)


@torch.no_grad()
def projection_spectrum(
    likelihood: GaussianLikelihood, scenes: Sequence[Scene], shares: Array, images: BandImages
) -> Spectrum:
    """Mean and power of the projections of structures in every shell, over poses of the particles.

    Parameters
    ----------
    likelihood : GaussianLikelihood
        For the band.
    scenes : sequence of Scene
        K of them.
    shares : ndarray, shape (K,)
        Their populations.
    images : BandImages
        Some of their poses are used.

    Returns
    -------
    Spectrum
    """
    rows = torch.linspace(0, len(images) - 1, min(_VIEWS, len(images))).long()
    rotations = images.batch(rows).rotations
    mean, power = torch.zeros(2, likelihood.n_shells)
    for share, scene in zip(shares / shares.sum(), scenes):
        if share > 0:
            y = scene.project(rotations, likelihood.box, likelihood.pixel_size)
            mean += float(share) * (y.real.mean(0).flatten() @ likelihood.indicator)
            power += float(share) * (y.abs().square().mean(0).flatten() @ likelihood.indicator)
    count = likelihood.indicator.sum(0).clamp_min(1.0)
    return Spectrum(mean / count, power / count)
