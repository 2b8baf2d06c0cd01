"""Which images to call junk, so that few good ones are among them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def call_junk(good: NDArray[np.float64], rate: float) -> NDArray[np.bool_]:
    """The largest set whose mean probability of being good is at most a rate.

    That mean is the expected share of good images among those called junk, the false discovery rate
    (Newton et al. 2004; Efron 2010, chapter 5). Images are taken in the order of that probability.

    Parameters
    ----------
    good : ndarray, shape (N,)
        Probability of being good.
    rate : float
        0 to 1.

    Returns
    -------
    ndarray of bool, shape (N,)
    """
    order = np.argsort(good, kind="stable")
    mean = np.cumsum(good[order]) / np.arange(1, len(good) + 1)
    # The mean of ever larger numbers rises, so what is below the rate is a beginning of the order.
    called = np.zeros(len(good), dtype=bool)
    called[order[: int(np.count_nonzero(mean <= rate))]] = True
    return called
