"""Rotations of SO(3) as matrices."""

from __future__ import annotations

import roma
import torch
from torch import Tensor


def random_rotations(n: int, generator: torch.Generator | None = None) -> Tensor:
    """Uniform (Haar) random rotations.

    Drawn as normalised Gaussian quaternions, from `generator` alone, so that a seed fixes them.

    Parameters
    ----------
    n : int
        How many.
    generator : torch.Generator, optional
        Source of randomness on the CPU.

    Returns
    -------
    Tensor, shape (n, 3, 3), float64
    """
    quaternions = torch.randn(n, 4, generator=generator, dtype=torch.float64)
    return roma.unitquat_to_rotmat(quaternions / quaternions.norm(dim=-1, keepdim=True))


def geodesic_angle(a: Tensor, b: Tensor) -> Tensor:
    """Angle of the rotation that takes a to b.

    Parameters
    ----------
    a, b : Tensor, shape (..., 3, 3)
        Rotation matrices.

    Returns
    -------
    Tensor, shape (...)
        Radians, 0 to pi.
    """
    return roma.rotmat_geodesic_distance(a, b)


def small_rotation(vector: Tensor) -> Tensor:
    """Rotation matrix of a rotation vector (exponential map).

    Parameters
    ----------
    vector : Tensor, shape (..., 3)
        Axis times angle in radians.

    Returns
    -------
    Tensor, shape (..., 3, 3)
    """
    return roma.rotvec_to_rotmat(vector)
