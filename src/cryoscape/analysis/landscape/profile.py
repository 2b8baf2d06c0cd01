"""Free energy along one or two collective variables from populations of structures, with bands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cryoscape.analysis.variables.collective_variables import CollectiveVariable

Array = NDArray[np.float64]

LEVEL = 0.95
"""Of all intervals."""

# Width of a structure's mark on the axis, in bins, and the population left out at either end of it.
_WIDTH, _TAIL = 0.5, 1e-3


@dataclass(frozen=True, eq=False)
class Axis:
    """Bins of one collective variable.

    Attributes
    ----------
    text : str
        As the user wrote it.
    unit : str
    period : float or None
    edges : ndarray, shape (bins + 1,)
        Equally spaced.
    """

    text: str
    unit: str
    period: float | None
    edges: Array

    @property
    def centres(self) -> Array:
        """Middle of every bin."""
        return 0.5 * (self.edges[1:] + self.edges[:-1])

    def bin_of(self, value: Array) -> NDArray[np.int64]:
        """Bin of every value; what lies outside belongs to the nearest."""
        return np.clip(np.searchsorted(self.edges, value, side="right") - 1, 0, len(self.edges) - 2)

    def marks(self, value: Array) -> Array:
        """Part of each value's mark in every bin, (M,) -> (bins, M)."""
        from scipy.special import ndtr

        width = _WIDTH * (self.edges[1] - self.edges[0])
        turns = (0.0,) if self.period is None else (-self.period, 0.0, self.period)
        marks = np.zeros((len(self.edges) - 1, len(value)))
        for turn in turns:
            marks += np.diff(ndtr((self.edges[:, None] - value - turn) / width), axis=0)
        return marks


def make_axis(variable: CollectiveVariable, value: Array, weight: Array, bins: int) -> Axis:
    """Bins over the values (M,) that hold all but a thousandth of the weight (M,) at either end."""
    if variable.period is not None:
        half = 0.5 * variable.period
        edges = np.linspace(-half, half, bins + 1)
    else:
        low, high = weighted_quantiles(value, weight, (_TAIL, 1 - _TAIL))
        margin = (high - low) / (2 * bins)
        edges = np.linspace(low - margin, high + margin, bins + 1)
    return Axis(variable.text, variable.unit, variable.period, edges)


def weighted_quantiles(value: Array, weight: Array, shares: Sequence[float]) -> Array:
    """Values of (M,) at which the weight (M,) below reaches shares of the whole, in their order."""
    order = np.argsort(value)
    below = np.cumsum(weight[order]) / weight.sum()
    return value[order][np.minimum(np.searchsorted(below, shares), len(value) - 1)]


@dataclass(frozen=True, eq=False)
class Profile:
    """Populations and free energies of bins, one or two axes.

    Attributes
    ----------
    axes : tuple of Axis
    population : ndarray, shape (bins,) or (bins, bins)
        Of each bin. Their sum is 1 less what lies outside the axes.
    resampled : ndarray, shape (R, bins) or (R, bins, bins)
    free_energy : ndarray, of the shape of `population`
        -ln of the population over that of the fullest bin, kT; NaN where less than one image is expected.
    low, high : ndarray, of the same shape
        95 % interval of each; ln(2 N) above the zero at most, where half an image would be expected.
    """

    axes: tuple[Axis, ...]
    population: Array
    resampled: Array
    free_energy: Array
    low: Array
    high: Array


def make_profile(
    axes: Sequence[Axis], values: Array, fine: Array, resampled: Array, n_images: int
) -> Profile:
    """Profile of M structures.

    Parameters
    ----------
    axes : sequence of Axis
        One or two.
    values : ndarray, shape (axes, M)
        The variables of each structure.
    fine, resampled : ndarray, shape (M,) and (R, M)
        Populations, and those of the randomised fits.
    n_images : int

    Returns
    -------
    Profile
        The intervals are those of -ln p itself, not of its difference from the lowest bin.
        Every structure marks the axis with a Gaussian half a bin wide, so all of it is of the law seen so.
    """
    marks = axes[0].marks(values[0])
    if len(axes) == 2:
        marks = (marks[:, None] * axes[1].marks(values[1])).reshape(-1, len(fine))
    shape = tuple(len(axis.edges) - 1 for axis in axes)
    population, drawn = (marks @ fine).reshape(shape), (resampled @ marks.T).reshape(-1, *shape)
    top, least = population.max(), 0.5 / n_images
    with np.errstate(divide="ignore"):
        free = np.where(population * n_images >= 1, -np.log(population / top), np.nan)
    low, high = interval(-np.log(np.maximum(drawn, least) / top))
    return Profile(tuple(axes), population, drawn, free, low, high)


def interval(draws: Array) -> tuple[Array, Array]:
    """Ends of the 95 % interval of draws (R, ...); NaN without draws."""
    if not len(draws):
        nothing = np.full(draws.shape[1:], np.nan)
        return nothing, nothing.copy()
    low, high = np.quantile(draws, [0.5 - LEVEL / 2, 0.5 + LEVEL / 2], axis=0)
    return low, high
