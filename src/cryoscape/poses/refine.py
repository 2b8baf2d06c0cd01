"""Refinement of poses by Gauss-Newton steps on rotation vector and shift."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from cryoscape.physics.rotations import small_rotation
from cryoscape.poses.evidence import Evidence

Predict = Callable[[Tensor], Tensor]
"""Rotations (m, 3, 3) -> projections (m, 2, K) of the objects of m images, real and imaginary parts."""


@dataclass(frozen=True)
class Refined:
    """Poses at a maximum of the likelihood.

    Attributes
    ----------
    rotations : Tensor, shape (m, 3, 3), float64
    shifts : Tensor, shape (m, 2), float64
        Angstrom.
    log_prob : Tensor, shape (m,)
        Nats over pure noise.
    covariance : Tensor, shape (m, 5, 5), float64
        Of rotation vector (radians, view frame, left of the rotation) and shift (Angstrom): the inverse of
        the information at the maximum (Laplace's approximation).
    """

    rotations: Tensor
    shifts: Tensor
    log_prob: Tensor
    covariance: Tensor


def refine(
    predict: Predict,
    evidence: Evidence,
    rotations: Tensor,
    shifts: Tensor,
    *,
    radius: float,
    steps: int = 4,
) -> Refined:
    """Climb to the nearest maximum of the likelihood in rotation and shift.

    Gauss-Newton steps with Levenberg and Marquardt's damping; a step that does not raise the likelihood is
    not taken, so the result is never worse than the start. Derivatives in the shift are exact, those in the
    rotation differences, so that any way of making projections will do.

    Parameters
    ----------
    predict : callable
    evidence : Evidence
        Of the m images (repeats allowed: several starts of one image are several rows).
    rotations : Tensor, shape (m, 3, 3)
    shifts : Tensor, shape (m, 2)
    radius : float
        Of the particle, Angstrom: turns radians into displacements, for steps and damping.
    steps : int
        Each costs four projections.

    Returns
    -------
    Refined
    """
    rotations, shifts = rotations.double(), shifts.double()
    m = len(rotations)
    damping = torch.full((m,), 1e-2, dtype=torch.float64)
    # A twentieth of a radian of phase at the rim and the highest frequency.
    highest = float(evidence.frequency.norm(dim=-1).max())
    turn = 0.05 / (2 * math.pi * highest * radius)
    projections = predict(rotations)
    value = evidence.log_prob(projections, shifts).double()
    gradient, information = _derivatives(predict, evidence, rotations, shifts, projections, turn)
    for _ in range(steps):
        move = _solve(gradient, information, damping)
        # Never more than half a wave of the highest frequency in one step.
        length = torch.maximum(move[:, :3].norm(dim=-1) * radius, move[:, 3:].norm(dim=-1))
        move = move * (0.5 / highest / length.clamp_min(1e-12)).clamp_max(1.0)[:, None]
        new_rotations = small_rotation(move[:, :3]) @ rotations
        new_shifts = shifts + move[:, 3:]
        new_projections = predict(new_rotations)
        new_value = evidence.log_prob(new_projections, new_shifts).double()
        better = new_value > value
        rotations = torch.where(better[:, None, None], new_rotations, rotations)
        shifts = torch.where(better[:, None], new_shifts, shifts)
        projections = torch.where(better[:, None, None], new_projections, projections)
        value = torch.where(better, new_value, value)
        damping = torch.where(better, damping * 0.2, damping * 20).clamp(1e-4, 1e4)
        if better.any():
            gradient, information = _derivatives(predict, evidence, rotations, shifts, projections, turn)
    return Refined(rotations, shifts, value.to(projections.dtype), _invert(information))


def _derivatives(
    predict: Predict,
    evidence: Evidence,
    rotations: Tensor,
    shifts: Tensor,
    projections: Tensor,
    turn: float,
) -> tuple[Tensor, Tensor]:
    """Gradient (m, 5) and information (m, 5, 5) of the likelihood in rotation vector and shift."""
    axes = small_rotation(torch.eye(3, dtype=torch.float64) * turn)
    slopes = [(predict(axis @ rotations) - projections) / turn for axis in axes]
    # d/dt of exp(-2 pi i k.t) P is -2 pi i k times it; the phase itself is common to all derivatives.
    k = 2 * math.pi * evidence.frequency
    turned = torch.stack([projections[:, 1], -projections[:, 0]], dim=1)
    slopes += [turned * k[:, i] for i in range(2)]
    jacobian = torch.stack(slopes, dim=1)
    weighted = jacobian * evidence.quadratic[:, None, None]
    moved = evidence.moved(shifts[:, None])[:, 0]
    residual = moved - evidence.quadratic[:, None] * projections
    gradient = torch.einsum("mck,mick->mi", residual, jacobian)
    information = torch.einsum("mick,mjck->mij", weighted, jacobian)
    return gradient.double(), information.double()


def _solve(gradient: Tensor, information: Tensor, damping: Tensor) -> Tensor:
    diagonal = information.diagonal(dim1=1, dim2=2)
    floor = 1e-6 * diagonal.amax(dim=1, keepdim=True) + 1e-12
    damped = information + torch.diag_embed(diagonal * damping[:, None] + floor)
    return torch.linalg.solve(damped, gradient[..., None])[..., 0]


def _invert(information: Tensor) -> Tensor:
    """Inverse with a floor, for directions that the image says nothing about."""
    diagonal = information.diagonal(dim1=1, dim2=2)
    return torch.linalg.inv(information + torch.diag_embed(1e-6 * diagonal + 1e-12))
