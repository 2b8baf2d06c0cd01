"""Decoded maps against true ones: per conformation and per image, as CryoBench defines them.

Independent of what decoded the maps: it takes latent codes and two functions that make maps, so that every
program is judged by the same lines.

Source: Jeon et al., CryoBench, NeurIPS 2024 (arXiv 2408.05526).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cryoscape.analysis.evaluation.map_metrics import (
    Maps,
    Spectra,
    area_under_curves,
    correlate_spectra,
    shell_spectra,
    signal_shells,
)

Decode = Callable[[NDArray[Any]], Maps]
TrueMaps = Callable[[NDArray[np.int64]], Maps]

_CHUNK_VOXELS = 2**24
_CACHE_BYTES = 2**30


@dataclass(frozen=True, eq=False)
class MapScores:
    """Shell correlations of decoded maps with true ones.

    Attributes
    ----------
    state : ndarray, shape (k,), int
        The true state that each map is compared with.
    particle : ndarray, shape (k,), int
        The particle at whose code the map was decoded; -1 where no particle stands behind it.
    curves : ndarray, shape (k, D / 2)
        See `cryoscape.analysis.evaluation.map_metrics`.
    nearest : ndarray, shape (k,), int, or None
        The state whose true map correlates best, all shells counting the same; None where not asked for.
    """

    state: NDArray[np.int64]
    particle: NDArray[np.int64]
    curves: NDArray[np.float64]
    nearest: NDArray[np.int64] | None = None

    def auc(self, box: int | None = None) -> NDArray[np.float64]:
        """Area under |FSC|, shape (k,).

        Parameters
        ----------
        box : int, optional
            Box of the particles, if the maps are cropped ones: see
            `cryoscape.analysis.evaluation.map_metrics.area_under_curves`.
        """
        return area_under_curves(self.curves, box)


class TrueSpectra:
    """Transforms of the true maps, made once and kept while they fit into a gigabyte.

    Parameters
    ----------
    maps : callable
        States (k,) to maps (k, D, D, D); for an array of all maps its `__getitem__`.
    states : array_like of int
        The states that will be asked for.
    mask : ndarray, shape (D, D, D), optional
        Multiplies every map.
    """

    def __init__(self, maps: TrueMaps, states: ArrayLike, mask: Maps | None = None) -> None:
        self._maps = maps
        self.mask = mask
        self._states = np.unique(np.asarray(states, dtype=np.int64))
        first = self._make(self._states[:1])
        self._kept: Spectra | None = None
        if first.nbytes * len(self._states) <= _CACHE_BYTES:
            step = chunk_size(self._box)
            rest = [self._make(self._states[i : i + step]) for i in range(1, len(self._states), step)]
            self._kept = np.concatenate([first, *rest])

    @property
    def box(self) -> int:
        """Side of the maps."""
        return self._box

    @property
    def states(self) -> NDArray[np.int64]:
        """The states, ascending."""
        return self._states

    def of(self, states: ArrayLike) -> Spectra:
        """Transforms of states, shape (k, P), complex64.

        Parameters
        ----------
        states : array_like of int, shape (k,)
            Among those named at the start.
        """
        if self._kept is not None:
            return self._kept[np.searchsorted(self._states, states)]
        unique, place = np.unique(np.asarray(states, dtype=np.int64), return_inverse=True)
        return self._make(unique)[place]

    def nearest(self, spectra: Spectra) -> NDArray[np.int64] | None:
        """Best state of each map, shape (n,); None where the true maps are too large to keep.

        Parameters
        ----------
        spectra : ndarray, shape (n, P), complex64
            Of the maps to place.
        """
        if self._kept is None:
            return None
        # Spectra have unit norm in every shell, so one product sums the correlations of all shells.
        total = spectra.view(np.float32) @ self._kept.view(np.float32).T
        return self._states[total.argmax(axis=1)]

    def signal(self) -> NDArray[np.bool_]:
        """Shells in which the first state has signal, shape (D / 2,), bool."""
        return signal_shells(self.of(self._states[:1]), self._box)

    def _make(self, states: NDArray[np.int64]) -> Spectra:
        maps = np.asarray(self._maps(states))
        self._box = maps.shape[-1]
        return shell_spectra(maps, self.mask)


def chunk_size(box: int) -> int:
    """How many maps of side `box` to hold at once."""
    return int(np.clip(_CHUNK_VOXELS // box**3, 1, 16))


def central_particles(z: ArrayLike, state: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The particle of each true state whose code lies nearest to the mean code of the state's particles.

    Parameters
    ----------
    z : array_like, shape (N, d)
        Posterior means.
    state : array_like of int, shape (N,)
        True states.

    Returns
    -------
    states, particles : ndarray, shape (k,), int
        The states that have particles, ascending, and one particle of each.
    """
    z, state = np.asarray(z, dtype=np.float64), np.asarray(state, dtype=np.int64)
    states = np.unique(state)
    chosen = []
    for s in states:
        mine = np.flatnonzero(state == s)
        chosen.append(mine[((z[mine] - z[mine].mean(axis=0)) ** 2).sum(axis=1).argmin()])
    return states, np.array(chosen, dtype=np.int64)


def spaced_particles(n: int, images: int) -> NDArray[np.int64]:
    """Every (n // images)-th particle, from the first on; at least `images` of them where there are as many.

    Parameters
    ----------
    n : int
        Particles in all.
    images : int
        Wanted, 1 or more.

    Returns
    -------
    ndarray of int
    """
    return np.arange(0, n, max(1, n // images))


def per_conformation_auc(
    z: ArrayLike,
    state: ArrayLike,
    decode: Decode,
    truth_maps: TrueMaps | TrueSpectra,
    mask: Maps | None = None,
) -> MapScores:
    """One map a true state: decoded at the code nearest to the mean code of the state's particles.

    Parameters
    ----------
    z : array_like, shape (N, d)
        Posterior means.
    state : array_like of int, shape (N,)
        True states.
    decode : callable
        Codes (k, d) to maps (k, D, D, D).
    truth_maps : callable or TrueSpectra
        States (k,) to true maps (k, D, D, D) on the same grid (of an array: its `__getitem__`); or those
        already transformed.
    mask : ndarray, shape (D, D, D), optional
        Multiplies both maps; transforms already made bring their own.

    Returns
    -------
    MapScores
        One row a state that has particles; its `auc()` is the metric.
    """
    states, particles = central_particles(z, state)
    return compare_maps(np.asarray(z)[particles], states, particles, decode, truth_maps, mask)


def per_image_auc(
    z: ArrayLike,
    state: ArrayLike,
    decode: Decode,
    truth_maps: TrueMaps | TrueSpectra,
    images: int = 100,
    mask: Maps | None = None,
) -> MapScores:
    """Maps decoded at the codes of single images: every (N / images)-th one.

    Parameters
    ----------
    z, state, decode, truth_maps, mask
        As for `per_conformation_auc`.
    images : int
        How many images.

    Returns
    -------
    MapScores
        One row an image, with the nearest true state.
    """
    particles = spaced_particles(len(np.asarray(z)), images)
    chosen = np.asarray(state, dtype=np.int64)[particles]
    return compare_maps(np.asarray(z)[particles], chosen, particles, decode, truth_maps, mask, place=True)


def compare_maps(
    z: NDArray[Any],
    state: NDArray[np.int64],
    particle: NDArray[np.int64],
    decode: Decode,
    truth_maps: TrueMaps | TrueSpectra,
    mask: Maps | None = None,
    place: bool = False,
) -> MapScores:
    """Decode codes and correlate each map with the true map of its state, in bounded memory.

    Parameters
    ----------
    z : ndarray, shape (k, d)
    state, particle : ndarray, shape (k,), int
        True state of each code, and whose code it is.
    decode, truth_maps, mask
        As for `per_conformation_auc`.
    place : bool
        Also find the nearest of all true states.

    Returns
    -------
    MapScores

    Raises
    ------
    ValueError
        If decoded and true maps have different boxes.
    """
    truth = truth_maps if isinstance(truth_maps, TrueSpectra) else TrueSpectra(truth_maps, state, mask)
    step = chunk_size(truth.box)
    curves, nearest = [], list[NDArray[np.int64]]()
    for start in range(0, len(z), step):
        maps = np.asarray(decode(z[start : start + step]))
        if maps.shape[-1] != truth.box:
            raise ValueError(f"decoded maps have a box of {maps.shape[-1]} and true ones of {truth.box}")
        spectra = shell_spectra(maps, truth.mask)
        curves.append(correlate_spectra(spectra, truth.of(state[start : start + step]), truth.box))
        found = truth.nearest(spectra) if place else None
        if found is not None:
            nearest.append(found)
    return MapScores(state, particle, np.concatenate(curves), np.concatenate(nearest) if nearest else None)
