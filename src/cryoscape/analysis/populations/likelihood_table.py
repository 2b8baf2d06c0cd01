"""How well every image fits every one of a set of conformations, without the encoder.

An encoder says where it believes an image to lie; log p(x | z) says what the image itself says of a
conformation, however far it lies from where the encoder looked. A table of these numbers for conformations
that cover what the decoder can make is all that populations need.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryoscape.analysis.components import decode_in_chunks, fit_components
from cryoscape.analysis.populations.farthest_points import farthest_points
from cryoscape.progress import ProgressReporter, reporter_or_silent

if TYPE_CHECKING:
    from cryoscape.data.images import ImageBatch
    from cryoscape.models.decoders.base import Scene
    from cryoscape.models.likelihoods import Likelihood
    from cryoscape.training.run import Run

CANDIDATES = 24
"""Conformations in a table where the user names no number."""

_POOL = 4000
_COMPONENTS = 8
_ABSENT = 10.0  # A that a chain which is there and one which is not lie apart
_BATCH = 256


def candidate_codes(run: Run, count: int = CANDIDATES, seed: int = 0) -> NDArray[np.float32]:
    """Codes whose conformations cover what a run has found: no conformation is far from all of them.

    Drawn half from the posteriors of the particles and half from the prior, so that what either has seen is
    there, and chosen one by one, each the farthest from all before (Gonzalez 1985). Distances are those of
    the decoded structures, in A, or of the codes where maps are decoded.

    Parameters
    ----------
    run : Run
        With an embedding.
    count : int
        How many; fewer where there are fewer different ones.
    seed : int
        Of the draws.

    Returns
    -------
    ndarray, shape (count, d), float32
        The first is the nearest to the mean.
    """
    rng = np.random.default_rng(seed)
    embedding = run.embedding
    rows = rng.permutation(len(embedding))[: _POOL // 2]
    noise = rng.standard_normal((len(rows), embedding.z.shape[1])).astype(np.float32)
    of_particles = embedding.z[rows] + embedding.z_sd[rows] * noise
    if run.prior.support == "binary":
        of_particles = (rng.random(noise.shape) < embedding.z[rows]).astype(np.float32)
    pool = np.concatenate([of_particles, run.sample(_POOL // 2, seed)])
    return pool[farthest_points(_places(run, pool), count)]


def _places(run: Run, z: NDArray[np.float32]) -> NDArray[np.float64]:
    """Points whose distances are those of the conformations, A; those of the codes where there are maps."""
    if not run.has_structures:
        return z.astype(np.float64)
    coords = np.concatenate([part for _, part in decode_in_chunks(run, z)])
    flat = coords.reshape(len(coords), -1)
    # The scores of the leading components hold nearly all of the distance between any two.
    mean, axes, _, _ = fit_components(flat, _COMPONENTS)
    places = (flat - mean) @ axes.T / np.sqrt(coords.shape[1])
    present = presence(run, z)
    return places if present is None else np.concatenate([places, present], axis=1)


def presence(run: Run, z: NDArray) -> NDArray[np.float64] | None:
    """Coordinates (n, chains) that set conformations apart by the chains they have; None where all have all.

    Parameters
    ----------
    run : Run
    z : ndarray, shape (n, d)
    """
    present = run.occupancy(z)
    if present is None:
        return None
    one_residue = np.unique(run.structure.chain_index, return_index=True)[1]
    return _ABSENT * present[:, one_residue].astype(np.float64)


@torch.no_grad()
def likelihood_table(
    run: Run, z: NDArray, *, progress: ProgressReporter | None = None
) -> NDArray[np.float64]:
    """Log likelihood of all images of a run under fixed conformations.

    Parameters
    ----------
    run : Run
    z : ndarray, shape (K, d)
        Codes of the conformations.
    progress : ProgressReporter, optional

    Returns
    -------
    ndarray, shape (N, K)
        log p(x_i | z_k) over pure noise, nats, in the poses that the particle file gives.
    """
    decoder = run.image_model.decoder
    scenes = [decoder(one[None]) for one in torch.as_tensor(z, dtype=torch.float32)]
    return scene_table(run, scenes, progress=progress)


def scene_table(
    run: Run, scenes: Sequence[Scene], *, progress: ProgressReporter | None = None
) -> NDArray[np.float64]:
    """Log likelihood of all images of a run under K scenes of one object each, shape (N, K), nats."""
    images = run.images()
    return image_table(
        run.image_model.likelihood, scenes, images.batch, torch.arange(len(images)), progress=progress
    )


@torch.no_grad()
def image_table(
    likelihood: Likelihood,
    scenes: Sequence[Scene],
    images: Callable[[Tensor], ImageBatch],
    rows: Tensor,
    *,
    progress: ProgressReporter | None = None,
) -> NDArray[np.float64]:
    """Log likelihood of some images under K scenes of one object each.

    Parameters
    ----------
    likelihood : Likelihood
    scenes : sequence of Scene
    images : callable
        Batches of rows (B,).
    rows : Tensor, shape (n,), int64
    progress : ProgressReporter, optional

    Returns
    -------
    ndarray, shape (n, K)
        Over pure noise, nats.
    """
    table = np.empty((len(rows), len(scenes)))
    with reporter_or_silent(progress).task("likelihoods", len(rows), "images") as task:
        for start in range(0, len(rows), _BATCH):
            batch = images(rows[start : start + _BATCH])
            for k, scene in enumerate(scenes):
                y = scene.project(batch.rotations, likelihood.box, likelihood.pixel_size)
                value = likelihood.log_prob(batch.images, y, batch.ctf, batch.group)
                table[start : start + _BATCH, k] = value.double().numpy()
            task.advance(len(batch.rows))
    return table
