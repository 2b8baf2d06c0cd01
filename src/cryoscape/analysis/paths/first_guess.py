"""A first string through where the population is, however its valleys bend."""

from __future__ import annotations

import numpy as np
import torch
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import dijkstra
from scipy.spatial import cKDTree
from torch import Tensor

from cryoscape.analysis.paths.string_method import Surface, spread_evenly

_NEIGHBOURS = 12
# Free energies above the lowest are cut off here, kT: beyond, all is equally empty.
_HIGHEST = 25.0


def through_the_population(surface: Surface, ends: Tensor, draws: Tensor, n: int) -> Tensor:
    """Points from one end to another along draws of the population, by least exp(F) times length.

    That integral is the resistance of a tube about the path; its least is the path of largest flux
    (Berkowitz et al. 1983), which crosses barriers where they are low. A straight string would stay on the
    side of a hill on which it began.

    Parameters
    ----------
    surface : Surface
    ends : Tensor, shape (2, d)
        Whitened.
    draws : Tensor, shape (m, d)
        Of the population, whitened.
    n : int

    Returns
    -------
    Tensor, shape (n, d)
        Equally spaced in A, smoothed over its neighbours.
    """
    line = ends[0] + torch.linspace(0, 1, n, dtype=ends.dtype)[:, None] * (ends[1] - ends[0])
    points = torch.cat([ends, line[1:-1], draws])
    metric = surface.metric
    decoded = torch.cat([metric.places(metric.codes(part)).detach() for part in points.split(256)])
    places = torch.cat([decoded, metric.floor * points], dim=1).double().numpy()
    near = cKDTree(_leading(places))
    index = near.query(near.data, k=min(_NEIGHBOURS + 1, len(points)))[1][:, 1:]
    first = np.repeat(np.arange(len(points)), index.shape[1])
    last = index.ravel()
    # The straight line is a way as well, so that there always is one.
    chain = np.concatenate([[0], np.arange(2, n), [1]])
    first, last = np.concatenate([first, chain[:-1]]), np.concatenate([last, chain[1:]])
    length = np.linalg.norm(places[first] - places[last], axis=1) + 1e-12
    energy = surface(points).numpy()
    height = np.minimum(0.5 * (energy[first] + energy[last]) - energy.min(), _HIGHEST)
    cost = csr_matrix((length * np.exp(height), (first, last)), shape=(len(points),) * 2)
    before = dijkstra(cost, directed=False, indices=0, return_predecessors=True)[1]
    way = [1]
    while way[-1] != 0:
        way.append(int(before[way[-1]]))
    return _smooth(spread_evenly(metric, points[way[::-1]], n))


def _leading(places: np.ndarray, count: int = 16) -> np.ndarray:
    """Leading components, in which neighbours are found fast."""
    centred = places - places.mean(axis=0)
    return centred @ np.linalg.svd(centred, full_matrices=False)[2][:count].T


def _smooth(u: Tensor, rounds: int = 3) -> Tensor:
    """Means over neighbours, the ends left where they are."""
    for _ in range(rounds):
        u = torch.cat([u[:1], 0.25 * u[:-2] + 0.5 * u[1:-1] + 0.25 * u[2:], u[-1:]])
    return u
