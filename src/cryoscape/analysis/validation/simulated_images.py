"""Images that a model says one could have taken: its scenes in the poses and transfer functions of particles.

X = g C Y + noise of the spectrum that the likelihood found. They are nulls and yardsticks: what a statistic
gives on them is what it gives where the truth is known.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cryoscape.data.images import ImageBatch
from cryoscape.models.decoders.base import Scene
from cryoscape.models.likelihoods import GaussianLikelihood
from cryoscape.physics import fourier
from cryoscape.physics.rotations import small_rotation

ImageSource = Callable[[Tensor], ImageBatch]
"""Images and imaging parameters of the particles of some rows (B,)."""


@dataclass(frozen=True)
class SimulatedImages:
    """Simulated images of particles, the same in whatever batches they are asked for.

    Parameters
    ----------
    particles : callable
        Batches of the real particles: their poses and transfer functions are used, their images are not.
    likelihood : GaussianLikelihood
        Its gain and noise spectrum.
    scenes : sequence of Scene
        Of one object each.
    choice : Tensor, shape (N,), int64
        Scene of every particle; -1 for noise alone.
    seed : int
    rotation_sd : float
        Error of the poses that is put in, standard deviation about each axis, degrees.
    shift_sd : float
        The same in each direction of the image, A.
    """

    particles: ImageSource
    likelihood: GaussianLikelihood
    scenes: Sequence[Scene]
    choice: Tensor
    seed: int = 0
    rotation_sd: float = 0.0
    shift_sd: float = 0.0

    @torch.no_grad()
    def __call__(self, rows: Tensor) -> ImageBatch:
        """Images of the particles of some rows (B,), with the poses that a user would be given."""
        batch = self.particles(rows)
        like = self.likelihood
        white = torch.stack([self._normal(int(row), like.box) for row in rows])
        noise = fourier.forward(white) * like.noise[:, like.shells][batch.group].sqrt()
        signal = self._signal(rows, batch)
        return replace(batch, images=(noise + signal).to(torch.complex64))

    def _signal(self, rows: Tensor, batch: ImageBatch) -> Tensor:
        like, chosen = self.likelihood, self.choice[rows]
        rotations, phase = batch.rotations, None
        if self.rotation_sd > 0 or self.shift_sd > 0:
            error = torch.stack([self._pose_error(int(row)) for row in rows])
            turn = small_rotation(torch.deg2rad(torch.tensor(self.rotation_sd)) * error[:, :3])
            rotations = turn @ rotations
            grid = fourier.frequency_grid(like.box, like.pixel_size)
            angle = -2 * torch.pi * self.shift_sd * torch.einsum("bd,hwd->bhw", error[:, 3:], grid)
            phase = torch.polar(torch.ones_like(angle), angle)
        out = torch.zeros_like(batch.images)
        for k in chosen.unique().tolist():
            if k < 0:
                continue
            here = (chosen == k).nonzero()[:, 0]
            out[here] = self.scenes[k].project(rotations[here], like.box, like.pixel_size).to(out.dtype)
        out = out if phase is None else out * phase
        return out * like.transfer(batch.ctf, batch.group)

    def _normal(self, row: int, box: int) -> Tensor:
        return torch.randn(box, box, generator=_generator(self.seed, row, 0))

    def _pose_error(self, row: int) -> Tensor:
        return torch.randn(5, generator=_generator(self.seed, row, 1))


def _generator(seed: int, row: int, purpose: int) -> torch.Generator:
    """Stream of one image: what else is drawn, and in which order, does not touch it."""
    # Odd multipliers of 64 bits scatter neighbouring rows over the seeds (Knuth's multiplicative hashing).
    mixed = (seed * 0x9E3779B97F4A7C15 + row * 0xC2B2AE3D27D4EB4F + purpose * 0x165667B19E3779F9) % 2**63
    return torch.Generator().manual_seed(mixed)


def draw_scenes(weight: Tensor, n: int, seed: int = 0) -> Tensor:
    """Scene of each of n images, drawn with the populations `weight` (K,); shape (n,), int64."""
    generator = torch.Generator().manual_seed(seed)
    return torch.multinomial(weight.double().clamp_min(0.0), n, replacement=True, generator=generator)
