"""How many images a rare state needs: to be seen, and for its population to be known.

Two structures D nats apart give images whose log ratio L = log p(x | rare) / p(x | neighbour) is normal with
variance 2 D and mean +D for images of the rare state, -D for those of its neighbour. With the rare state at
population p beside its neighbour, an image gains on average

    g = E log(1 - p + p e^L),   v = Var log(1 - p + p e^L),   L ~ (1 - p) N(-D, 2 D) + p N(D, 2 D),

over the neighbour alone, and its Fisher information about p is

    I = E ((e^L - 1) / (1 - p + p e^L))^2.

A gain tested on m images is above `margin` standard errors with probability `power` where
sqrt(m g^2 / v) = margin + Phi^-1(power); half of all images are tested, so m = N / 2. Gains are skewed to
larger values, so that sets of that size pass somewhat more often than promised. An interval of half-width h
needs N = 1.96^2 / (h^2 I). The structure is taken as known, which for few images it is not.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

MARGIN = 2.0
"""Standard errors that a held-out gain must exceed."""

POWER = 0.9
"""Probability with which it is to do so."""

TESTED = 0.5
"""Share of the images on which it is tested."""

_NODES = 400
_REACH = 9.0
_EDGE = 1.959964


@dataclass(frozen=True)
class RareStatistics:
    """What one image says of a rare state, on average.

    Attributes
    ----------
    gain : float
        g, nats.
    variance : float
        v, nats^2.
    information : float
        Fisher information I about the population.
    """

    gain: float
    variance: float
    information: float


def rare_statistics(population: float, nats: float) -> RareStatistics:
    """Integrate the three expectations over the log ratio.

    Parameters
    ----------
    population : float
        p, between 0 and 1.
    nats : float
        D between the state and its nearest neighbour, positive.

    Returns
    -------
    RareStatistics
    """
    u = np.linspace(-_REACH, _REACH, 2 * _NODES + 1)
    weight = np.exp(-0.5 * u**2)
    weight /= weight.sum()
    ratio = np.stack([-nats + np.sqrt(2 * nats) * u, nats + np.sqrt(2 * nats) * u])
    mass = np.array([1 - population, population])[:, None] * weight
    log_mixed = np.logaddexp(np.log1p(-population), np.log(population) + ratio)
    gain = float((mass * log_mixed).sum())
    variance = float((mass * np.square(log_mixed - gain)).sum())
    score = np.exp(ratio - log_mixed) - np.exp(-log_mixed)
    return RareStatistics(gain, variance, float((mass * np.square(score)).sum()))


def images_to_detect(population: float, nats: float, power: float = POWER) -> float:
    """Images in all from which on the held-out gain exceeds two standard errors, with that probability."""
    one = rare_statistics(population, nats)
    return (MARGIN + float(ndtri(power))) ** 2 * one.variance / (TESTED * one.gain**2)


def images_for_interval(population: float, nats: float, half_width: float) -> float:
    """Images in all from which on the 95 % interval of the population is at most so wide on either side."""
    return _EDGE**2 / (half_width**2 * rare_statistics(population, nats).information)


def retrieve(probability: NDArray[np.float64], rate: float) -> NDArray[np.int64]:
    """Particles of a state with an expected share of wrong ones of at most `rate`.

    The longest list, the surest first, whose mean of 1 - p is within the rate: the Bayesian false discovery
    rate (Newton et al., Biostatistics 5, 2004). It ends before particles that more likely belong elsewhere:
    where states are far apart, the rate alone would let in some that surely do.

    Parameters
    ----------
    probability : ndarray, shape (N,)
        Of the state, given each image.
    rate : float

    Returns
    -------
    ndarray, int64
        Rows, the surest first.
    """
    order = np.argsort(-probability, kind="stable")
    wrong = np.cumsum(1 - probability[order]) / np.arange(1, len(order) + 1)
    # The mean of ascending numbers ascends: the list ends where it first exceeds the rate.
    allowed = int(np.searchsorted(wrong, rate, side="right"))
    return order[: min(allowed, int(np.count_nonzero(probability > 0.5)))].astype(np.int64)
