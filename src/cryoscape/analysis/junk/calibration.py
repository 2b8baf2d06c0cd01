"""Gain and noise measured from the particles that are no junk.

Training measures both from all images. Junk has signal that no structure explains, which goes into the noise,
and none that correlates with the structures, which pulls the gain down; with both wrong, evidence is not in
nats. Here images count as much as they are probably good.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryoscape.analysis.junk.scan import BATCH
from cryoscape.models.likelihoods import GaussianLikelihood

if TYPE_CHECKING:
    from cryoscape.data.images import BandImages, ImageBatch
    from cryoscape.models.decoders.base import Scene
    from cryoscape.models.likelihoods import Likelihood

Array = NDArray[np.float64]


def gaussian_start(likelihood: Likelihood, scene: Scene, images: BandImages) -> GaussianLikelihood:
    """A Gaussian likelihood of a run: a copy of its own, or one fitted to its images and one structure."""
    if likelihood.in_nats:
        assert isinstance(likelihood, GaussianLikelihood)
        return copy.deepcopy(likelihood)
    start = GaussianLikelihood(likelihood.box, likelihood.pixel_size, likelihood.cutoff, likelihood.n_groups)
    n = len(images)
    return refitted(start, [scene], images, np.zeros(n, dtype=np.int64), np.ones(n), np.ones(n))


@torch.no_grad()
def refitted(
    likelihood: GaussianLikelihood,
    scenes: Sequence[Scene],
    images: BandImages,
    best: NDArray[np.int64],
    amplitude: Array,
    weight: Array,
) -> GaussianLikelihood:
    """Fit gain and noise to weighted images, each against one structure.

    Parameters
    ----------
    likelihood : GaussianLikelihood
    scenes : sequence of Scene
    images : BandImages
        N images.
    best : ndarray, shape (N,)
        Which of the scenes each is compared with.
    amplitude : ndarray, shape (N,)
        Strength of the structure in each image.
    weight : ndarray, shape (N,)
        How much each image counts, 0 to 1.

    Returns
    -------
    GaussianLikelihood
        A new one.
    """
    out = copy.deepcopy(likelihood)
    sums = torch.zeros_like(out.sums)
    coefficients = out.indicator.sum(0).double()
    for batch, y in best_projections(likelihood, scenes, images, best):
        share = torch.from_numpy(weight[batch.rows.numpy()]).float()
        scale = torch.from_numpy(amplitude[batch.rows.numpy()]).float()
        root = share.sqrt()[:, None, None]
        part = out.accumulate(root * batch.images, root * scale[:, None, None] * y, batch.ctf, batch.group)
        counted = torch.zeros(out.n_groups, dtype=torch.float64).index_add_(0, batch.group, share.double())
        part[3] = counted[:, None] * coefficients
        sums += part
    out.fit(sums)
    return out


def best_projections(
    likelihood: GaussianLikelihood, scenes: Sequence[Scene], images: BandImages, best: NDArray[np.int64]
) -> Iterator[tuple[ImageBatch, Tensor]]:
    """Batches of all images with the projection (B, box, box // 2 + 1) of one structure for each."""
    for rows in torch.arange(len(images)).split(BATCH):
        batch = images.batch(rows)
        chosen = torch.from_numpy(best[rows.numpy()])
        y = torch.empty_like(batch.images)
        for k in chosen.unique().tolist():
            here = chosen == k
            y[here] = scenes[k].project(batch.rotations[here], likelihood.box, likelihood.pixel_size)
        yield batch, y
