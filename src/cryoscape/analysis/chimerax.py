"""A ChimeraX session script: the first component as a movie, coloured by how far residues move."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cryoscape.files import atomic_path
from cryoscape.structures.atomic_model import AtomicModel

SESSION = "open_in_chimerax.cxc"
_ATTRIBUTE = "analysis/motion.defattr"
_PALETTE = "#3b6fb6:#9ec4de:#f2efe6:#efa35c:#c0392b"


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


def write_session(folder: Path, frames: dict[str, int], n_clusters: int, rmsf: NDArray) -> str:
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

    Returns
    -------
    str
        The file, relative to the run.
    """
    top = max(float(np.percentile(rmsf, 98)), 0.1) if len(rmsf) else 1.0
    lines = [
        "# Open in ChimeraX (File > Open, or drop it on the window).",
        "close session",
        "set bgColor white",
    ]
    lines += ["graphics silhouettes true", "lighting soft"]
    for number, name in enumerate(frames, start=1):
        lines.append(f"open ensemble/{name}.cif coordsets true name {name}")
        lines.append(f"hide #{number} models" if number > 1 else f"view #{number}")
    if n_clusters:
        number = len(frames) + 1
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
            f"coordset #1 1,{frames[first]} pauseFrames 4 loop 100 bounce true",
        ]
    _write(folder / SESSION, lines)
    return SESSION


def _key(top: float) -> list[str]:
    colours = _PALETTE.split(":")
    return [f"{colour}:{top * i / (len(colours) - 1):.1f}" for i, colour in enumerate(colours)]


def _write(path: Path, lines: list[str]) -> None:
    with atomic_path(path) as temporary:
        Path(temporary).write_text("\n".join(lines) + "\n", encoding="utf-8")
