"""Free energy along a path from the images: populations of its structures and of those around it.

Every image is compared with the frames of the path and with structures that cover all else that the run
decodes; their populations are fitted as those of a landscape are (`cryoscape.analysis.landscape.fit`), and
added up by their progress along the path. What lies farther from the path than half its length is elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from cryoscape.analysis.landscape.fit import SmoothPopulations, fit_populations
from cryoscape.analysis.landscape.identifiability import (
    detail_along,
    nats_between_codes,
    nats_between_means,
    needed_nats,
)
from cryoscape.analysis.landscape.landscape import BINS, CANDIDATES
from cryoscape.analysis.landscape.profile import Axis, Profile, make_profile, weighted_quantiles
from cryoscape.analysis.paths.barriers import Barriers, find_barriers
from cryoscape.analysis.paths.metric import Places
from cryoscape.analysis.paths.progress import PathProgress
from cryoscape.analysis.populations.ensemble_weights import RESAMPLES, resampling_groups
from cryoscape.analysis.populations.likelihood_table import candidate_codes, likelihood_table
from cryoscape.progress import ProgressReporter

if TYPE_CHECKING:
    from cryoscape.training.run import Run

Array = NDArray[np.float64]

_FILL = 600
_TAIL = 1e-3
_PART = 256


@dataclass(frozen=True, eq=False)
class PathProfile:
    """Free energy of the vitrified sample along a path, from its images.

    Attributes
    ----------
    profile : Profile
        One axis: progress along the path, A; below 0 and above its length it is beyond the ends.
    barriers : Barriers
        With 95 % intervals.
    elsewhere : float
        Population farther from the path than half its length.
    away : float
        Root mean square distance from the path of the others, A.
    unresolved : ndarray of bool, shape (bins,)
        Where the images do not vouch for the profile.
    finest : ndarray, shape (bins,), or None
        Shortest period that the images show, A; None where the likelihood has no noise.
    frame_nats : ndarray, shape (frames - 1,), or None
        Expected nats an image between neighbouring frames.
    side_nats : float or None
        The same between the mean projections of what lies on either side of the highest barrier.
    needed_nats : float
        Between two wells, from which on so many images show two.
    fit : SmoothPopulations
    z : ndarray, shape (K, d)
        Codes of the structures that images were compared with; the frames first.
    progress, distance : ndarray, shape (M,)
        Of all structures, A.
    n_images : int
    groups : int
        Micrographs by which images were drawn again; 0 where it was one by one.
    """

    profile: Profile
    barriers: Barriers
    elsewhere: float
    away: float
    unresolved: NDArray[np.bool_]
    finest: Array | None
    frame_nats: Array | None
    side_nats: float | None
    needed_nats: float
    fit: SmoothPopulations
    z: NDArray[np.float32]
    progress: Array
    distance: Array
    n_images: int
    groups: int


def profile_from_images(
    run: Run,
    frames: NDArray[np.float32],
    fine: NDArray[np.float32],
    travelled: Array,
    places: Places,
    *,
    unit: str = "A",
    candidates: int = CANDIDATES,
    bins: int = BINS,
    resamples: int = RESAMPLES,
    seed: int = 0,
    progress: ProgressReporter | None = None,
) -> PathProfile:
    """Profile along a path.

    Parameters
    ----------
    run : Run
        With its images at hand.
    frames : ndarray, shape (f, d)
        Codes of the frames.
    fine : ndarray, shape (n, d)
        Codes of many points of the path.
    travelled : ndarray, shape (n,)
        Length up to each, A.
    places : callable
        Codes to points whose distances are lengths.
    unit : str
        Of the lengths.
    candidates : int
        Structures that all images are compared with: the frames, and as many others as are left.
    bins, resamples, seed, progress
        As for a landscape.

    Returns
    -------
    PathProfile
    """
    codes, count = _structures(run, frames, fine, places, candidates, seed)
    where = _decoded(places, codes)
    along = PathProgress(_decoded(places, fine), travelled)
    s, distance = along(where)
    table = likelihood_table(run, codes[:count], progress=progress)
    groups = resampling_groups(run.particles.micrograph)
    fit = fit_populations(
        table, _distances(where), groups=groups, resamples=resamples, seed=seed, progress=progress
    )
    near = distance <= 0.5 * along.length
    axis = _axis(s[near], fit.fine[near], along.length, bins, unit)
    profile = make_profile([axis], s[None, near], fit.fine[near], fit.resampled[:, near], len(table))
    barriers = find_barriers(profile, along.length, len(table))
    nats = nats_between_codes(run, codes[:count])
    finest = side = None
    if nats is not None:
        kept = np.flatnonzero(near[:count])
        detail = detail_along(nats[np.ix_(kept, kept)], s[kept], axis.edges, len(table))
        finest = detail.finest
        side = _between_sides(fit, nats, s, near, float(axis.centres[barriers.top]))
    weight = fit.fine * near
    return PathProfile(
        profile,
        barriers,
        max(0.0, float(1 - weight.sum())),
        float(np.sqrt(weight @ np.square(distance) / max(weight.sum(), 1e-300))),
        _unresolved(profile, barriers, finest, len(table)),
        finest,
        None if nats is None else np.diag(nats, 1)[: len(frames) - 1],
        side,
        needed_nats(len(table)),
        fit,
        codes[:count],
        s,
        distance,
        len(table),
        0 if groups is None else len(np.unique(groups)),
    )


def _structures(
    run: Run, frames: NDArray, fine: NDArray, places: Places, candidates: int, seed: int
) -> tuple[NDArray[np.float32], int]:
    """Codes (M, d): frames, the farthest from all before, then what fills the space; and how many K."""
    pool = candidate_codes(run, _FILL, seed)
    others = max(0, min(candidates - len(frames), len(pool)))
    path, cloud = _decoded(places, frames), _decoded(places, pool)
    away = np.full(len(pool), np.inf)
    for point in path:
        away = np.minimum(away, np.square(cloud - point).sum(axis=1))
    chosen: list[int] = []
    while len(chosen) < others and away.max() > 0:
        chosen.append(int(away.argmax()))
        away = np.minimum(away, np.square(cloud - cloud[chosen[-1]]).sum(axis=1))
    rest = np.setdiff1d(np.arange(len(pool)), chosen)
    codes = np.concatenate([frames, pool[chosen], fine[1:-1], pool[rest]])
    return codes.astype(np.float32), len(frames) + len(chosen)


@torch.no_grad()
def _decoded(places: Places, codes: NDArray) -> Array:
    parts = torch.as_tensor(codes, dtype=torch.float32).split(_PART)
    return torch.cat([places(part) for part in parts]).double().numpy()


def _distances(where: Array) -> Array:
    centred = where - where.mean(axis=0)
    power = np.square(centred).sum(axis=1)
    squared = power[:, None] + power - 2 * centred @ centred.T
    np.fill_diagonal(squared, 0.0)
    return np.sqrt(np.maximum(squared, 0.0))


def _axis(s: Array, weight: Array, length: float, bins: int, unit: str) -> Axis:
    low, high = weighted_quantiles(s, weight, (_TAIL, 1 - _TAIL))
    edges = np.linspace(min(low, 0.0), max(high, length), bins + 1)
    return Axis("progress along the path", unit, None, edges)


def _between_sides(
    fit: SmoothPopulations, nats: Array, s: Array, near: NDArray[np.bool_], top: float
) -> float | None:
    parts = fit.weight[:, None] * fit.shared
    mixtures = [(parts @ (near & side)) for side in (s < top, s >= top)]
    if min(float(one.sum()) for one in mixtures) <= 0:
        return None
    first, second = (one / one.sum() for one in mixtures)
    return float(nats_between_means(nats, first, second))


def _unresolved(profile: Profile, barriers: Barriers, finest: Array | None, n: int) -> NDArray[np.bool_]:
    """Bins with less than one image, or whose finest detail is coarser than the two wells lie apart."""
    lost = profile.population * n < 1
    if finest is None:
        return np.ones_like(lost)
    centres = profile.axes[0].centres
    return lost | (finest > centres[barriers.right] - centres[barriers.left])
