"""How far every residue seems to move where nothing does: the floor under a map of fluctuations (check 3).

Populations of the run's structures are fitted to sets of images of one structure alone, in the same poses,
transfer functions and noise. The fluctuation of each residue under such populations is what noise looks like;
its 99th percentile over the sets is the floor.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.99

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class MotionFloor:
    """Fluctuations of every residue that the images ask for, and those that noise makes.

    Attributes
    ----------
    rmsf : ndarray, shape (N,)
        Under the populations that the real images give, A.
    floor : ndarray, shape (N,)
        A.
    null_weight : ndarray, shape (R, K)
        Populations that sets of null images give.
    """

    rmsf: Array
    floor: Array
    null_weight: Array

    @property
    def moves(self) -> NDArray[np.bool_]:
        """Which residues move more than noise makes them."""
        return self.rmsf > self.floor


def fluctuations(coords: NDArray, weight: Array) -> Array:
    """Root mean square fluctuation (N,) of structures (K, N, 3) under populations (K,), A."""
    mean = np.einsum("k,kni->ni", weight, coords)
    return np.sqrt(np.einsum("k,kni->n", weight, np.square(coords - mean)))


def motion_floor(coords: NDArray, weight: Array, null_weight: Array) -> MotionFloor:
    """Floor of every residue.

    Parameters
    ----------
    coords : ndarray, shape (K, N, 3)
    weight : ndarray, shape (K,)
        From the real images.
    null_weight : ndarray, shape (R, K)
        From the null.
    """
    null = np.array([fluctuations(coords, one) for one in null_weight])
    return MotionFloor(fluctuations(coords, weight), np.quantile(null, LEVEL, axis=0), null_weight)
