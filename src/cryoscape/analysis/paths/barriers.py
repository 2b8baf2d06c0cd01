"""The barrier of a profile and the two wells beside it, with intervals."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cryoscape.analysis.landscape.profile import Profile, interval

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """A value with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Barriers:
    """What a profile says of the way from one end to the other, kT.

    Attributes
    ----------
    left, top, right : int
        Bins of the well at the start, of the barrier, and of the well at the end.
    forth, back : Interval
        Height of the barrier over the well at the start, and over the one at the end; 0 where there is none.
    difference : Interval
        Free energy of all beyond the barrier over that of all before it, -ln of the ratio of populations.
    at_least : bool
        Less than one image is expected at the top: the heights are lower limits.
    """

    left: int
    top: int
    right: int
    forth: Interval
    back: Interval
    difference: Interval
    at_least: bool


def find_barriers(profile: Profile, length: float, n_images: int) -> Barriers:
    """The highest barrier of a profile between the ends of a path.

    It is the bin from which the way down is longest on its shorter side. Intervals are those of the
    differences between these very bins in the randomised fits: the highest of many noisy bins would always
    be too high. Before and beyond, in each fit, are divided at its own barrier, so that on a flat top the
    interval holds what the choice of the place makes of it.

    Parameters
    ----------
    profile : Profile
        Along one axis.
    length : float
        Of the path, in the unit of the axis.
    n_images : int

    Returns
    -------
    Barriers
    """
    least = 0.5 / n_images
    energy = -np.log(np.maximum(profile.population, least))
    drawn = -np.log(np.maximum(profile.resampled, least))
    centres = profile.axes[0].centres
    between = (centres > 0) & (centres < length)
    top = int(_tops(energy[None], between)[0])
    left = int(energy[: top + 1].argmin())
    right = top + int(energy[top:].argmin())
    value = _ratio(profile.population[None], np.array([top]), least)
    low, high = interval(_ratio(profile.resampled, _tops(drawn, between), least))
    return Barriers(
        left,
        top,
        right,
        _difference(energy, drawn, left, top),
        _difference(energy, drawn, right, top),
        Interval(float(value[0]), float(low), float(high)),
        bool(profile.population[top] * n_images < 1),
    )


def _tops(energy: Array, between: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Bin of the barrier in each of R profiles (R, bins)."""
    before = np.minimum.accumulate(energy, axis=1)
    after = np.minimum.accumulate(energy[:, ::-1], axis=1)[:, ::-1]
    rise = np.minimum(energy - before, energy - after)
    return np.where(between, rise, -1.0).argmax(axis=1)


def _difference(energy: Array, drawn: Array, low: int, high: int) -> Interval:
    ends = interval(drawn[:, high] - drawn[:, low])
    return Interval(float(energy[high] - energy[low]), float(ends[0]), float(ends[1]))


def _ratio(population: Array, top: NDArray[np.int64], least: float) -> Array:
    """-ln of the population beyond the top over that before it, (R, bins) -> (R,)."""
    below = np.cumsum(population, axis=1)
    # The bin at the top is shared out between the two.
    rows = np.arange(len(population))
    before = below[rows, top] - 0.5 * population[rows, top]
    after = below[:, -1] - before
    return np.log(np.maximum(before, least) / np.maximum(after, least))
