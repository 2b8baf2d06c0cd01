"""Values known at some latent codes, carried over to all others."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# Widths of the kernel tried, in units of the spread of the codes.
_WIDTHS = (0.7, 1.5, 3.0)
_RIDGE = 1e-3
_HELD_BACK = 5
_ROWS = 4096


def interpolate(
    known: NDArray, values: NDArray, wanted: NDArray, seed: int = 0
) -> tuple[NDArray[np.float64], float]:
    """Predict smooth functions of the latent code (`fit_smooth`).

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
    predict, share = fit_smooth(known, values, seed)
    codes = torch.as_tensor(np.asarray(wanted, dtype=np.float64))
    out = np.empty((len(codes), values.shape[1]))
    for start in range(0, len(codes), _ROWS):
        out[start : start + _ROWS] = predict(codes[start : start + _ROWS]).numpy()
    return out, share


class SmoothFunction:
    """A quadratic in the codes, and a Gaussian kernel ridge on its residuals; differentiable.

    Parameters
    ----------
    codes : Tensor, shape (n, d), float64
    values : Tensor, shape (n, k), float64
    width : float
        Of the kernel, in units of the spread of the codes.
    """

    def __init__(self, codes: Tensor, values: Tensor, width: float) -> None:
        self._centre, self._scale = codes.mean(0), codes.std(0, correction=0).clamp_min(1e-9)
        self._width, self._codes = width, (codes - self._centre) / self._scale
        self._mean = values.mean(0)
        values = values - self._mean
        features = _quadratic(self._codes)
        # The ridge keeps directions that never vary, or always together, out of harm's way.
        normal = features.T @ features + _RIDGE * torch.eye(features.shape[1], dtype=features.dtype)
        self._linear = torch.linalg.solve(normal, features.T @ values)
        kernel = self._kernel(self._codes)
        kernel.diagonal().add_(_RIDGE)
        left = values - features @ self._linear
        self._weights = torch.cholesky_solve(left, torch.linalg.cholesky(kernel))

    def __call__(self, z: Tensor) -> Tensor:
        """Values (m, k) at codes (m, d), in the precision of the codes."""
        codes = (z.double() - self._centre) / self._scale
        return (self._mean + _quadratic(codes) @ self._linear + self._kernel(codes) @ self._weights).to(z)

    def _kernel(self, codes: Tensor) -> Tensor:
        squared = codes.square().sum(1)[:, None] + self._codes.square().sum(1) - 2 * codes @ self._codes.T
        return torch.exp(-squared.clamp_min(0) / (2 * self._width**2 * codes.shape[1]))


def fit_smooth(known: NDArray, values: NDArray, seed: int = 0) -> tuple[SmoothFunction, float]:
    """Learn smooth functions of the latent code by a quadratic and a kernel ridge on what it leaves.

    The width of the Gaussian kernel is the one that predicts a fifth of the known codes best from the
    others; that share of the variance is returned, so that the reader knows what a prediction is worth.

    Parameters
    ----------
    known : ndarray, shape (n, d)
        Codes at which the values are known.
    values : ndarray, shape (n, k)
        Values there, without noise.
    seed : int
        Of the fifth held back.

    Returns
    -------
    SmoothFunction
    float
        Share of the variance of the values predicted at codes held back (R^2), 1 where nothing varies.
    """
    codes = torch.as_tensor(np.asarray(known, dtype=np.float64))
    targets = torch.as_tensor(np.asarray(values, dtype=np.float64))
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(codes)))
    test, train = order[: len(order) // _HELD_BACK], order[len(order) // _HELD_BACK :]
    total = float((targets[test] - targets[train].mean(0)).square().sum())
    error = {}
    for width in _WIDTHS:
        predict = SmoothFunction(codes[train], targets[train], width)
        error[width] = float((predict(codes[test]) - targets[test]).square().sum())
    best = min(error, key=lambda width: error[width])
    return SmoothFunction(codes, targets, best), (1 - error[best] / total if total > 0 else 1.0)


def _quadratic(codes: Tensor) -> Tensor:
    first, second = torch.triu_indices(codes.shape[1], codes.shape[1])
    return torch.cat([torch.ones_like(codes[:, :1]), codes, codes[:, first] * codes[:, second]], dim=1)
