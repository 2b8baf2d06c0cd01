"""Walks along a coordinate of the particles, from its low end to its high end."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

# Frames fed by fewer particles than this share of them lie in a gap and are bridged.
_POPULATED = 0.002
_AVERAGED = 200_000


@dataclass(frozen=True)
class Traversal:
    """Latent codes of the frames of a walk.

    Parameters
    ----------
    name : str
        What is walked along, e.g. "pc1".
    position : ndarray, shape (f,)
        Coordinate of each frame, equally spaced (the nearest particles' own where snapped).
    z : ndarray, shape (f, d)
        Latent codes.
    z_sd : ndarray, shape (f, d)
        Typical posterior sd of the particles around each frame; zeros where unknown.
    particle : ndarray, shape (f,), int
        The particle nearest to each frame (row of the embedding).
    snapped : bool
        Whether `z` are the codes of those particles.
    """

    name: str
    position: NDArray[np.float64]
    z: NDArray[np.float32]
    z_sd: NDArray[np.float32]
    particle: NDArray[np.int64]
    snapped: bool = False


def traverse(
    z: NDArray,
    score: NDArray,
    *,
    z_sd: NDArray | None = None,
    name: str = "pc1",
    frames: int = 15,
    low: float = 5.0,
    high: float = 95.0,
    snap: bool = False,
) -> Traversal:
    """Walk along a coordinate between two percentiles of the particles.

    Codes and positions are averaged over the particles around each point of a grid (a Gaussian kernel
    of three quarters of the spacing) and the frames are read off that curve, so the walk follows the
    particles where they lie on a curve; a straight line through latent space would leave them. Gaps
    between populated regions are bridged linearly.

    Parameters
    ----------
    z : ndarray, shape (n, d)
        Posterior means.
    score : ndarray, shape (n,)
        The coordinate, e.g. a Cartesian component in A.
    z_sd : ndarray, shape (n, d), optional
        Posterior sd.
    name : str
        Name of the walk.
    frames : int
        How many frames.
    low, high : float
        Percentiles of `score` at the two ends.
    snap : bool
        Replace every frame by the real particle nearest to it in latent space.

    Returns
    -------
    Traversal
    """
    z, score = np.asarray(z, dtype=np.float64), np.asarray(score, dtype=np.float64)
    sd = np.zeros_like(z) if z_sd is None else np.asarray(z_sd, dtype=np.float64)
    if len(z) > _AVERAGED:
        part = np.random.default_rng(0).choice(len(z), _AVERAGED, replace=False)
        z_near, sd_near, score_near = z[part], sd[part], score[part]
    else:
        z_near, sd_near, score_near = z, sd, score
    start, end = (float(np.percentile(score, share)) for share in (low, high))
    position = np.linspace(start, end, frames)
    knots, count = _kernel_means(position, score_near, np.column_stack([score_near, z_near, sd_near]))
    knots = knots[count >= min(max(2.0, _POPULATED * len(z_near)), 0.5 * count.max())]
    # Averages lie inside the cloud, so their own positions, not the grid's, are where the codes belong.
    along = np.maximum.accumulate(knots[:, 0])
    code, code_sd = np.split(
        np.stack([np.interp(position, along, c) for c in knots[:, 1:].T], axis=1), 2, axis=1
    )
    particle = cKDTree(z).query(code)[1].astype(np.int64)
    walk = Traversal(
        name,
        position,
        code.astype(np.float32),
        code_sd.astype(np.float32),
        particle,
    )
    if not snap:
        return walk
    return replace(
        walk,
        position=score[particle],
        z=z[particle].astype(np.float32),
        z_sd=sd[particle].astype(np.float32),
        snapped=True,
    )


def _kernel_means(
    position: NDArray, score: NDArray, values: NDArray
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Averages of the values around the positions and two more at either end, and the weight behind each."""
    step = max((position[-1] - position[0]) / max(len(position) - 1, 1), 1e-9)
    beyond = step * np.array([2.0, 1.0])
    grid = np.concatenate([position[0] - beyond, position, position[-1] + beyond[::-1]])
    weight = np.exp(-0.5 * ((grid[:, None] - score) / (0.75 * step)) ** 2)
    count = weight.sum(axis=1)
    return (weight @ values) / np.maximum(count, 1e-30)[:, None], count
