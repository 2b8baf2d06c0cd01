"""What a code knows of the view it was seen from, in nats."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from scipy.special import digamma

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Dependence:
    """Mutual information of a code with the view.

    Attributes
    ----------
    nats : float
        Beyond the mean of the null.
    null_sd : float
        Spread of the null, nats.
    p_value : float
        Share of permutations that reach it, counting itself.
    """

    nats: float
    null_sd: float
    p_value: float


def view_information(
    code: Array, directions: Array, *, permutations: int = 99, most: int = 1500, seed: int = 0
) -> Dependence:
    """Mutual information of codes, or of a coordinate of the motion, with the direction of view.

    Kraskov, Stoegbauer and Grassberger (2004), equation 8, with 5 neighbours, on ranks of the codes, less its
    mean over permutations. An honest posterior mean depends on the view too, as its sharpness does: the
    number is to be reported, and populations are to be judged.

    Parameters
    ----------
    code : ndarray, shape (n,) or (n, d)
    directions : ndarray, shape (n, 3)
    permutations : int
    most : int
        Images that are looked at.
    seed : int
        Of the choice of images and the permutations.

    Returns
    -------
    Dependence
    """
    rng = np.random.default_rng(seed)
    chosen = rng.permutation(len(code))[:most]
    x = np.asarray(code, dtype=np.float64).reshape(len(code), -1)[chosen]
    x = np.argsort(np.argsort(x, axis=0), axis=0) / len(x)
    y = np.asarray(directions, dtype=np.float64)[chosen]
    found = mutual_information(x, y)
    null = np.array([mutual_information(x[rng.permutation(len(x))], y) for _ in range(permutations)])
    p_value = (1 + np.count_nonzero(null >= found)) / (1 + permutations)
    return Dependence(float(found - null.mean()), float(null.std(ddof=1)), float(p_value))


def mutual_information(x: Array, y: Array, neighbours: int = 5) -> float:
    """Mutual information of samples (n, a) and (n, b), nats, by nearest neighbours.

    psi(k) + psi(n) - mean(psi(n_x + 1) + psi(n_y + 1)), n_x and n_y the numbers of points nearer in x, and in
    y, than the k-th neighbour in both, all by the largest difference of a coordinate.
    """
    reach = cKDTree(np.hstack([x, y])).query(np.hstack([x, y]), neighbours + 1, p=np.inf)[0][:, -1]
    # Strictly nearer; the point itself is found as well, which is the + 1.
    inside = np.nextafter(reach, 0)
    counts = [cKDTree(v).query_ball_point(v, inside, p=np.inf, return_length=True) for v in (x, y)]
    return float(digamma(neighbours) + digamma(len(x)) - sum(digamma(c).mean() for c in counts))
