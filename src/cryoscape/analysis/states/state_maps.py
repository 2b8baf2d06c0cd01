"""One map for each state from the images alone: weighted back-projection of two halves.

The model has said which image counts how much, and nothing else of it enters: no decoded map, no radial gain,
no mask of the reference.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryoscape.data.images import BandImages
from cryoscape.physics.backprojection import (
    Accumulated,
    BackProjector,
    SliceBatch,
    signal_to_noise_tau,
    solve,
)
from cryoscape.physics.half_maps import (
    HalfMapCorrelation,
    correlate_halves,
    guinier_b_factor,
    sharpen,
    signal_amplitude,
    trusted_correlation,
)
from cryoscape.physics.map_filters import lowpass
from cryoscape.physics.masking import LOWPASS, automatic_mask, inscribed_sphere
from cryoscape.physics.resolution import resolution_at
from cryoscape.progress import ProgressReporter, reporter_or_silent

FSC_THRESHOLD = 0.143

ACCUMULATOR_MEMORY = 2 * 2**30
"""Bytes of sums held at once; more states than fit are done in further passes over the images."""

_BATCH = 256


@dataclass(frozen=True, eq=False)
class StateMap:
    """What the images of one state give.

    Attributes
    ----------
    half1, half2 : Tensor, shape (D, D, D)
        Not filtered, for local resolution and post-processing in other programs.
    combined : Tensor, shape (D, D, D)
        From both halves, not filtered.
    filtered : Tensor, shape (D, D, D)
        Wiener estimate from both halves with the signal-to-noise ratio of the half maps; not sharpened.
    sharpened : Tensor, shape (D, D, D), or None
        `filtered` sharpened by `b_factor` and cut at the resolution; None where there is no B-factor.
    mask : Tensor, shape (D, D, D)
        Soft, made from the map.
    correlation : HalfMapCorrelation
    resolution : float
        Where the corrected correlation falls below 0.143, Angstrom; infinite where it starts below.
    b_factor : float or None
        Applied to `sharpened`, A^2; negative sharpens.
    voxel_size : float
        Angstrom.
    count : tuple of float
        Sum of the weights in each half.
    """

    half1: Tensor
    half2: Tensor
    combined: Tensor
    filtered: Tensor
    sharpened: Tensor | None
    mask: Tensor
    correlation: HalfMapCorrelation
    resolution: float
    b_factor: float | None
    voxel_size: float
    count: tuple[float, float]

    @property
    def frequency(self) -> NDArray[np.float64]:
        """Frequency of each shell, 1/A, shape (S,)."""
        return np.arange(len(self.correlation.corrected)) / (self.half1.shape[0] * self.voxel_size)

    @property
    def at_the_limit(self) -> bool:
        """Whether the half maps agree up to the end of the band, so that the resolution is only a bound."""
        return not bool((self.correlation.corrected[1:] < FSC_THRESHOLD).any())


def back_project_states(
    images: BandImages,
    weights: NDArray[np.float64],
    halves: NDArray[np.int8],
    *,
    device: torch.device | str = "cpu",
    progress: ProgressReporter | None = None,
) -> Iterator[Accumulated]:
    """Sums of the back-projection of every state.

    Parameters
    ----------
    images : BandImages
        N particles.
    weights : ndarray, shape (N, K)
        Weight of every image in every state.
    halves : ndarray, shape (N,)
        1 or 2.
    device : torch.device or str
        Of the sums.
    progress : ProgressReporter, optional

    Yields
    ------
    Accumulated
        State by state. As many states as fit into memory share one pass over the images.
    """
    n, k = weights.shape
    table = torch.from_numpy(np.asarray(weights, dtype=np.float32))
    half = torch.from_numpy(np.asarray(halves, dtype=np.int64))
    each = 6 * 4 * images.box * images.box * (images.box // 2 + 1)
    passes = torch.arange(k).split(max(1, ACCUMULATOR_MEMORY // each))
    with reporter_or_silent(progress).task("back-project", n * len(passes), "images") as task:
        for states in passes:
            shape = (images.box, images.pixel_size, images.particles.box)
            projectors = {int(s): BackProjector(*shape, device=device) for s in states}
            for rows in torch.arange(n).split(_BATCH):
                batch = images.batch(rows)
                for s, projector in projectors.items():
                    here = (table[rows, s] > 0).nonzero()[:, 0]
                    if len(here):
                        projector.insert(
                            SliceBatch(
                                batch.images[here],
                                batch.ctf[here],
                                batch.rotations[here],
                                half[rows[here]],
                                table[rows[here], s],
                            )
                        )
                task.advance(len(rows))
            for s in list(projectors):
                yield projectors.pop(s).finish()


def finish_map(sums: Accumulated, b_factor: float | None = None, seed: int = 0) -> StateMap:
    """Half maps, mask, resolution and filtered maps from the sums of one state.

    Parameters
    ----------
    sums : Accumulated
        From `back_project_states`.
    b_factor : float, optional
        For the sharpened map, A^2, negative sharpens; by default from the Guinier plot.
    seed : int
        Of the random phases.

    Returns
    -------
    StateMap
    """
    raw = solve(sums)
    box, voxel = sums.box, sums.voxel_size
    sphere = inscribed_sphere(box)
    coarse = correlate_halves(raw.half1, raw.half2, sphere, sphere, seed)
    # A map worse than 15 A needs a mask made at a resolution that it has.
    seen = resolution_at(coarse.unmasked, 0.5, box, voxel)
    at = max(LOWPASS, seen) if np.isfinite(seen) else 0.25 * box * voxel
    mask = automatic_mask(raw.half1, raw.half2, voxel, lowpass_at=at)
    correlation = correlate_halves(raw.half1, raw.half2, mask, sphere, seed)
    resolution = resolution_at(correlation.corrected, FSC_THRESHOLD, box, voxel)
    trusted = trusted_correlation(correlation.corrected)
    filtered = solve(sums, tau=signal_to_noise_tau(sums, trusted)).both
    if b_factor is None and np.isfinite(resolution):
        decay = guinier_b_factor(signal_amplitude(raw.both, trusted, mask), box, voxel, resolution)
        b_factor = None if decay is None else -decay
    sharpened = None
    if b_factor is not None and np.isfinite(resolution):
        sharpened = lowpass(sharpen(filtered, voxel, b_factor), voxel, resolution)
    return StateMap(
        raw.half1,
        raw.half2,
        raw.both,
        filtered,
        sharpened,
        mask,
        correlation,
        resolution,
        b_factor,
        voxel,
        sums.count,
    )
