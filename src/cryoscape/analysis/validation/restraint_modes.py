"""Is a motion what the restraints alone prefer? Overlap with the soft modes of the network (check 5).

The softest modes of an elastic network are where a decoder goes that sees no images. Real motions follow
them, too, so overlap alone proves nothing: it counts where the images give no support.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cryoscape.structures.normal_modes import anisotropic_network_modes

MODES = 5

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ModeOverlap:
    """Overlap of motions with the softest modes.

    Attributes
    ----------
    each : ndarray, shape (M,)
        Length of each motion's projection on the space of the modes, 0 to 1.
    rmsip : float
        Root mean square inner product of both sets (Amadei et al. 1999).
    random : float
        What a direction drawn at random has on average.
    rigid : ndarray, shape (M,)
        Share of each motion, as squared displacement, that is a move of the whole.
    """

    each: Array
    rmsip: float
    random: float
    rigid: Array


def mode_overlap(coords: NDArray, axes: NDArray, modes: int = MODES) -> ModeOverlap:
    """Compare motions with the softest modes of the elastic network of a structure.

    Parameters
    ----------
    coords : ndarray, shape (N, 3)
        The mean structure, A.
    axes : ndarray, shape (M, N, 3)
        Orthonormal motions; rigid moves of the whole are taken out of them.
    modes : int

    Returns
    -------
    ModeOverlap

    Raises
    ------
    InputError
        If the network of the structure falls apart.
    """
    _, soft = anisotropic_network_modes(coords, modes)
    basis = soft.reshape(len(soft), -1)
    flat = np.asarray(axes, dtype=np.float64).reshape(len(axes), -1)
    rigid = _rigid(np.asarray(coords, dtype=np.float64))
    whole = np.square(flat @ rigid.T).sum(axis=1) / np.square(flat).sum(axis=1)
    flat = flat - flat @ rigid.T @ rigid
    flat = flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-12)
    inner = np.square(flat @ basis.T)
    return ModeOverlap(
        np.sqrt(inner.sum(axis=1)),
        float(np.sqrt(inner.sum() / len(flat))),
        float(np.sqrt(len(basis) / max(flat.shape[1] - 6, 1))),
        whole,
    )


def _rigid(coords: Array) -> Array:
    """Orthonormal moves of the whole, (6, 3 N): three translations and three rotations about the centre."""
    centred = coords - coords.mean(axis=0)
    moves = [np.tile(axis, (len(coords), 1)) for axis in np.eye(3)]
    moves += [np.cross(axis, centred) for axis in np.eye(3)]
    q, _ = np.linalg.qr(np.array(moves).reshape(6, -1).T)
    return np.asarray(q.T)
