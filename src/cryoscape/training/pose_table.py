"""Small corrections of the poses, learnt with the model: `train --refine-poses`.

Every particle has a rotation vector (view frame, left of the pose given) and a shift, both counted in
standard deviations of a Gaussian prior around the pose given, so that half their squares are the nats they
cost and one learning rate serves both. A step touches the particles of its batch alone, with Adam's moments
kept for each particle; all of it is in the module's state, so that a run resumed goes on bit for bit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from cryoscape.data.particles import Particles
from cryoscape.physics import fourier
from cryoscape.physics.rotations import small_rotation

_BETAS = (0.9, 0.99)
_EPSILON = 1e-8


@dataclass(frozen=True)
class Correction:
    """Corrections of the poses of a batch.

    Attributes
    ----------
    rows : Tensor, shape (B,), int64
        Which particles.
    scaled : Tensor, shape (B, 5)
        Rotation vector and shift in standard deviations of the prior: the leaf that takes the gradient.
    rotation_sd : float
        Radians.
    shift_sd : float
        Angstrom.
    """

    rows: Tensor
    scaled: Tensor
    rotation_sd: float
    shift_sd: float

    def rotate(self, rotations: Tensor) -> Tensor:
        """Corrected rotations (B, 3, 3)."""
        return small_rotation(self.scaled[:, :3] * self.rotation_sd) @ rotations

    def phase(self, frequencies: Tensor) -> Tensor:
        """What the corrected shifts multiply projections by: exp(-2 pi i k.t), (B, d, d // 2 + 1).

        Parameters
        ----------
        frequencies : Tensor, shape (d, d // 2 + 1, 2)
            From `fourier.frequency_grid`.
        """
        return fourier.shift_phase(self.scaled[:, 3:] * self.shift_sd, frequencies)

    def penalty(self) -> Tensor:
        """Nats of the prior, shape (B,), to be taken off each particle's evidence."""
        return 0.5 * self.scaled.square().sum(-1)


class PoseCorrections(nn.Module):
    """A table of pose corrections with its optimiser.

    Parameters
    ----------
    n : int
        Particles.
    rotation_sd : float
        Standard deviation of the prior per axis, degrees.
    shift_sd : float
        The same for the shift, Angstrom.
    """

    values: Tensor
    first: Tensor
    second: Tensor
    visits: Tensor

    def __init__(self, n: int, rotation_sd: float = 3.0, shift_sd: float = 2.0) -> None:
        super().__init__()
        self.rotation_sd, self.shift_sd = math.radians(rotation_sd), shift_sd
        # Buffers, not parameters: the weights' optimiser would decay and move rows that no image spoke of.
        self.register_buffer("values", torch.zeros(n, 5))
        self.register_buffer("first", torch.zeros(n, 5))
        self.register_buffer("second", torch.zeros(n, 5))
        self.register_buffer("visits", torch.zeros(n, dtype=torch.int32))

    def __len__(self) -> int:
        return len(self.values)

    def at(self, rows: Tensor) -> Correction:
        """Corrections of some particles (B,), ready to take a gradient."""
        scaled = self.values[rows.to(self.values.device)].requires_grad_()
        return Correction(rows, scaled, self.rotation_sd, self.shift_sd)

    @torch.no_grad()
    def update(self, correction: Correction, rate: float) -> None:
        """One step of Adam on the rows of a batch.

        Parameters
        ----------
        correction : Correction
            After the backward pass. A particle that stands in it twice is moved by the sum of its gradients.
        rate : float
            Largest change in a step, about, in standard deviations of the prior.
        """
        gradient = correction.scaled.grad
        if gradient is None:
            return
        rows, place = correction.rows.to(self.values.device).unique(return_inverse=True)
        gradient = gradient.new_zeros(len(rows), 5).index_add_(0, place, gradient)
        visits = self.visits[rows] + 1
        first = torch.lerp(gradient, self.first[rows], _BETAS[0])
        second = torch.lerp(gradient.square(), self.second[rows], _BETAS[1])
        age = visits[:, None].to(gradient.dtype)
        mean = first / (1 - _BETAS[0] ** age)
        scale = (second / (1 - _BETAS[1] ** age)).sqrt() + _EPSILON
        self.visits[rows], self.first[rows], self.second[rows] = visits, first, second
        self.values[rows] -= rate * mean / scale

    @torch.no_grad()
    def angles(self) -> Tensor:
        """Angle of every correction, degrees, shape (N,)."""
        return torch.rad2deg(self.values[:, :3].norm(dim=-1) * self.rotation_sd)

    @torch.no_grad()
    def distances(self) -> Tensor:
        """Length of every shift, Angstrom, shape (N,)."""
        return self.values[:, 3:].norm(dim=-1) * self.shift_sd

    @torch.no_grad()
    def moved(self, particles: Particles) -> Particles:
        """The particles in their corrected poses; those never trained on keep theirs.

        Raises
        ------
        ValueError
            If their number is another.
        """
        if len(particles) != len(self):
            raise ValueError(f"{len(self)} corrections do not fit {len(particles)} particles")
        assert particles.rotations is not None
        values = self.values.double().cpu()
        turns = small_rotation(values[:, :3] * self.rotation_sd)
        return replace(
            particles,
            rotations=(turns @ torch.from_numpy(particles.rotations)).numpy(),
            shifts=particles.shifts + (values[:, 3:] * self.shift_sd).numpy(),
        )
