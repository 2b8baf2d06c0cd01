"""Could a rigid move of each particle explain as much as the motion? A move is an error of its pose.

Around the given pose the log likelihood of an image is quadratic in a small move d of five numbers, three
rotations about the axes of the view and two shifts,

    log p(x | V, d) = value + b.d - 1/2 d^T H d,

with H the Gauss-Newton curvature sum_q w_q |T_q|^2 dY_q dY_q^* / s2_q. The likelihood integrated over a
Gaussian error of covariance S has the log value + 1/2 b^T S (1 + H S)^-1 b - 1/2 ln|1 + H S|, which is
`value` itself at S = 0. A model with one structure and such errors is the rival of one with many structures.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryoscape.analysis.ensemble_weights import fit_weights
from cryoscape.analysis.validation.results import Check, Status
from cryoscape.analysis.validation.shells import refuse_without_nats
from cryoscape.analysis.validation.simulated_images import ImageSource
from cryoscape.data.images import ImageBatch
from cryoscape.models.decoders.base import Scene
from cryoscape.models.likelihoods import GaussianLikelihood
from cryoscape.physics import fourier
from cryoscape.physics.rotations import small_rotation
from cryoscape.progress import ProgressReporter, reporter_or_silent

Array = NDArray[np.float64]

NEEDED_ERRORS = 2.0
"""Standard errors by which the motion has to win over rigid moves: chance does so once in 44."""

PHASE_STEP = 0.1
"""Phase, radians, that a step of rotation adds at the highest frequency, a quarter of the field of view out.

A central difference errs by the square of it over 6, which is 0.2 % there and less elsewhere; the rounding of
single precision is a hundred times smaller."""

_BATCH = 64
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
    radians2 = variance[0] * (math.pi / 180) ** 2
    spread = torch.cat([radians2.expand(3), variance[1].expand(2)])
    widened = torch.eye(5, dtype=value.dtype) + curvature * spread
    solved = torch.linalg.solve(widened, slope[..., None])[..., 0]
    return value + 0.5 * (slope * spread * solved).sum(-1) - 0.5 * torch.linalg.slogdet(widened)[1]


@torch.no_grad()
def expand_poses(
    likelihood: GaussianLikelihood,
    scenes: Sequence[Scene],
    images: ImageSource,
    rows: Tensor,
    *,
    progress: ProgressReporter | None = None,
) -> PoseExpansion:
    """Log likelihood of images under scenes of one object each, and its derivatives in the pose.

    Parameters
    ----------
    likelihood : GaussianLikelihood
    scenes : sequence of Scene, length K
    images : callable
        Batches of rows (B,).
    rows : Tensor, shape (n,), int64
    progress : ProgressReporter, optional

    Returns
    -------
    PoseExpansion

    Raises
    ------
    InputError
        If the likelihood is not in nats.
    """
    refuse_without_nats(likelihood)
    n, k = len(rows), len(scenes)
    value, slope = np.empty((n, k)), np.empty((n, k, 5))
    curvature = np.empty((n, k, 5, 5))
    with reporter_or_silent(progress).task("likelihoods in nearby poses", n, "images") as task:
        for start in range(0, n, _BATCH):
            batch = images(rows[start : start + _BATCH])
            here = slice(start, start + len(batch.rows))
            for j, scene in enumerate(scenes):
                found = _expand(likelihood, scene, batch)
                value[here, j], slope[here, j], curvature[here, j] = (x.double().numpy() for x in found)
            task.advance(len(batch.rows))
    return PoseExpansion(value, slope, curvature)


def _expand(like: GaussianLikelihood, scene: Scene, batch: ImageBatch) -> tuple[Tensor, Tensor, Tensor]:
    """Value (B,), slope (B, 5) and curvature (B, 5, 5) of one scene."""
    y = scene.project(batch.rotations, like.box, like.pixel_size)
    inside = (like.weights > 0).flatten()
    moved = [*_rotation_slopes(like, scene, batch), *_shift_slopes(like, y)]
    jacobian = torch.stack([_parts(one, inside) for one in moved], dim=1)
    residual = _parts(like.score_residual(batch.images, y, batch.ctf, batch.group), inside)
    power = like.transfer(batch.ctf, batch.group).square()
    power = power * (like.weights / like.noise[:, like.shells])[batch.group]
    weighted = jacobian * power.flatten(1)[:, inside].repeat_interleave(2, dim=1)[:, None]
    slope = torch.einsum("bm,bim->bi", residual, jacobian)
    value = like.log_prob(batch.images, y, batch.ctf, batch.group)
    return value, slope, weighted @ jacobian.transpose(1, 2)


def _parts(coefficients: Tensor, inside: Tensor) -> Tensor:
    """Real and imaginary parts of the coefficients in the band, (B, box, box // 2 + 1) -> (B, 2 M)."""
    return torch.view_as_real(coefficients.flatten(1)[:, inside].contiguous()).flatten(1)


def _rotation_slopes(like: GaussianLikelihood, scene: Scene, batch: ImageBatch) -> list[Tensor]:
    """Derivatives of the projection in rotations about the axes of the view, per radian."""
    step = PHASE_STEP / (2 * math.pi / like.cutoff * like.box * like.pixel_size / 4)
    turns = small_rotation(torch.eye(3) * step)
    out = []
    for turn in turns:
        ahead, behind = (
            scene.project(one @ batch.rotations, like.box, like.pixel_size) for one in (turn, turn.T)
        )
        out.append((ahead - behind) / (2 * step))
    return out


def _shift_slopes(like: GaussianLikelihood, projection: Tensor) -> list[Tensor]:
    """Derivatives of the projection in shifts, per A: a shift t is the factor exp(-2 pi i k.t)."""
    grid = fourier.frequency_grid(like.box, like.pixel_size)
    return [-2j * math.pi * grid[..., axis] * projection for axis in range(2)]


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


@dataclass(frozen=True, eq=False)
class RigidBodyRivals:
    """Held-out log evidence of each image under four models, shape (n,), nats over pure noise.

    Attributes
    ----------
    single, many : ndarray
        The best single structure, and all of them in their populations, in the given poses.
    single_moved, many_moved : ndarray
        The same with pose errors of the size that suits each best.
    single_sd, many_sd : tuple of float
        Those errors, degrees about each axis and A in each direction.
    best : int
        The best single structure, with pose errors.
    """

    single: Array
    many: Array
    single_moved: Array
    many_moved: Array
    single_sd: tuple[float, float]
    many_sd: tuple[float, float]
    best: int


def compare_with_rigid_moves(training: PoseExpansion, held_out: PoseExpansion) -> RigidBodyRivals:
    """Evidence of held-out images under one structure and many, with and without pose errors.

    All that is fitted, populations and sizes of the errors, is fitted to the training images.

    Parameters
    ----------
    training, held_out : PoseExpansion
        Of the same K structures.

    Returns
    -------
    RigidBodyRivals
    """
    alone = int(training.value.mean(axis=0).argmax())
    each = [_fit_single(training.of(k)) for k in range(training.value.shape[1])]
    best = int(np.argmax([evidence for _, evidence in each]))
    single_sd = each[best][0]
    plain = fit_weights(training.value, resamples=0).weight
    weight, many_sd = plain, (0.0, 0.0)
    # Populations and errors in turns; a second turn changes the last digits.
    for _ in range(2):
        many_sd = fit_pose_sd(training, weight)
        weight = fit_weights(training.evidence(*many_sd), resamples=0).weight
    return RigidBodyRivals(
        held_out.value[:, alone],
        _mixed(held_out.value, plain),
        held_out.of(best).evidence(*single_sd)[:, 0],
        _mixed(held_out.evidence(*many_sd), weight),
        single_sd,
        many_sd,
        best,
    )


def _fit_single(expansion: PoseExpansion) -> tuple[tuple[float, float], float]:
    sds = fit_pose_sd(expansion, np.ones(1))
    return sds, float(expansion.evidence(*sds).mean())


def _mixed(table: Array, weight: Array) -> Array:
    """Log of the sum of weighted likelihoods, shape (n,)."""
    with np.errstate(divide="ignore"):
        return np.logaddexp.reduce(table + np.log(weight), axis=1)


def rigid_body_check(rivals: RigidBodyRivals) -> Check:
    """Whether the motion explains held-out images better than pose errors of one structure do.

    Parameters
    ----------
    rivals : RigidBodyRivals

    Returns
    -------
    Check
        Passed where the gain of many structures with pose errors over one with pose errors exceeds two
        standard errors.
    """
    motion, motion_error = _mean(rivals.many - rivals.single)
    rigid, rigid_error = _mean(rivals.single_moved - rivals.single)
    beyond, beyond_error = _mean(rivals.many_moved - rivals.single_moved)
    status = Status.PASSED if beyond > NEEDED_ERRORS * beyond_error else Status.FAILED
    text = (
        f"Beyond rigid moves of the particles the motion explains {beyond:+.3f} +- {beyond_error:.3f} nats a "
        f"held-out image; in the poses as given it explains {motion:+.3f} +- {motion_error:.3f}, and "
        f"rigid moves of one structure ({rivals.single_sd[0]:.2g} degrees, {rivals.single_sd[1]:.2g} A) "
        f"explain {rigid:+.3f} +- {rigid_error:.3f}."
    )
    values = {
        "motion": motion,
        "motion_error": motion_error,
        "rigid": rigid,
        "rigid_error": rigid_error,
        "beyond_rigid": beyond,
        "beyond_rigid_error": beyond_error,
        "rotation_sd_single": rivals.single_sd[0],
        "shift_sd_single": rivals.single_sd[1],
        "rotation_sd_many": rivals.many_sd[0],
        "shift_sd_many": rivals.many_sd[1],
        "images": len(rivals.single),
    }
    return Check(8, "rigid moves", status, text, values)


def _mean(difference: Array) -> tuple[float, float]:
    """Mean and its standard error."""
    return float(difference.mean()), float(difference.std(ddof=1) / math.sqrt(len(difference)))
