"""Maps of a run read back for display."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from cryoscape.analysis.map_files import FOLDER, MEAN, VARIATION
from cryoscape.analysis.summary import AnalysisSummary
from cryoscape.data.mrc import read_map
from cryoscape.physics.map_filters import coarsen

# Larger maps are shown on this many voxels a side.
_SHOWN = 96


@dataclass(frozen=True)
class MapSeries:
    """Maps of one size, and what they are seen by.

    Parameters
    ----------
    maps : ndarray, shape (f, D, D, D)
        Frames.
    deviation : ndarray, shape (D, D, D)
        Standard deviation over the particles in every voxel.
    level : float
        Contour level.
    voxel_size : float
        Angstrom.
    labels : tuple of str
        What each frame is.
    """

    maps: NDArray[np.float32]
    deviation: NDArray[np.float32]
    level: float
    voxel_size: float
    labels: tuple[str, ...]

    @property
    def top(self) -> float:
        """Deviation at the red end of the scale: what one voxel in a hundred of the molecule exceeds."""
        inside = self.deviation[self.maps.max(axis=0) > self.level]
        return float(np.percentile(inside, 99)) if len(inside) else 1.0


def read_walk(folder: Path, summary: AnalysisSummary, number: int = 0) -> MapSeries | None:
    """Read the maps of a walk.

    Parameters
    ----------
    folder : Path
        The run.
    summary : AnalysisSummary
        Its analysis.
    number : int
        Which walk.

    Returns
    -------
    MapSeries or None
        None where the maps are not, or no longer, there.
    """
    walk = summary.traversals[number]
    names = [f"{FOLDER}/{walk.name}_{k:03d}.mrc" for k in range(len(walk.position))]
    return _read(folder, summary, names, [position_label(p, summary.walk_unit) for p in walk.position])


def read_groups(folder: Path, summary: AnalysisSummary) -> MapSeries | None:
    """Read the maps of the groups' representatives; None where they are not there.

    Parameters
    ----------
    folder : Path
        The run.
    summary : AnalysisSummary
        Its analysis.

    Returns
    -------
    MapSeries or None
    """
    count = summary.clusters.count
    names = [f"{FOLDER}/cluster_{k:02d}.mrc" for k in range(1, len(count) + 1)]
    labels = [f"{k}: {100 * share:.0f} %" for k, share in enumerate(count / count.sum(), start=1)]
    return _read(folder, summary, names, labels)


def position_label(position: float, unit: str) -> str:
    """Write a position along a walk: "+1.20 Å", "+12 %" of the density, or "+0.40" of a code.

    Parameters
    ----------
    position : float
        As in the analysis.
    unit : {"A", "density", "code"}
        Of the walk.

    Returns
    -------
    str
    """
    if unit == "code":
        return f"{position:+.2f}"
    return f"{position:+.2f} Å" if unit == "A" else f"{100 * position:+.0f} %"


def _read(folder: Path, summary: AnalysisSummary, names: list[str], labels: list[str]) -> MapSeries | None:
    if summary.density is None or not all((folder / name).is_file() for name in (*names, MEAN, VARIATION)):
        return None
    maps, voxel_size = [], 1.0
    for name in (*names, VARIATION):
        found = read_map(folder / name)
        box, voxel_size = len(found.data), found.voxel_size
        data = found.data
        if box > _SHOWN:
            data = coarsen(torch.from_numpy(data), voxel_size, _SHOWN).numpy()
            voxel_size *= box / _SHOWN
        maps.append(data)
    return MapSeries(np.stack(maps[:-1]), maps[-1], summary.density.level, voxel_size, tuple(labels))
