"""What images can tell apart: expected nats between conformations, and the finest detail of a profile.

The expected log-likelihood ratio of a conformation over another, in an image of the first, is

    D_jk = E sum_q w_q |T_q (P[V_j] - P[V_k])_q|^2 / (2 s2_q),

the mean over poses and transfer functions of the particles (Gaussian noise of spectrum s2). Along a
collective variable an image then has the error sigma = |step| / sqrt(2 D). N images blurred by a Gaussian of
that width show a wave of period lambda with its amplitude times exp(-2 pi^2 sigma^2 / lambda^2), over a noise
of 1 / sqrt(N): waves shorter than lambda = 2 pi sigma / sqrt(ln N) are lost (deconvolution of Gaussian
errors: Fan 1991). Two minima that far apart are 2 pi^2 / ln N nats from one another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import softmax

from cryoscape.data.images import ImageBatch
from cryoscape.models.decoders.base import Scene
from cryoscape.models.likelihoods import GaussianLikelihood, Likelihood

if TYPE_CHECKING:
    from cryoscape.training.run import Run

Array = NDArray[np.float64]

VIEWS = 64
"""Particles whose poses and transfer functions the expectation is taken over."""

_CHUNK = 8


@torch.no_grad()
def nats_between_codes(run: Run, z: NDArray, views: int = VIEWS) -> Array | None:
    """Expected nats between the images of K conformations of a run.

    Parameters
    ----------
    run : Run
    z : ndarray, shape (K, d)
    views : int
        How many of its particles lend their pose and transfer function.

    Returns
    -------
    ndarray, shape (K, K), or None
        D; None where the likelihood has no noise, so that nats mean nothing (correlation).
    """
    model, images = run.image_model, run.images()
    if not isinstance(model.likelihood, GaussianLikelihood):
        return None
    scenes = [model.decoder(one[None]) for one in torch.as_tensor(z, dtype=torch.float32)]
    rows = np.unique(np.linspace(0, len(images) - 1, min(views, len(images))).round().astype(int))
    total, count = np.zeros((len(scenes), len(scenes))), 0
    for part in torch.from_numpy(rows).split(_CHUNK):
        total += nats_between_scenes(model.likelihood, scenes, images.batch(part)) * len(part)
        count += len(part)
    return total / count


def nats_between_scenes(likelihood: Likelihood, scenes: Sequence[Scene], batch: ImageBatch) -> Array:
    """D of K scenes, shape (K, K), the mean over the poses and transfer functions of a batch."""
    scale = likelihood.transfer(batch.ctf, batch.group)
    scale = scale * (likelihood.weights / likelihood.noise[:, likelihood.shells]).sqrt()[batch.group]
    projections = [
        scene.project(batch.rotations, likelihood.box, likelihood.pixel_size) * scale for scene in scenes
    ]
    whitened = torch.stack([torch.view_as_real(one.to(torch.complex64)).flatten() for one in projections])
    # Differences of nearly equal projections: without their mean no digits are lost.
    centred = (whitened - whitened.mean(0)).double()
    gram = (centred @ centred.T).numpy()
    power = np.diag(gram)
    return np.maximum(0.5 * (power[:, None] + power - 2 * gram), 0.0) / len(batch.rows)


def nats_between_means(nats: Array, first: Array, second: Array) -> Array:
    """Expected nats between the mean projections of two mixtures of K conformations.

    Half the squared distance of sum_k a_k Y_k and sum_k b_k Y_k is -(a - b)^T D (a - b) / 2.

    Parameters
    ----------
    nats : ndarray, shape (K, K)
        D.
    first, second : ndarray, shape (..., K)
        Weights a and b; each sums to 1.

    Returns
    -------
    ndarray, shape (...)
    """
    u = first - second
    return np.maximum(-0.5 * np.einsum("...j,jk,...k->...", u, nats, u), 0.0)


def needed_nats(n: int) -> float:
    """Nats between two minima from which on n images show them as two: 2 pi^2 / ln n."""
    return float(2 * np.pi**2 / np.log(max(n, 3)))


@dataclass(frozen=True, eq=False)
class Detail:
    """How fine a profile the images allow, along one collective variable.

    Attributes
    ----------
    error : ndarray, shape (bins,)
        Standard error of the variable from one image, in its unit; infinite where nothing tells.
    bin_nats : ndarray, shape (bins,)
        Expected nats between neighbouring bins.
    finest : ndarray, shape (bins,)
        Shortest period that all images together show.
    """

    error: Array
    bin_nats: Array
    finest: Array


def detail_along(
    nats: Array, value: Array, edges: Array, n_images: int, period: float | None = None
) -> Detail:
    """Detail that the images allow along a variable.

    The mean projections of the conformations on either side of a bin are compared, so that what else moves at
    the same value of the variable does not count.

    Parameters
    ----------
    nats : ndarray, shape (K, K)
    value : ndarray, shape (K,)
        Of the variable, for each conformation.
    edges : ndarray, shape (bins + 1,)
    n_images : int
    period : float, optional
        Of a variable on a circle.

    Returns
    -------
    Detail
    """
    centre = 0.5 * (edges[1:] + edges[:-1])
    away = value - centre[:, None]
    if period is not None:
        away = np.remainder(away + 0.5 * period, period) - 0.5 * period
    width = max(float(np.ptp(value)) / len(value), float(edges[1] - edges[0]))
    sides = [softmax(-0.5 * np.square((away - side * 1.5 * width) / width), axis=1) for side in (1, -1)]
    step = np.abs(((sides[0] - sides[1]) * away).sum(axis=1))
    with np.errstate(divide="ignore", invalid="ignore"):
        error = step / np.sqrt(2 * nats_between_means(nats, *sides))
        error = np.where(np.isfinite(error) & (step > 0), error, np.inf)
        bin_nats = 0.5 * np.square((edges[1] - edges[0]) / error)
    return Detail(error, bin_nats, 2 * np.pi * error / np.sqrt(np.log(max(n_images, 3))))
