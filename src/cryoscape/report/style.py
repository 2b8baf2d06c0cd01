"""Colours and residue positions that all figures share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cryoscape.structures.atomic_model import AtomicModel

INK, MUTED, GRID = "#1f2933", "#6b7785", "#e6eaee"
TEAL, ORANGE, GREY = "#147d92", "#d9772b", "#9aa5b1"
QUALITATIVE = (
    "#147d92", "#d9772b", "#6a4c93", "#4f9d4f", "#c2456b",
    "#8a6d3b", "#3f6fb5", "#a3a83a", "#7b8794", "#222222",
)  # fmt: skip
SEQUENTIAL = "Viridis"
MOTION = ((0.0, "#3b6fb6"), (0.3, "#86b6d9"), (0.55, "#e9d8a6"), (0.8, "#e88b4a"), (1.0, "#b8322a"))


@dataclass(frozen=True)
class ChainSpan:
    """Where a chain lies on a shared residue axis.

    Parameters
    ----------
    name : str
        Chain.
    index : ndarray, shape (m,), int
        Its residues in the model.
    position : ndarray, shape (m,)
        Their places on the axis; NaN-free, gaps in the numbering kept.
    """

    name: str
    index: NDArray[np.int64]
    position: NDArray[np.float64]


def chain_spans(model: AtomicModel) -> list[ChainSpan]:
    """Lay the chains of a model side by side on one axis.

    A single chain keeps its residue numbers; several follow one another.

    Parameters
    ----------
    model : AtomicModel
        The model.

    Returns
    -------
    list of ChainSpan
        In the order of the file.
    """
    chain = np.asarray(model.chain_id)
    names = list(dict.fromkeys(chain.tolist()))
    spans, offset = [], 0.0
    for name in names:
        index = np.flatnonzero(chain == name)
        number = np.asarray(model.residue_number)[index].astype(np.float64)
        position = number if len(names) == 1 else number - number.min() + offset
        spans.append(ChainSpan(str(name), index, position))
        offset = position.max() + max(3.0, 0.02 * len(chain))
    return spans


def second_range(points: NDArray) -> list[float] | None:
    """Range of the second axis of a map, or None to fit it.

    A component with almost no variance must not be blown up to look like one.

    Parameters
    ----------
    points : ndarray, shape (n, 2)
        Where the particles are drawn.

    Returns
    -------
    list of float, or None
    """
    width, height = np.ptp(points, axis=0)
    if height >= 0.1 * width or width == 0:
        return None
    middle = 0.5 * float(points[:, 1].min() + points[:, 1].max())
    return [middle - 0.1 * float(width), middle + 0.1 * float(width)]
