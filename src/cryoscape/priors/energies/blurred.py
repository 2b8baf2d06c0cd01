"""The base of a ladder of noise levels at each of them, and exact draws of the way back under the base alone.

Points y are those below a blur, a u + sqrt(1 - a^2) noise of the data u, shrunk by sqrt(1 - s^2); above it is
y + s noise. With a Gaussian of the data of mean m and covariance S, y has the mean and covariance

    m' = sqrt(1 - s^2) a m,        C = (1 - s^2) (a^2 S + (1 - a^2) I),

and y given x above the blur the precision 1 / C + I / s^2 and the mean that goes with it (Bayes' rule).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cryoscape.priors.energies.ladder import NoiseLadder
from cryoscape.priors.gaussians import log_normaliser, normal_noise


@dataclass(frozen=True, eq=False)
class LevelGaussians:
    """K Gaussians at each of T levels.

    Parameters
    ----------
    mean : Tensor, shape (T, K, d)
    whitener : Tensor, shape (T, K, d, d)
        W with W S W' = I.
    log_det : Tensor, shape (T, K)
        log |W|.
    """

    mean: Tensor
    whitener: Tensor
    log_det: Tensor

    @classmethod
    def of(cls, mean: Tensor, covariance: Tensor) -> LevelGaussians:
        """From means (T, K, d) and covariances (T, K, d, d)."""
        factor = torch.linalg.cholesky(covariance)
        eye = torch.eye(covariance.shape[-1], dtype=covariance.dtype, device=covariance.device)
        whitener = torch.linalg.solve_triangular(factor, eye.expand_as(factor), upper=False)
        return cls(mean, whitener, -factor.diagonal(dim1=-2, dim2=-1).log().sum(-1))

    def log_prob(self, y: Tensor, level: Tensor | int) -> Tensor:
        """Log density of points (..., d) of one level, or (n, d) of levels (n,): shape (..., K), nats."""
        _, k, d = self.mean.shape
        one = isinstance(level, int)
        rows = slice(level, level + 1) if isinstance(level, int) else slice(None)
        whitener, log_det = self.whitener[rows], self.log_det[rows]
        origin = (whitener @ self.mean[rows][..., None]).flatten()
        # One product for all levels is quicker than one small matrix for every point.
        residual = (y @ whitener.reshape(-1, d).T - origin).view(*y.shape[:-1], len(whitener), k, d)
        if one:
            return log_normaliser(log_det[0], d) - 0.5 * residual[..., 0, :, :].square().sum(-1)
        chosen = residual[torch.arange(len(y), device=y.device), level]
        return log_normaliser(log_det[level], d) - 0.5 * chosen.square().sum(-1)


class BlurredMixture:
    """A Gaussian mixture of the data at every level.

    Parameters
    ----------
    log_weight : Tensor, shape (K,)
    mean : Tensor, shape (K, d)
    covariance : Tensor, shape (K, d, d)
        Of whitened data.
    ladder : NoiseLadder
    """

    @torch.no_grad()
    def __init__(self, log_weight: Tensor, mean: Tensor, covariance: Tensor, ladder: NoiseLadder) -> None:
        shrink, signal, sd = (t[:, None, None, None] for t in (ladder.shrink, ladder.signal, ladder.sd))
        eye = torch.eye(covariance.shape[-1], dtype=covariance.dtype, device=covariance.device)
        below = shrink.square() * (signal.square() * covariance + (1 - signal.square()) * eye)
        means = (shrink * signal)[..., 0] * mean
        self.log_weight, self._sd = log_weight, ladder.sd
        self.below = LevelGaussians.of(means, below)
        self.above = LevelGaussians.of(means, below + sd.square() * eye)
        # Gain and covariance of y given x, in the form that needs no inverse of C.
        self._gain = torch.linalg.solve(below + sd.square() * eye, below)
        back = sd.square() * self._gain
        self._factor = torch.linalg.cholesky(0.5 * (back + back.mT))

    def log_prob(self, y: Tensor, level: Tensor | int) -> Tensor:
        """Log density of points y (..., d) of one level, or (n, d) of levels (n,): shape (...), nats."""
        return torch.logsumexp(self.below.log_prob(y, level) + self.log_weight, -1)

    @torch.no_grad()
    def draw_back(
        self, above: Tensor, level: Tensor | int, generator: torch.Generator | None = None
    ) -> Tensor:
        """Draw y given points above the blur (n, d), exactly for the base: shape (n, d)."""
        share = (self.above.log_prob(above, level) + self.log_weight).double().softmax(-1)
        edges = share.cumsum(-1)
        chance = torch.rand(len(above), 1, generator=generator, dtype=torch.float64).to(above.device)
        which = (chance * edges[:, -1:] > edges).sum(-1)
        mean = self.below.mean[level, which]
        back = mean + _times(self._gain[level, which].mT, above - mean)
        return back + _times(self._factor[level, which], normal_noise(above, generator))


def _times(matrix: Tensor, vector: Tensor) -> Tensor:
    """(n, d, d) times (n, d) -> (n, d)."""
    return (matrix @ vector[..., None])[..., 0]
