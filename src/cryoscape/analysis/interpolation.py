"""Values known at some latent codes, carried over to all others."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

# Widths of the kernel tried, in units of the spread of the codes.
_WIDTHS = (0.7, 1.5, 3.0)
_RIDGE = 1e-3
_HELD_BACK = 5
_ROWS = 4096


def interpolate(
    known: NDArray, values: NDArray, wanted: NDArray, seed: int = 0
) -> tuple[NDArray[np.float64], float]:
    """Predict smooth functions of the latent code by a quadratic and a kernel ridge on what it leaves.

    The width of the Gaussian kernel is the one that predicts a fifth of the known codes best from the
    others; that share of the variance is returned, so that the reader knows what a prediction is worth.

    Parameters
    ----------
    known : ndarray, shape (n, d)
        Codes at which the values are known.
    values : ndarray, shape (n, k)
        Values there, without noise.
    wanted : ndarray, shape (m, d)
        Codes at which to predict.
    seed : int
        Of the fifth held back.

    Returns
    -------
    ndarray, shape (m, k)
        The predictions.
    float
        Share of the variance of the values predicted at codes held back (R^2), 1 where nothing varies.
    """
    known, values = np.asarray(known, dtype=np.float64), np.asarray(values, dtype=np.float64)
    centre, scale = known.mean(axis=0), np.maximum(known.std(axis=0), 1e-9)
    known = (known - centre) / scale
    order = np.random.default_rng(seed).permutation(len(known))
    test, train = order[: len(order) // _HELD_BACK], order[len(order) // _HELD_BACK :]
    total = float(((values[test] - values[train].mean(axis=0)) ** 2).sum())
    if not total > 0:
        return np.tile(values.mean(axis=0), (len(wanted), 1)), 1.0
    error = {}
    for width in _WIDTHS:
        predict = _Fit(known[train], values[train], width)
        error[width] = float(((predict(known[test]) - values[test]) ** 2).sum())
    best = min(error, key=lambda width: error[width])
    predict = _Fit(known, values, best)
    out = np.empty((len(wanted), values.shape[1]))
    for start in range(0, len(wanted), _ROWS):
        rows = slice(start, start + _ROWS)
        out[rows] = predict((np.asarray(wanted[rows], dtype=np.float64) - centre) / scale)
    return out, 1 - error[best] / total


class _Fit:
    """A quadratic in the codes, and a Gaussian kernel ridge on its residuals."""

    def __init__(self, codes: NDArray, values: NDArray, width: float) -> None:
        self._codes, self._width = codes, width
        features = _quadratic(codes)
        # The ridge keeps directions that never vary, or always together, out of harm's way.
        normal = features.T @ features + _RIDGE * np.eye(features.shape[1])
        self._linear = np.linalg.solve(normal, features.T @ values)
        kernel = self._kernel(codes)
        kernel[np.diag_indices_from(kernel)] += _RIDGE
        self._weights = cho_solve(cho_factor(kernel, overwrite_a=True), values - features @ self._linear)

    def __call__(self, codes: NDArray) -> NDArray[np.float64]:
        return _quadratic(codes) @ self._linear + self._kernel(codes) @ self._weights

    def _kernel(self, codes: NDArray) -> NDArray[np.float64]:
        squared = (codes**2).sum(1)[:, None] + (self._codes**2).sum(1) - 2 * codes @ self._codes.T
        return np.exp(-np.maximum(squared, 0) / (2 * self._width**2 * codes.shape[1]))


def _quadratic(codes: NDArray) -> NDArray[np.float64]:
    first, second = np.triu_indices(codes.shape[1])
    return np.column_stack([np.ones(len(codes)), codes, codes[:, first] * codes[:, second]])
