"""The likelihood of images in nearby poses, and integrated over an error of the pose.

The log likelihood of an image is quadratic in a small move d of five numbers, three rotations about the axes
of the view and two shifts,

    log p(x | V, d) = value + b.d - 1/2 d^T H d,

with H the Gauss-Newton curvature sum_q w_q |T_q|^2 dY_q dY_q^* / s2_q. The likelihood integrated over a
Gaussian error of covariance S has the log value + 1/2 b^T S (1 + H S)^-1 b - 1/2 ln|1 + H S|, which is
`value` itself at S = 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryoscape.analysis.validation.nats import need_nats
from cryoscape.analysis.validation.simulated_images import ImageSource
from cryoscape.data.images import ImageBatch
from cryoscape.models.decoders.base import Scene
from cryoscape.models.likelihoods import GaussianLikelihood
from cryoscape.physics import fourier
from cryoscape.physics.rotations import small_rotation
from cryoscape.progress import ProgressReporter, reporter_or_silent

Array = NDArray[np.float64]

PHASE_STEP = 0.1
"""Phase, radians, that a step of rotation adds at the highest frequency, a quarter of the field of view out.

A central difference errs by the square of it over 6, which is 0.2 % there and less elsewhere; the rounding of
single precision is a hundred times smaller. Maps are interpolated between voxels, and their derivatives jump
by a few per cent over a tenth of a voxel: a much smaller step would see the jumps and not the map."""

_BATCH = 64
_MOVES = 2  # steps to the most likely pose; the second changes little
_STARTS = (0.0, 0.3, 1.0, 3.0, 9.0)  # of either sd, degrees or A
_MOST = 20.0  # beyond which no small move is left


@dataclass(frozen=True, eq=False)
class PoseExpansion:
    """Log likelihood of n images under K structures, to second order in the pose.

    Attributes
    ----------
    value : ndarray, shape (n, K)
        Nats over pure noise, in the given pose.
    slope : ndarray, shape (n, K, 5)
        Derivatives in a rotation about the x, y and z axis of the view (radians) and a shift in x and y (A).
    curvature : ndarray, shape (n, K, 5, 5)
        Gauss-Newton: minus the expected second derivatives.
    """

    value: Array
    slope: Array
    curvature: Array

    def evidence(self, rotation_sd: float, shift_sd: float) -> Array:
        """Log of the likelihood integrated over a Gaussian pose error, shape (n, K), nats.

        Parameters
        ----------
        rotation_sd : float
            Standard deviation about each axis, degrees; 0 for none.
        shift_sd : float
            The same in each direction of the image, A.
        """
        variance = torch.tensor([rotation_sd**2, shift_sd**2], dtype=torch.float64)
        return _integrated(*self._tensors(), variance).numpy()

    def of(self, structure: int) -> PoseExpansion:
        """The same of one structure alone."""
        one = slice(structure, structure + 1)
        return PoseExpansion(self.value[:, one], self.slope[:, one], self.curvature[:, one])

    def _tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        value, slope, curvature = (torch.from_numpy(x) for x in (self.value, self.slope, self.curvature))
        return value, slope, curvature


def _integrated(value: Tensor, slope: Tensor, curvature: Tensor, variance: Tensor) -> Tensor:
    """Log evidence (n, K) from the variances of rotations (degrees^2) and shifts (A^2), differentiable."""
    spread = _spread(variance)
    widened = torch.eye(5, dtype=value.dtype) + curvature * spread
    solved = torch.linalg.solve(widened, slope[..., None])[..., 0]
    return value + 0.5 * (slope * spread * solved).sum(-1) - 0.5 * torch.linalg.slogdet(widened)[1]


def _spread(variance: Tensor) -> Tensor:
    """Variances of the five moves, radians^2 and A^2, from those of rotations, degrees^2, and shifts."""
    return torch.cat([(variance[0] * (math.pi / 180) ** 2).expand(3), variance[1].expand(2)])


@torch.no_grad()
def expand_poses(
    likelihood: GaussianLikelihood,
    scenes: Sequence[Scene],
    images: ImageSource,
    rows: Tensor,
    *,
    prior_sd: tuple[float, float] | None = None,
    progress: ProgressReporter | None = None,
) -> PoseExpansion:
    """Log likelihood of images under scenes of one object each, to second order in the pose.

    The expansion is about the given pose; with `prior_sd` about the most likely one under such errors, which
    holds where they are large (Laplace's approximation), and `value` is then extrapolated to the given pose.

    Parameters
    ----------
    likelihood : GaussianLikelihood
    scenes : sequence of Scene, length K
    images : callable
        Batches of rows (B,).
    rows : Tensor, shape (n,), int64
    prior_sd : tuple of float, optional
        Degrees about each axis and A in each direction.
    progress : ProgressReporter, optional

    Returns
    -------
    PoseExpansion

    Raises
    ------
    InputError
        If the likelihood is not in nats.
    """
    need_nats(likelihood)
    n, k = len(rows), len(scenes)
    value, slope = np.empty((n, k)), np.empty((n, k, 5))
    curvature = np.empty((n, k, 5, 5))
    with reporter_or_silent(progress).task("likelihoods in nearby poses", n, "images") as task:
        for start in range(0, n, _BATCH):
            batch = images(rows[start : start + _BATCH])
            here = slice(start, start + len(batch.rows))
            for j, scene in enumerate(scenes):
                found = _about_the_mode(likelihood, scene, batch, prior_sd)
                value[here, j], slope[here, j], curvature[here, j] = (x.numpy() for x in found)
            task.advance(len(batch.rows))
    return PoseExpansion(value, slope, curvature)


_Quadratic = tuple[Tensor, Tensor, Tensor]


def _about_the_mode(
    like: GaussianLikelihood, scene: Scene, batch: ImageBatch, prior_sd: tuple[float, float] | None
) -> _Quadratic:
    """Value (B,), slope (B, 5) and curvature (B, 5, 5) at no move, of the expansion about the best move."""
    move = torch.zeros(len(batch.rows), 5, dtype=torch.float64)
    value, slope, curvature = _expand(like, scene, batch, move)
    if prior_sd is None or max(prior_sd) == 0:
        return value, slope, curvature
    spread = _spread(torch.tensor([prior_sd[0] ** 2, prior_sd[1] ** 2], dtype=torch.float64))
    precision = 1 / spread.clamp_min(1e-12)
    best = value
    for _ in range(_MOVES):
        step = torch.linalg.solve(curvature + torch.diag(precision), slope - precision * move)
        trial = move + step
        found = _expand(like, scene, batch, trial)
        reached = found[0] - 0.5 * (precision * trial.square()).sum(-1)
        better = reached > best
        best = torch.where(better, reached, best)
        move = torch.where(better[:, None], trial, move)
        value = torch.where(better, found[0], value)
        slope = torch.where(better[:, None], found[1], slope)
        curvature = torch.where(better[:, None, None], found[2], curvature)
    back = (curvature @ move[..., None])[..., 0]
    return value - (slope * move).sum(-1) - 0.5 * (move * back).sum(-1), slope + back, curvature


def _expand(like: GaussianLikelihood, scene: Scene, batch: ImageBatch, move: Tensor) -> _Quadratic:
    """Value (B,), slope (B, 5) and curvature (B, 5, 5) of one scene in moved poses (B, 5)."""
    rotations = small_rotation(move[:, :3]).to(batch.rotations.dtype) @ batch.rotations
    grid = fourier.frequency_grid(like.box, like.pixel_size)
    phase = fourier.shift_phase(move[:, 3:].float(), grid)
    y = scene.project(rotations, like.box, like.pixel_size) * phase
    inside = (like.weights > 0).flatten()
    moved = [one * phase for one in _rotation_slopes(like, scene, rotations)]
    # A shift t is the factor exp(-2 pi i k.t).
    moved += [-2j * math.pi * grid[..., axis] * y for axis in range(2)]
    jacobian = torch.stack([_parts(one, inside) for one in moved], dim=1)
    residual = _parts(like.score_residual(batch.images, y, batch.ctf, batch.group), inside)
    power = like.transfer(batch.ctf, batch.group).square()
    power = power * (like.weights / like.noise[:, like.shells])[batch.group]
    weighted = jacobian * power.flatten(1)[:, inside].repeat_interleave(2, dim=1)[:, None]
    slope = torch.einsum("bm,bim->bi", residual, jacobian)
    value = like.log_prob(batch.images, y, batch.ctf, batch.group)
    return value.double(), slope.double(), (weighted @ jacobian.transpose(1, 2)).double()


def _parts(coefficients: Tensor, inside: Tensor) -> Tensor:
    """Real and imaginary parts of the coefficients in the band, (B, box, box // 2 + 1) -> (B, 2 M)."""
    return torch.view_as_real(coefficients.flatten(1)[:, inside].contiguous()).flatten(1)


def _rotation_slopes(like: GaussianLikelihood, scene: Scene, rotations: Tensor) -> list[Tensor]:
    """Derivatives of the projection in rotations about the axes of the view, per radian."""
    step = PHASE_STEP / (2 * math.pi / like.cutoff * like.box * like.pixel_size / 4)
    out = []
    for turn in small_rotation(torch.eye(3) * step):
        ahead, behind = (scene.project(one @ rotations, like.box, like.pixel_size) for one in (turn, turn.T))
        out.append((ahead - behind) / (2 * step))
    return out


def fit_pose_sd(expansion: PoseExpansion, weight: Array) -> tuple[float, float]:
    """Pose errors that make images most likely, given populations.

    The maximum over both variances of the mean of ln sum_k w_k exp(evidence_k), by a quasi-Newton method
    between 0, which is allowed, and 20 degrees or A, from the best place of a coarse grid.

    Parameters
    ----------
    expansion : PoseExpansion
        Of n images and K structures.
    weight : ndarray, shape (K,)
        Populations.

    Returns
    -------
    rotation_sd, shift_sd : float
        Degrees and A, about each axis and in each direction.
    """
    from scipy.optimize import minimize

    tensors = expansion._tensors()
    log_weight = torch.log(torch.as_tensor(np.asarray(weight, dtype=np.float64)))

    def loss(variance: Tensor) -> Tensor:
        return -torch.logsumexp(log_weight + _integrated(*tensors, variance), dim=1).mean()

    @torch.enable_grad()
    def with_gradient(scaled: Array) -> tuple[float, Array]:
        variance = torch.from_numpy(scaled * scale).requires_grad_()
        value = loss(variance)
        (gradient,) = torch.autograd.grad(value, variance)
        return float(value.detach()), gradient.numpy() * scale

    grid = [np.square([r, s]) for r in _STARTS for s in _STARTS]
    start = min(grid, key=lambda variance: float(loss(torch.from_numpy(variance))))
    # In units of the start the best is near 1 or at 0.
    scale = np.maximum(start, np.square(_STARTS[1]))
    bounds = [(0.0, _MOST**2 / one) for one in scale]
    found = minimize(with_gradient, start / scale, jac=True, method="L-BFGS-B", bounds=bounds)
    rotation, shift = np.sqrt(found.x * scale)
    return float(rotation), float(shift)
