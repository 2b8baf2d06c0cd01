"""Fourier shell correlation of many maps at once, and the area under it as CryoBench defines it.

Shell i holds the frequencies i - 1 <= |k| < i in units of 1 / (D * voxel_size) and is drawn at i / D per
pixel, i = 1 .. D/2 - 1. A curve has D/2 values: 1 at frequency 0, 1 in shell 1 (it is the mean of the map,
which cryo-EM images do not hold), and then the correlations.

Source: Jeon et al., CryoBench, NeurIPS 2024 (arXiv 2408.05526).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

EMPTY_SHELL = 1e-6
"""Rms amplitude over that of the strongest shell below which a shell holds round-off, not signal."""

Maps = NDArray[np.floating[Any]]
Spectra = NDArray[np.complex64]


@dataclass(frozen=True, eq=False)
class ShellLayout:
    """The coefficients of a cube's half-space inside the shells 2 .. D/2 - 1, shell by shell.

    Attributes
    ----------
    box : int
        D.
    index : ndarray, shape (P,), int
        Position in the flattened (D, D, D // 2 + 1).
    root_weight : ndarray, shape (P,), float32
        Square root of the number of coefficients of the full transform that each one stands for.
    start : ndarray, shape (D / 2 - 2,), int
        Where each shell begins in `index`.
    count : ndarray, shape (D / 2 - 2,)
        Coefficients of the full transform in each shell.
    """

    box: int
    index: NDArray[np.int64]
    root_weight: NDArray[np.float32]
    start: NDArray[np.int64]
    count: NDArray[np.float64]


@lru_cache(maxsize=4)
def shell_layout(box: int) -> ShellLayout:
    """Sort the half-space of a cube into shells.

    Parameters
    ----------
    box : int
        Even side, 6 or more.

    Returns
    -------
    ShellLayout

    Raises
    ------
    ValueError
        If the side is odd or below 6.
    """
    if box % 2 or box < 6:
        raise ValueError(f"shells need an even box of 6 or more, not {box}")
    full = np.fft.fftfreq(box, 1.0 / box) ** 2
    half = np.arange(box // 2 + 1, dtype=np.float64)
    radius2 = full[:, None, None] + full[:, None] + half**2
    # i - 1 <= |k| < i, without the rounding of a square root at the whole numbers.
    shell = np.searchsorted(half**2, radius2.ravel(), side="right")
    inside = np.flatnonzero((shell > 1) & (shell < box // 2))
    order = inside[np.argsort(shell[inside], kind="stable")]
    kx = order % (box // 2 + 1)
    weight = np.where((kx == 0) | (kx == box // 2), 1.0, 2.0)
    start = np.searchsorted(shell[order], np.arange(2, box // 2))
    return ShellLayout(box, order, np.sqrt(weight).astype(np.float32), start, np.add.reduceat(weight, start))


def shell_spectra(maps: Maps, mask: Maps | None = None) -> Spectra:
    """Fourier coefficients of maps, scaled to unit norm in every shell.

    What two maps need for their shell correlation: it is the real part of the inner product, shell by shell.

    Parameters
    ----------
    maps : ndarray, shape (n, D, D, D)
    mask : ndarray, shape (D, D, D), optional
        Multiplies every map first.

    Returns
    -------
    ndarray, shape (n, P), complex64
        0 in shells that hold no more than round-off (`EMPTY_SHELL`).

    Raises
    ------
    ValueError
        If the maps are not cubes, or the mask has another shape.
    """
    from scipy.fft import rfftn

    maps = np.asarray(maps)
    if maps.ndim != 4 or len(set(maps.shape[1:])) != 1:
        raise ValueError(f"cubes (n, D, D, D) are needed, not {maps.shape}")
    if mask is not None and np.shape(mask) != maps.shape[1:]:
        raise ValueError(f"the mask has shape {np.shape(mask)} and the maps {maps.shape[1:]}")
    layout = shell_layout(maps.shape[1])
    out = np.empty((len(maps), len(layout.index)), dtype=np.complex64)
    for i, one in enumerate(maps):
        values = one.astype(np.float32) if mask is None else (one * mask).astype(np.float32)
        out[i] = rfftn(values, overwrite_x=True).ravel()[layout.index] * layout.root_weight
    power = np.add.reduceat(out.real**2 + out.imag**2, layout.start, axis=1, dtype=np.float64)
    per_coefficient = power / layout.count
    floor = EMPTY_SHELL**2 * per_coefficient.max(axis=1, keepdims=True, initial=0.0)
    filled = (per_coefficient > floor) & (power > 0)
    scale = np.where(filled, 1 / np.sqrt(np.where(filled, power, 1.0)), 0.0).astype(np.float32)
    sizes = np.diff(np.append(layout.start, len(layout.index)))
    out *= np.repeat(scale, sizes, axis=1)
    return out


def correlate_spectra(a: Spectra, b: Spectra, box: int) -> NDArray[np.float64]:
    """Shell correlations of prepared maps, pair by pair.

    Parameters
    ----------
    a, b : ndarray, shape (n, P) or (1, P), complex64
        From `shell_spectra`.
    box : int
        Side of the maps.

    Returns
    -------
    ndarray, shape (n, D / 2), float64
        1 at frequency 0 and in shell 1; 0 in shells where one of the two is empty.
    """
    product = a.real * b.real + a.imag * b.imag
    shells = np.add.reduceat(product, shell_layout(box).start, axis=1, dtype=np.float64)
    return np.concatenate([np.ones((len(shells), 2)), shells], axis=1)


def fsc_curves(a: Maps, b: Maps, mask: Maps | None = None) -> NDArray[np.float64]:
    """Fourier shell correlation of maps, pair by pair.

    Parameters
    ----------
    a, b : ndarray, shape (n, D, D, D)
        D even, 6 or more.
    mask : ndarray, shape (D, D, D), optional
        Multiplies both. A sharp mask correlates by itself: use a soft one.

    Returns
    -------
    ndarray, shape (n, D / 2), float64
        At the frequencies i / D pixel^-1.
    """
    return correlate_spectra(shell_spectra(a, mask), shell_spectra(b, mask), np.shape(a)[-1])


def auc_ceiling(box: int) -> float:
    """Area under the curve of a perfect map: (D/2 - 1) / D; 0.492 for D = 128.

    Parameters
    ----------
    box : int
        D.

    Returns
    -------
    float
    """
    return (box // 2 - 1) / box


def area_under_curves(curves: NDArray[np.floating[Any]], box: int | None = None) -> NDArray[np.float64]:
    """Area under |FSC| over spatial frequency in 1/pixel, trapezoid rule.

    Parameters
    ----------
    curves : ndarray, shape (n, d / 2)
        From maps of side d.
    box : int, optional
        Side D >= d of another sampling of the same field of view, whose pixel is then the unit: the maps hold
        nothing beyond their own shells, which count as 0. Default: d.

    Returns
    -------
    ndarray, shape (n,)
        Between 0 and `auc_ceiling(box)`.

    Raises
    ------
    ValueError
        If `box` is smaller than d.
    """
    curves = np.atleast_2d(curves)
    box = 2 * curves.shape[1] if box is None else box
    if box < 2 * curves.shape[1]:
        raise ValueError(f"curves of a box of {2 * curves.shape[1]} do not fit a box of {box}")
    height = np.pad(np.abs(curves), ((0, 0), (0, box // 2 - curves.shape[1])))
    return (height.sum(axis=1) - (height[:, 0] + height[:, -1]) / 2) / box


def mean_correlation(curves: NDArray[np.floating[Any]], shells: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Mean |FSC| over chosen shells, for example those in which the truth has signal.

    Parameters
    ----------
    curves : ndarray, shape (n, D / 2)
    shells : ndarray, shape (D / 2,), bool

    Returns
    -------
    ndarray, shape (n,)
        Between 0 and 1; NaN without any shell.
    """
    if not shells.any():
        return np.full(len(curves), np.nan)
    return np.abs(curves[:, shells]).mean(axis=1)


def signal_shells(spectra: Spectra, box: int) -> NDArray[np.bool_]:
    """Shells, from the second on, in which all the given maps have signal.

    Parameters
    ----------
    spectra : ndarray, shape (n, P), complex64
        Of the true maps, from `shell_spectra`.
    box : int
        Their side.

    Returns
    -------
    ndarray, shape (D / 2,), bool
    """
    filled = np.logical_or.reduceat(spectra != 0, shell_layout(box).start, axis=1).all(axis=0)
    return np.concatenate([np.zeros(2, dtype=bool), filled])


def fsc_auc(a: Maps, b: Maps, mask: Maps | None = None) -> NDArray[np.float64]:
    """Area under |FSC| of maps, pair by pair.

    Parameters
    ----------
    a, b : ndarray, shape (D, D, D) or (n, D, D, D)
        D even, 6 or more.
    mask : ndarray, shape (D, D, D), optional
        Multiplies both.

    Returns
    -------
    ndarray, shape () or (n,)
        Between 1.5 / D (the two shells that are 1 by definition) and `auc_ceiling(D)`.
    """
    single = np.ndim(a) == 3
    found = area_under_curves(fsc_curves(a[None], b[None], mask) if single else fsc_curves(a, b, mask))
    return found[0] if single else found


def fsc_resolution(
    curves: NDArray[np.floating[Any]], pixel_size: float, threshold: float = 0.5
) -> NDArray[np.float64]:
    """Resolution where curves first fall below a threshold.

    Parameters
    ----------
    curves : ndarray, shape (n, D / 2)
        Signed correlations.
    pixel_size : float
        Of the maps, Angstrom.
    threshold : float
        0.5 for a map against the truth.

    Returns
    -------
    ndarray, shape (n,)
        Angstrom, the crossing interpolated linearly in frequency; the last shell's resolution where a curve
        never falls below.
    """
    curves = np.atleast_2d(curves)
    n_shells = curves.shape[1]
    below = curves[:, 1:] < threshold
    falls = below.any(axis=1)
    shell = np.where(falls, below.argmax(axis=1) + 1, n_shells - 1)
    row = np.arange(len(curves))
    before, after = curves[row, shell - 1], curves[row, shell]
    drop = np.where(falls, before - after, 1.0)
    crossing = np.where(falls, shell - 1 + (before - threshold) / drop, n_shells - 1)
    return 2 * n_shells * pixel_size / crossing
