"""How the decoded maps differ from one another: components of the density itself, not of its codes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation

from cryoscape.analysis.components import PrincipalComponents, fit_components
from cryoscape.analysis.contour import contour_level, inscribed_sphere
from cryoscape.analysis.interpolation import interpolate
from cryoscape.analysis.populations.farthest_points import farthest_points
from cryoscape.physics.map_filters import coarsen, lowpass

if TYPE_CHECKING:
    from cryoscape.training.run import Run

# Side of the maps that are compared: large motions show at a coarse voxel, noise between voxels does not.
COARSE = 48
_CHUNK_BYTES = 64_000_000
# Maps spread over the latent space that say where there is ever density.
_SPREAD = 32
# Maps that fit the components: the largest number whose decoding takes a core no longer than this.
_SAMPLES = (1024, 512, 256, 128)
_SECONDS = 60.0


@dataclass(frozen=True)
class MapVariation:
    """How the decoded maps differ, relative to the density itself.

    Parameters
    ----------
    components : PrincipalComponents
        Of the coarse maps inside the mask (axes over its voxels, in C order). Scores are rms differences
        from the mean map over the voxels of the mask, divided by the rms density of the mean map there: a
        score of 0.2 means that the map differs from the mean by 20 % of its density along that axis.
    mask : ndarray, shape (m, m, m), bool
        Voxels that hold density in some map.
    voxel_size : float
        Of the coarse maps, A.
    level : float
        Contour level of the mean map.
    decoded : int
        Particles whose maps were decoded. Scores of the others are predicted from their codes.
    predicted : float
        Share of the variance of the scores that such a prediction gets right; 1 where all were decoded.
    """

    components: PrincipalComponents
    mask: NDArray[np.bool_]
    voxel_size: float
    level: float
    decoded: int
    predicted: float

    @property
    def spread(self) -> float:
        """Rms difference from the mean map over particles and voxels, as a share of its density."""
        return float(np.sqrt(self.components.total_variance))


@dataclass(frozen=True)
class MapMoments:
    """Mean map and where the maps vary, at full resolution.

    Parameters
    ----------
    mean : ndarray, shape (D, D, D), float32
        Mean of the decoded maps.
    deviation : ndarray, shape (D, D, D), float32
        Their standard deviation in every voxel.
    """

    mean: NDArray[np.float32]
    deviation: NDArray[np.float32]


def decode_maps_in_chunks(
    run: Run, z: NDArray, resolution: float | None = None
) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    """Decode the maps of many latent codes in bounded memory.

    Parameters
    ----------
    run : Run
        The trained run.
    z : ndarray, shape (n, d)
        Latent codes.
    resolution : float, optional
        Low-pass filter, A.

    Yields
    ------
    slice
        Which rows of `z`.
    ndarray, shape (m, D, D, D), float32
        Their maps.
    """
    size = int(np.clip(_CHUNK_BYTES // (4 * run.geometry.box**3), 1, 32))
    for start in range(0, len(z), size):
        rows = slice(start, min(start + size, len(z)))
        maps = np.asarray(run.decode_maps(np.asarray(z[rows], dtype=np.float32)), dtype=np.float32)
        if resolution is not None:
            maps = lowpass(torch.from_numpy(maps), run.geometry.pixel_size, resolution).numpy()
        yield rows, maps


def decoded_variation(
    run: Run, z: NDArray, n_components: int = 5, seed: int = 0
) -> tuple[MapVariation, MapMoments]:
    """Principal components of the decoded maps.

    Maps of a seeded sample of particles (1,024, or fewer where decoding them would take a core more than a
    minute, at least 128) are brought to at most 48 voxels a side; their voxels count where any of 32 maps
    spread over the latent space holds density. Where there are more particles than the sample, their
    scores are predicted from their codes.

    Parameters
    ----------
    run : Run
        A run that decodes maps.
    z : ndarray, shape (n, d)
        Posterior means.
    n_components : int
        How many axes to keep.
    seed : int
        Of the sample.

    Returns
    -------
    MapVariation
    MapMoments
        Over the sample, at full resolution.
    """
    z = np.asarray(z, dtype=np.float64)
    mask, per_map = _mask(run, z, seed)
    sample = np.sort(np.random.default_rng(seed).permutation(len(z))[: _affordable(per_map)])
    box = run.geometry.box
    cloud = np.empty((len(sample), int(mask.sum())), dtype=np.float32)
    first, second = np.zeros((2, box, box, box))
    for rows, maps in decode_maps_in_chunks(run, z[sample]):
        cloud[rows] = _coarse(run, maps)[:, mask]
        for volume in maps:
            first += volume
            second += volume.astype(np.float64) ** 2
    mean = first / len(sample)
    deviation = np.sqrt(np.maximum(second / len(sample) - mean**2, 0))
    moments = MapMoments(mean.astype(np.float32), deviation.astype(np.float32))

    # Divided so, Euclidean lengths over the voxels become rms differences relative to the density.
    density = float(np.sqrt(np.mean(cloud.mean(axis=0, dtype=np.float64) ** 2)))
    cloud /= np.float32((density or 1.0) * np.sqrt(cloud.shape[1]))
    centre, axes, variance, total = fit_components(cloud, n_components)
    known = (cloud - centre.astype(np.float32)) @ axes.T.astype(np.float32)
    scores, share = known.astype(np.float64), 1.0
    if len(sample) < len(z):
        scores, share = interpolate(z[sample], known, z, seed)
        scores[sample] = known
    components = PrincipalComponents(centre, axes, variance, total, scores.astype(np.float32))
    voxel_size = run.geometry.pixel_size * box / len(mask)
    level = contour_level(moments.mean)
    return MapVariation(components, mask, voxel_size, level, len(sample), share), moments


def _mask(run: Run, z: NDArray, seed: int) -> tuple[NDArray[np.bool_], float]:
    """Where density ever is, on the coarse grid, and the seconds that decoding a map takes."""
    far = z[_far_apart(z, _SPREAD, seed)]
    run.decode_maps(far[:1].astype(np.float32))  # what is done once is not what a map takes
    side = min(run.geometry.box, COARSE)
    mean, highest = np.zeros((side,) * 3), np.full((side,) * 3, -np.inf)
    seconds, start = 0.0, time.process_time()
    for _, maps in decode_maps_in_chunks(run, far):
        seconds += time.process_time() - start
        coarse = _coarse(run, maps)
        mean += coarse.sum(axis=0) / len(far)
        highest = np.maximum(highest, coarse.max(axis=0))
        start = time.process_time()
    inside = inscribed_sphere(side)
    mask = binary_dilation(highest > contour_level(mean)) & inside
    return (mask if mask.any() else inside), seconds / len(far)


def _far_apart(z: NDArray, count: int, seed: int) -> NDArray[np.int64]:
    """Rows of codes far apart: the first near the middle, each next the farthest from those taken."""
    pool = np.random.default_rng(seed).permutation(len(z))[:20_000]
    return pool[farthest_points(z[pool], count)]


def _affordable(per_map: float) -> int:
    return next((count for count in _SAMPLES if count * per_map <= _SECONDS), _SAMPLES[-1])


def _coarse(run: Run, maps: NDArray[np.float32]) -> NDArray[np.float32]:
    box = run.geometry.box
    if box <= COARSE:
        return maps
    return coarsen(torch.from_numpy(maps), run.geometry.pixel_size, COARSE).numpy()
