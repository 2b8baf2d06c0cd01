"""Evidence of all images under fixed structures, and what a right structure would have given.

An image x = T Y + n of structure Y has, under that structure, the log likelihood over pure noise

    l = sum_q w_q (Re(x* T Y) - |T Y|^2 / 2) / s2,   mean P = sum_q w_q |T Y|^2 / (2 s2),   variance 2 P

in its own pose and transfer function. Images whose evidence falls short of P by more than sqrt(2 P) explains
show something else: a predictive check without replicated data, since the law of l is known.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from cryoscape.analysis.landscape.identifiability import VIEWS, nats_between_scenes
from cryoscape.progress import ProgressReporter, reporter_or_silent

if TYPE_CHECKING:
    from cryoscape.models.decoders.base import Scene
    from cryoscape.training.run import Run

Array = NDArray[np.float64]

_BATCH = 256
_CHUNK = 8


@torch.no_grad()
def evidence_table(
    run: Run, scenes: Sequence[Scene], *, progress: ProgressReporter | None = None
) -> tuple[Array, Array]:
    """Log likelihoods of all images under K scenes of one object each, and what is expected of a right one.

    Parameters
    ----------
    run : Run
    scenes : sequence of Scene
    progress : ProgressReporter, optional

    Returns
    -------
    table, expected : ndarray, shape (N, K)
        log p(x_i | structure k) over pure noise, and P_ik, nats.
    """
    likelihood, images = run.image_model.likelihood, run.images()
    table, expected = np.empty((2, len(images), len(scenes)))
    with reporter_or_silent(progress).task("likelihoods", len(images), "images") as task:
        for part in torch.arange(len(images)).split(_BATCH):
            batch = images.batch(part)
            transfer = likelihood.transfer(batch.ctf, batch.group)
            for k, scene in enumerate(scenes):
                y = scene.project(batch.rotations, likelihood.box, likelihood.pixel_size)
                args = (y, batch.ctf, batch.group)
                table[part.numpy(), k] = likelihood.log_prob(batch.images, *args).double().numpy()
                # A noiseless image of the structure has exactly the mean of the noisy ones.
                expected[part.numpy(), k] = likelihood.log_prob(transfer * y, *args).double().numpy()
            task.advance(len(part))
    return table, expected


def shortfall(table: Array, expected: Array, share: Array) -> Array:
    """By how many standard deviations the evidence of every image falls short, shape (N,).

    Parameters
    ----------
    table, expected : ndarray, shape (N, K)
        Of `evidence_table`.
    share : ndarray, shape (N, K)
        Probability of every structure given each image; rows sum to 1.

    Returns
    -------
    ndarray, shape (N,)
        About N(0, 1) where the structures are right.
    """
    missing = (expected - table) / np.sqrt(np.maximum(2 * expected, 1e-12))
    return (share * missing).sum(axis=1)


@torch.no_grad()
def nats_between(run: Run, scenes: Sequence[Scene], views: int = VIEWS) -> Array:
    """Expected nats between images of K scenes, shape (K, K): the mean over poses of some particles."""
    images = run.images()
    rows = np.unique(np.linspace(0, len(images) - 1, min(views, len(images))).round().astype(int))
    total = np.zeros((len(scenes), len(scenes)))
    for part in torch.from_numpy(rows).split(_CHUNK):
        total += nats_between_scenes(run.image_model.likelihood, scenes, images.batch(part)) * len(part)
    return total / len(rows)
