"""Rigid superposition (Kabsch 1976) and root-mean-square deviations, for arrays and tensors in batches."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

Array = TypeVar("Array", np.ndarray, Tensor)


class RigidMotion(NamedTuple):
    """x -> rotation @ x + translation, with rotation (..., 3, 3) and translation (..., 3)."""

    rotation: Any
    translation: Any


def fit_rigid(mobile: Array, target: Array, weights: Array | None = None) -> RigidMotion:
    """Rotation and translation that bring `mobile` closest to `target` in the least-squares sense.

    Parameters
    ----------
    mobile, target : ndarray or Tensor, shape (..., N, 3)
        Angstrom; leading dimensions are broadcast.
    weights : ndarray or Tensor, shape (N,), optional
        Weight of each point.

    Returns
    -------
    RigidMotion
        Of the kind of `mobile`; the rotation is proper (no mirror image).
    """
    rotation, translation = _fit(
        _tensor(mobile), _tensor(target), None if weights is None else _tensor(weights)
    )
    return RigidMotion(_like(rotation, mobile), _like(translation, mobile))


def superpose(mobile: Array, target: Array, weights: Array | None = None) -> Array:
    """Copy of `mobile` (..., N, 3) moved onto `target`, see `fit_rigid`."""
    moving = _tensor(mobile)
    w = None if weights is None else _tensor(weights)
    rotation, translation = _fit(moving, _tensor(target), w)
    return _like(moving @ rotation.mT + translation[..., None, :], mobile)


def rmsd(a: Array, b: Array, align: bool = False, weights: Array | None = None) -> Array:
    """Root-mean-square deviation of corresponding points, as they lie or after superposition.

    Parameters
    ----------
    a, b : ndarray or Tensor, shape (..., N, 3)
        Angstrom; leading dimensions are broadcast.
    align : bool
        Superpose `a` on `b` first.
    weights : ndarray or Tensor, shape (N,), optional
        Weight of each point, in the superposition and in the mean.

    Returns
    -------
    ndarray or Tensor, shape (...)
        Angstrom.
    """
    x, y = _tensor(a), _tensor(b)
    w = None if weights is None else _tensor(weights)
    if align:
        rotation, translation = _fit(x, y, w)
        x = x @ rotation.mT + translation[..., None, :]
    return _like(_mean((x - y).square().sum(-1)[..., None], w)[..., 0].sqrt(), a)


def _fit(mobile: Tensor, target: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor]:
    if mobile.shape[-2:] != target.shape[-2:]:
        raise ValueError(f"points do not correspond: {tuple(mobile.shape)} and {tuple(target.shape)}")
    centre_m, centre_t = _mean(mobile, weights), _mean(target, weights)
    left = mobile - centre_m[..., None, :]
    if weights is not None:
        left = left * weights[:, None]
    covariance = left.mT @ (target - centre_t[..., None, :])
    u, _, vh = torch.linalg.svd(covariance)
    # A negative determinant is the mirror image; turning the weakest axis back gives the best rotation.
    sign = torch.ones_like(covariance[..., 0])
    sign[..., 2] = torch.sign(torch.linalg.det(u @ vh))
    rotation = vh.mT @ (sign[..., None] * u.mT)
    return rotation, centre_t - (rotation @ centre_m[..., None])[..., 0]


def _mean(x: Tensor, weights: Tensor | None) -> Tensor:
    """Mean over the points of (..., N, c)."""
    return x.mean(-2) if weights is None else (x * weights[:, None]).sum(-2) / weights.sum()


def _tensor(x: np.ndarray | Tensor) -> Tensor:
    """Double precision: the rotation of a large molecule needs more digits than single precision keeps."""
    return torch.as_tensor(x).to(torch.float64)


def _like(x: Tensor, example: np.ndarray | Tensor) -> Any:
    if isinstance(example, Tensor):
        return x.to(example.dtype if example.dtype.is_floating_point else torch.float64)
    return x.numpy()
