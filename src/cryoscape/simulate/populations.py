"""How many of the particles are in each state of a path."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cryoscape.errors import InputError

Array = NDArray[np.float64]

WELLS = (0.2, 0.8)
"""Minima of the double well on the path from 0 to 1."""


def equal_populations(n: int) -> Array:
    """1 / n for each of n states."""
    return np.full(n, 1.0 / n)


def path_populations(x: Array, profile: str, circle: bool = False) -> Array:
    """Populations of the states of a path.

    Bimodal: 0.7 N(1/4, 0.1^2) + 0.3 N(3/4, 0.1^2), normalised over the states; on a circle the distance is
    the shorter way round.

    Parameters
    ----------
    x : ndarray, shape (S,)
        Places on the path, 0 to 1.
    profile : "equal" or "bimodal"
    circle : bool
        Whether 1 is 0 again.

    Returns
    -------
    ndarray, shape (S,)
        Sums to 1.
    """
    if profile == "equal":
        return equal_populations(len(x))
    offset = x[:, None] - np.array([0.25, 0.75])
    if circle:
        offset = (offset + 0.5) % 1 - 0.5
    weights = np.exp(-0.5 * (offset / 0.1) ** 2) @ np.array([0.7, 0.3])
    return weights / weights.sum()


def double_well_populations(cv: Array, barrier: float, populations: tuple[float, ...] | None = None) -> Array:
    """Boltzmann populations of a double well.

    U(x) / kT = barrier (u^2 - 1)^2 + c u with u = (x - 1/2) / 0.3, so the wells lie at 0.2 and 0.8; the
    tilt c is chosen for the populations of the two sides, and is 0 for equal ones.

    Parameters
    ----------
    cv : ndarray, shape (S,)
        x of the states.
    barrier : float
        Height between the untilted wells in kT.
    populations : tuple of two floats, optional
        Of the sides below and above 1/2.

    Returns
    -------
    ndarray, shape (S,)
        Sums to 1.

    Raises
    ------
    InputError
        If there are not two populations.
    """
    from scipy.optimize import brentq

    u = (cv - 0.5) / (0.5 * (WELLS[1] - WELLS[0]))

    def weights(tilt: float) -> Array:
        energy = barrier * (u**2 - 1) ** 2 + tilt * u
        boltzmann = np.exp(-(energy - energy.min()))
        return boltzmann / boltzmann.sum()

    if populations is None:
        return weights(0.0)
    if len(populations) != 2:
        raise InputError(
            f"a double well has two populations, not {len(populations)}", remedy="Give two populations."
        )
    # The state on the barrier belongs half to each side.
    upper = np.where(cv > 0.5 + 1e-9, 1.0, np.where(cv < 0.5 - 1e-9, 0.0, 0.5))
    return weights(brentq(lambda tilt: upper @ weights(tilt) - populations[1], -50.0, 50.0))
