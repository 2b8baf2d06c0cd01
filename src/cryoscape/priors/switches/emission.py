"""Where configurations of switches lie: a Gaussian for each, or means that add up over the switches."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cryoscape.priors.expectation_maximisation import MixtureEstimate
from cryoscape.priors.gaussians import (
    CovarianceFactors,
    FullGaussians,
    log_normaliser,
    through_factors,
)
from cryoscape.priors.switches.spins import PairwiseSpins
from cryoscape.priors.switches.start import additive_means


class TableEmission(FullGaussians):
    """A mean and a full covariance of its own for every one of 2^m configurations, in their order."""

    @torch.no_grad()
    def reach(self, switches: PairwiseSpins) -> Tensor:
        """How far every switch moves the mean by a turn, in standard deviations of the points, shape (m,).

        Root mean square over the configurations of the others.
        """
        weight, codes = switches.log_weights().exp(), switches.codes
        centred = self.mean - weight @ self.mean
        total = (weight[:, None] * centred).T @ centred
        total = total + torch.einsum("k,kij->ij", weight, self.covariances())
        steps = []
        for j in range(codes.shape[1]):
            up = codes[:, j] > 0
            step = self.mean[up] - self.mean[~up]
            square = (step * torch.linalg.solve(total, step.T).T).sum(1)
            steps.append(((weight[up] + weight[~up]) @ square).sqrt())
        return torch.stack(steps)

    def draw(self, s: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Draw a point of every configuration, (n, m) -> (n, d)."""
        powers = 2 ** torch.arange(s.shape[1] - 1, -1, -1, device=s.device)
        return self.sample(((s > 0) * powers).sum(1), generator)

    def take(self, estimate: MixtureEstimate, codes: NDArray[np.float64]) -> None:
        """Take the components of a mixture, in the order of the configurations."""
        self.set(estimate.mean, estimate.covariance)


class AdditiveEmission(nn.Module):
    """Means origin + s @ directions, and one covariance.

    Parameters
    ----------
    spins : int
        m.
    dim : int
        d.
    floor : float
        Smallest standard deviation in any direction.
    codes : Tensor, shape (2^m, m), optional
        All configurations, where they are enumerated.

    Attributes
    ----------
    origin : Parameter, shape (d,)
    directions : Parameter, shape (m, d)
        Half the way that a switch moves the mean.
    covariance : CovarianceFactors
        Of one component.
    """

    codes: Tensor | None

    def __init__(self, spins: int, dim: int, floor: float, codes: Tensor | None = None) -> None:
        super().__init__()
        self.origin = nn.Parameter(torch.zeros(dim))
        self.directions = nn.Parameter(0.1 * torch.randn(spins, dim))
        self.covariance = CovarianceFactors(1, dim, floor)
        self.register_buffer("codes", codes, persistent=False)

    def _whitened(self, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Points from the origin (..., d) and directions (m, d), both whitened, and log |W| ()."""
        whitener, log_det = self.covariance.whiteners()
        return (u - self.origin) @ whitener[0].T, self.directions @ whitener[0].T, log_det[0]

    def log_prob(self, u: Tensor) -> Tensor:
        """Log density under every configuration, (..., d) -> (..., 2^m)."""
        assert self.codes is not None
        y, directions, log_det = self._whitened(u)
        centres = self.codes @ directions
        # |y - c|^2 multiplied out: one matrix product for all configurations.
        constant = log_normaliser(log_det, y.shape[-1]) - 0.5 * centres.square().sum(-1)
        return constant + y @ centres.T - 0.5 * y.square().sum(-1, keepdim=True)

    def log_prob_given(self, u: Tensor, s: Tensor) -> Tensor:
        """Log density under given configurations, (..., d) and (..., m) -> (...)."""
        y, directions, log_det = self._whitened(u)
        return log_normaliser(log_det, y.shape[-1]) - 0.5 * (y - s @ directions).square().sum(-1)

    @torch.no_grad()
    def spin_terms(self, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Log density as a polynomial in the spins: constant + fields.s - sum_(i<j) gram_ij s_i s_j.

        Returns
        -------
        constant : Tensor, shape (...)
        fields : Tensor, shape (..., m)
        gram : Tensor, shape (m, m)
            Its diagonal, for which s_i s_i = 1, is in the constant.
        """
        y, directions, log_det = self._whitened(u)
        gram = directions @ directions.T
        constant = log_normaliser(log_det, y.shape[-1]) - 0.5 * (y.square().sum(-1) + gram.trace())
        return constant, y @ directions.T, gram

    def means(self) -> Tensor:
        """Means of all configurations, shape (2^m, d)."""
        assert self.codes is not None
        return self.origin + self.codes @ self.directions

    def covariances(self) -> Tensor:
        """Their covariances, all the same, shape (2^m, d, d)."""
        assert self.codes is not None
        return self.covariance.matrices().expand(len(self.codes), -1, -1)

    @torch.no_grad()
    def draw(self, s: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Draw a point of every configuration, (n, m) -> (n, d)."""
        noise = torch.randn(len(s), len(self.origin), generator=generator, dtype=self.origin.dtype)
        none = torch.zeros(len(s), dtype=torch.long, device=s.device)
        return self.origin + s @ self.directions + through_factors(self.covariance.cholesky(), none, noise)

    @torch.no_grad()
    def reach(self, switches: PairwiseSpins) -> Tensor:
        """How far every switch moves the mean by a turn, in standard deviations of a configuration."""
        return 2 * self._whitened(self.origin)[1].norm(dim=1)

    @torch.no_grad()
    def set(
        self, origin: NDArray[np.float64], directions: NDArray[np.float64], covariance: NDArray[np.float64]
    ) -> None:
        """Take origin (d,), directions (m, d) and covariance (d, d)."""
        self.origin.copy_(torch.as_tensor(origin))
        self.directions.copy_(torch.as_tensor(directions))
        self.covariance.set(torch.as_tensor(covariance)[None].to(self.origin.device))

    def take(self, estimate: MixtureEstimate, codes: NDArray[np.float64]) -> None:
        """Take a mixture whose means are additive over the switches and whose covariances are the same."""
        self.set(*additive_means(estimate, codes), estimate.covariance[0])
