"""Maps of a run as files: walks, groups, and where the density varies."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cryoscape.analysis.map_variation import MapMoments, decode_maps_in_chunks
from cryoscape.data.mrc import write_map
from cryoscape.files import need_space

if TYPE_CHECKING:
    from cryoscape.analysis.traversal import Traversal
    from cryoscape.training.run import Run

FOLDER = "maps"
MEAN, VARIATION = "maps/mean.mrc", "maps/variation.mrc"
_HEADER = 1024


def write_analysis_maps(
    run: Run,
    walks: tuple[Traversal, ...],
    groups: NDArray,
    moments: MapMoments,
    states: NDArray | None = None,
) -> tuple[str, ...]:
    """Write the maps of an analysis and remove those of an earlier one.

    Parameters
    ----------
    run : Run
        A run that decodes maps.
    walks : tuple of Traversal
        One series `maps/<name>_000.mrc`, ... each, which ChimeraX opens as `<name>_*.mrc`.
    groups : ndarray, shape (k, d)
        Codes of the representatives, written as `maps/cluster_01.mrc`, ...
    moments : MapMoments
        Written as `maps/mean.mrc` and `maps/variation.mrc`.
    states : ndarray, shape (b, d), optional
        Codes of the representatives of the prior's states, written as `maps/state_01.mrc`, ...

    Returns
    -------
    tuple of str
        The files, relative to the run.

    Raises
    ------
    InputError
        They do not fit on the disk.
    """
    folder = Path(run.path)
    frames = [f"{FOLDER}/{walk.name}_{k:03d}.mrc" for walk in walks for k in range(len(walk.z))]
    clusters = [f"{FOLDER}/cluster_{k:02d}.mrc" for k in range(1, len(groups) + 1)]
    own = [] if states is None else list(states)
    stated = [f"{FOLDER}/state_{k:02d}.mrc" for k in range(1, len(own) + 1)]
    names = [*frames, *clusters, *stated, MEAN, VARIATION]
    for pattern in ("pc*_*.mrc", "cluster_*.mrc", "state_*.mrc"):
        # An earlier analysis with more of them must not be taken for this one.
        for path in (folder / FOLDER).glob(pattern):
            path.unlink()
    need_space(folder, len(names) * map_bytes(run), f"{len(names)} maps")
    write_maps(run, [z for walk in walks for z in walk.z], [folder / name for name in frames])
    write_maps(run, list(groups), [folder / name for name in clusters])
    write_maps(run, own, [folder / name for name in stated])
    for name, data in ((MEAN, moments.mean), (VARIATION, moments.deviation)):
        write_map(folder / name, data, run.geometry.pixel_size, origin=run.map_origin)
    return tuple(names)


def write_maps(run: Run, z: list[NDArray], paths: list[Path], resolution: float | None = None) -> None:
    """Decode latent codes and write one map each.

    Parameters
    ----------
    run : Run
        A run that decodes maps.
    z : list of ndarray, shape (d,)
        Latent codes.
    paths : list of Path
        As many files.
    resolution : float, optional
        Low-pass filter, A.
    """
    if not z:
        return
    for rows, maps in decode_maps_in_chunks(run, np.stack(z), resolution):
        for path, data in zip(paths[rows], maps):
            write_map(path, data, run.geometry.pixel_size, origin=run.map_origin)


def map_bytes(run: Run) -> int:
    """Size of the file of one decoded map."""
    return 4 * run.geometry.box**3 + _HEADER
