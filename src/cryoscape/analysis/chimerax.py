"""A ChimeraX session script: the first component as a movie, of models, of maps or of both."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cryoscape.files import atomic_path
from cryoscape.structures.atomic_model import AtomicModel

SESSION = "open_in_chimerax.cxc"
_ATTRIBUTE = "analysis/motion.defattr"
_PALETTE = "#3b6fb6:#9ec4de:#f2efe6:#efa35c:#c0392b"
_SOLID, _SHELL = "#7fb2c4", "#8fa3b066"
_PAUSE = 4


@dataclass(frozen=True)
class MapSeries:
    """What the script needs to know of the maps of an analysis.

    Parameters
    ----------
    folder : str
        Where they lie, relative to the script, e.g. "maps".
    frames : dict of int
        Frames of each walk by name; frame k of `pc1` is `pc1_00k.mrc`.
    clusters : int
        Files `cluster_01.mrc`, ...
    level : float
        Contour level of every map.
    deviation : float
        Largest standard deviation over the particles in a voxel, which sets the colour scale.
    """

    folder: str
    frames: dict[str, int]
    clusters: int
    level: float
    deviation: float = 0.0


def write_motion_attribute(folder: Path, model: AtomicModel, rmsf: NDArray) -> str:
    """Write the fluctuation of each residue as a ChimeraX attribute file.

    Parameters
    ----------
    folder : Path
        The run.
    model : AtomicModel
        The model of N residues.
    rmsf : ndarray, shape (N,)
        Root mean square fluctuation, A.

    Returns
    -------
    str
        The file, relative to the run.
    """
    lines = ["attribute: motion", "recipient: residues"]
    for chain, number, code, value in zip(model.chain_id, model.residue_number, model.insertion_code, rmsf):
        lines.append(f"\t/{chain}:{number}{str(code).strip()}\t{value:.3f}")
    path = folder / _ATTRIBUTE
    path.parent.mkdir(parents=True, exist_ok=True)
    _write(path, lines)
    return _ATTRIBUTE


def write_session(
    folder: Path, frames: dict[str, int], n_clusters: int, rmsf: NDArray, maps: MapSeries | None = None
) -> str:
    """Write the script that opens walks and representatives.

    Paths are relative; ChimeraX resolves them against the script's own folder.

    Parameters
    ----------
    folder : Path
        The run.
    frames : dict of int
        Frames of each walk by name, in the order of its file `ensemble/<name>.cif`.
    n_clusters : int
        Models in `ensemble/clusters.cif`; 0 where there is no such file.
    rmsf : ndarray, shape (N,)
        Fluctuations, which set the colour scale, A.
    maps : MapSeries, optional
        Maps along the same walks, shown as a shell about the models; frame k of the one belongs to
        frame k of the other.

    Returns
    -------
    str
        The file, relative to the run.
    """
    top = max(float(np.percentile(rmsf, 98)), 0.1) if len(rmsf) else 1.0
    lines = _opening()
    for number, name in enumerate(frames, start=1):
        lines.append(f"open ensemble/{name}.cif coordsets true name {name}")
        lines.append(f"hide #{number} models" if number > 1 else f"view #{number}")
    number = len(frames)
    if n_clusters:
        number += 1
        lines += ["open ensemble/clusters.cif name clusters", f"hide #{number} models"]
    lines += [
        "hide atoms",
        "cartoon",
        # A ribbon needs CA atoms; beads of nucleic acids are drawn as they are.
        "show @P,C1' atoms",
        f"open {_ATTRIBUTE}",
        f"color byattribute r:motion palette {_PALETTE} range 0,{top:.2f}",
        f"key {' '.join(_key(top))} pos 0.7,0.06 size 0.25,0.03",
        "2dlabels text 'motion (A rms)' xpos 0.7 ypos 0.11 size 18",
    ]
    if frames:
        first = next(iter(frames))
        lines += [
            f"# {first} plays back and forth; show another walk with: hide #1 models; show #2 models;"
            " coordset slider #2",
        ]
        shared = maps is not None and maps.frames.get(first) == frames[first] > 1
        if maps is not None and shared:
            lines[-1] = f"# {first} plays as models and as maps, frame by frame"
            lines += _series(maps, first, number + 1, _SHELL)
            # Both start anew at their ends: back and forth they would count the ends differently.
            lines += [
                f"coordset #1 1,{frames[first]} pauseFrames {_PAUSE} loop 1000",
                f"vseries play #{number + 1} loop true pauseFrames {_PAUSE} cacheFrames {frames[first]}",
            ]
        else:
            lines.append(f"coordset #1 1,{frames[first]} pauseFrames {_PAUSE} loop 100 bounce true")
    _write(folder / SESSION, lines)
    return SESSION


def write_map_session(folder: Path, maps: MapSeries) -> str:
    """Write the script that opens walks, representatives and the mean map of a run of maps.

    Parameters
    ----------
    folder : Path
        The run.
    maps : MapSeries
        Its maps.

    Returns
    -------
    str
        The file, relative to the run.
    """
    lines = _opening()
    walks = [name for name, count in maps.frames.items() if count > 1]
    for number, name in enumerate(walks, start=1):
        lines += _series(maps, name, number, _SOLID)
        lines.append(f"hide #{number} models" if number > 1 else f"view #{number}")
    number = len(walks) + 1
    if maps.clusters > 1:
        lines += [
            f"open {maps.folder}/cluster_*.mrc vseries true",
            f"volume #{number} level {maps.level:.6g} step 1 color {_SOLID}",
            f"hide #{number} models",
        ]
        number += 1
    lines += [
        f"open {maps.folder}/mean.mrc",
        f"volume #{number} level {maps.level:.6g} step 1",
        f"open {maps.folder}/variation.mrc",
        f"hide #{number + 1} models",
        f"color sample #{number} map #{number + 1} palette {_PALETTE} range 0,{maps.deviation:.6g}",
    ]
    if walks:
        lines += [
            f"hide #{number} models",
            f"# the mean map, coloured by how much the density varies: hide #1 models; show #{number} models",
        ]
    else:
        lines.append(f"view #{number}")
    if len(walks) > 1:
        lines.append("# another walk: hide #1 models; show #2 models; vseries slider #2")
    if walks:
        # Every frame keeps its surface once drawn, so that the second round is smooth.
        lines.append(
            f"vseries play #1 loop true direction oscillate pauseFrames {_PAUSE} "
            f"cacheFrames {maps.frames[walks[0]]}"
        )
    _write(folder / SESSION, lines)
    return SESSION


def _opening() -> list[str]:
    return [
        "# Open in ChimeraX (File > Open, or drop it on the window).",
        "close session",
        "set bgColor white",
        "graphics silhouettes true",
        "lighting soft",
    ]


def _series(maps: MapSeries, name: str, number: int, colour: str) -> list[str]:
    return [
        f"open {maps.folder}/{name}_*.mrc vseries true",
        f"volume #{number} level {maps.level:.6g} step 1 color {colour}",
    ]


def _key(top: float) -> list[str]:
    colours = _PALETTE.split(":")
    return [f"{colour}:{top * i / (len(colours) - 1):.1f}" for i, colour in enumerate(colours)]


def _write(path: Path, lines: list[str]) -> None:
    with atomic_path(path) as temporary:
        Path(temporary).write_text("\n".join(lines) + "\n", encoding="utf-8")
