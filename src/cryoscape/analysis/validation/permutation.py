"""Is z about this image? Log likelihood lost when particles that look alike trade their latents (check 4).

Partners are the nearest in viewing direction and defocus, so that nothing is lost but what z says of the
single image. An encoder fits some of the noise of the image that it sees: the same loss on simulated images
of one structure is the null. Images that trade their poses instead must lose all that the model explains.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from torch import Tensor

from cryoscape.analysis.validation.gains import Mean, mean_over_images
from cryoscape.analysis.validation.simulated_images import ImageSource
from cryoscape.models.image_model import ImageModel

NEIGHBOURS = 8
"""Partners are drawn from so many nearest particles."""

_BATCH = 256


@dataclass(frozen=True)
class Permuted:
    """What trading latents and poses costs, nats an image.

    Attributes
    ----------
    drop : Mean
        log p(x | z) less that with a partner's z.
    matched : Mean
        log p(x | z) over pure noise.
    traded_poses : Mean
        log p(x | z) in a random other particle's pose, over pure noise.
    """

    drop: Mean
    matched: Mean
    traded_poses: Mean


def partners(direction: NDArray, defocus: NDArray, seed: int = 0) -> NDArray[np.int64]:
    """For each particle another one of similar view and defocus, shape (n,).

    Parameters
    ----------
    direction : ndarray, shape (n, 3)
        Unit vectors along the view in the frame of the molecule.
    defocus : ndarray, shape (n,)
    seed : int
    """
    n = len(direction)
    spread = max(float(np.std(defocus)), 1e-6)
    # One standard deviation of defocus counts as much as half a radian.
    points = np.column_stack([direction, 0.5 * (defocus - defocus.mean()) / spread])
    count = min(NEIGHBOURS + 1, n)
    _, near = cKDTree(points).query(points, k=count)
    rng = np.random.default_rng(seed)
    out = np.empty(n, dtype=np.int64)
    for i, row in enumerate(near.reshape(n, count)):
        others = row[row != i]
        out[i] = rng.choice(others)
    return out


@torch.no_grad()
def permute_latents(
    model: ImageModel,
    images: ImageSource,
    rows: NDArray[np.int64],
    z: Tensor,
    partner: NDArray[np.int64],
    micrograph: NDArray[np.int64],
    seed: int = 0,
) -> Permuted:
    """Trade latents between partners, and poses at random.

    Parameters
    ----------
    model : ImageModel
    images : callable
        Batches of rows.
    rows : ndarray, shape (n,)
    z : Tensor, shape (n, d)
        Posterior means of these particles.
    partner : ndarray, shape (n,)
        Indices into `rows`.
    micrograph : ndarray, shape (n,)
    seed : int
        Of the trade of poses.
    """
    index = torch.from_numpy(rows)
    own = _log_likelihood(model, images, index, z)
    traded = _log_likelihood(model, images, index, z[torch.from_numpy(partner)])
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(rows)))
    posed = _log_likelihood(model, images, index, z, index[order])
    return Permuted(*(mean_over_images(v, micrograph) for v in (own - traded, own, posed)))


def _log_likelihood(
    model: ImageModel, images: ImageSource, rows: Tensor, z: Tensor, posed_like: Tensor | None = None
) -> NDArray[np.float64]:
    out = []
    for start in range(0, len(rows), _BATCH):
        here = slice(start, start + _BATCH)
        batch = images(rows[here])
        if posed_like is not None:
            batch = replace(batch, rotations=images(posed_like[here]).rotations)
        out.append(model.log_likelihood(z[here], batch))
    return torch.cat(out).double().numpy()


@torch.no_grad()
def embed_means(model: ImageModel, images: ImageSource, rows: NDArray[np.int64]) -> Tensor:
    """Posterior means (n, d) of the images of some rows."""
    parts = torch.from_numpy(rows).split(_BATCH)
    return torch.cat([model.posterior(model.features(images(part))).mean for part in parts])
