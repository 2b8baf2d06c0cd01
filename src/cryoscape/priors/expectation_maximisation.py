"""Gaussian mixtures of points by expectation-maximisation, with parameters tied as a family wants them.

scikit-learn gives the start. The rounds that follow differ from its own in two ways: covariances are drawn
towards the mean one by a few pseudo-points (a maximum a posteriori estimate: Fraley and Raftery, Journal of
Classification 24 (2007)), and after every round the estimate passes through a `Tie`, which maximises the
same bound under the constraints of a family.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryoscape.priors.gaussians import gaussian_log_prob
from cryoscape.priors.machines.negative_phase import drawn_seed

Floats = NDArray[np.float64]

_RESTARTS = 3
_FEW = 32
"""Components up to which starts are tried several times: with more of them all starts end alike."""
_MOST_FITTED = 128
"""Components up to which scikit-learn fits them all; beyond, it fits so many and they are split."""
_BLOCK = 8192


@dataclass(frozen=True)
class MixtureEstimate:
    """A Gaussian mixture as numbers.

    Attributes
    ----------
    weight : ndarray, shape (K,)
        Sum to 1.
    mean : ndarray, shape (K, d)
    covariance : ndarray, shape (K, d, d)
    """

    weight: Floats
    mean: Floats
    covariance: Floats

    def whitened(self, shift: Tensor, scale: Tensor) -> MixtureEstimate:
        """The same mixture of (z - shift) / scale."""
        origin, unit = shift.double().cpu().numpy(), float(scale)
        return MixtureEstimate(self.weight, (self.mean - origin) / unit, self.covariance / unit**2)

    def ordered(self, order: NDArray[np.int64]) -> MixtureEstimate:
        """Its components in another order."""
        return MixtureEstimate(self.weight[order], self.mean[order], self.covariance[order])


Tie = Callable[[MixtureEstimate], MixtureEstimate]
"""Takes the unconstrained estimate of a round of maximisation, in which `weight` are the expected shares, and
returns the best one that a family allows."""


def start_mixture(
    points: Tensor, components: int, floor: float, generator: torch.Generator | None = None
) -> MixtureEstimate:
    """Fit a mixture by scikit-learn, from k-means; up to 32 components the best of three restarts.

    Parameters
    ----------
    points : Tensor, shape (N, d)
    components : int
        K. Where the points are too few for so many, or K is over 128, fewer are fitted, and the heaviest are
        split in two along their longest axis until there are K.
    floor : float
        Smallest standard deviation.
    generator : torch.Generator, optional

    Returns
    -------
    MixtureEstimate
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    x = points.detach().cpu().double().numpy()
    fitted = max(1, min(components, _MOST_FITTED, len(x) // (x.shape[1] + 2)))
    model = GaussianMixture(
        fitted,
        reg_covar=floor**2,
        n_init=_RESTARTS if fitted <= _FEW else 1,
        max_iter=200,
        random_state=drawn_seed(generator),
    )
    with warnings.catch_warnings():
        # What is found on the way to convergence is as good a start.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(x)
    found = MixtureEstimate(model.weights_, model.means_, model.covariances_)
    return split_heaviest(found, components)


def split_heaviest(mixture: MixtureEstimate, components: int) -> MixtureEstimate:
    """Halve the heaviest component along its longest axis, moments kept, until there are K."""
    weight, mean, covariance = list(mixture.weight), list(mixture.mean), list(mixture.covariance)
    while len(weight) < components:
        k = int(np.argmax(weight))
        values, vectors = np.linalg.eigh(covariance[k])
        step = np.sqrt(0.5 * values[-1]) * vectors[:, -1]
        narrower = covariance[k] - np.outer(step, step)
        weight[k] /= 2
        weight.append(weight[k])
        mean[k], covariance[k] = mean[k] - step, narrower
        mean.append(mean[k] + 2 * step)
        covariance.append(narrower)
    return MixtureEstimate(np.asarray(weight), np.asarray(mean), np.asarray(covariance))


def improve(
    points: Tensor,
    mixture: MixtureEstimate,
    floor: float,
    *,
    tie: Tie | None = None,
    iterations: int = 30,
    tolerance: float = 1e-3,
    pseudo: float | None = None,
) -> MixtureEstimate:
    """Go on with expectation-maximisation.

    Parameters
    ----------
    points : Tensor, shape (N, d)
    mixture : MixtureEstimate
        Where to start.
    floor : float
        Smallest standard deviation.
    tie : Tie, optional
        Constraints of the family.
    iterations : int
        At most so many.
    tolerance : float
        Stop when the mean log density changes by less; with pseudo-points it may also fall a little.
    pseudo : float
        Points that each covariance is given of the mean one; as many as it has free entries by default.

    Returns
    -------
    MixtureEstimate
    """
    x = points.detach().cpu().double()
    d, then = x.shape[1], -np.inf
    given = 0.5 * d * (d + 1) if pseudo is None else pseudo
    for _ in range(iterations):
        share, first, second, now = _expectation(x, mixture)
        if abs(now - then) < tolerance:
            break
        then = now
        mixture = _maximisation(share, first, second, floor, given)
        mixture = mixture if tie is None else tie(mixture)
    return mixture


def _expectation(x: Tensor, mixture: MixtureEstimate) -> tuple[Floats, Floats, Floats, float]:
    """Expected counts (K,), sums (K, d) and sums of squares (K, d, d), and the mean log density."""
    n, d = x.shape
    mean, covariance = torch.as_tensor(mixture.mean), torch.as_tensor(mixture.covariance)
    factor = torch.linalg.cholesky(covariance)
    eye = torch.eye(d, dtype=x.dtype).expand_as(factor)
    whitener = torch.linalg.solve_triangular(factor, eye, upper=False)
    log_det = -factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    log_weight = torch.as_tensor(mixture.weight).clamp_min(1e-300).log()
    sums, total = torch.zeros(len(mean), 1 + d + d * d, dtype=x.dtype), 0.0
    for part in x.split(_BLOCK):
        joint = log_weight + gaussian_log_prob(part, mean, whitener, log_det)
        evidence = torch.logsumexp(joint, 1)
        total += float(evidence.sum())
        squares = (part[:, :, None] * part[:, None, :]).flatten(1)
        sums += (joint - evidence[:, None]).exp().T @ torch.cat([torch.ones(len(part), 1), part, squares], 1)
    share, first, second = sums.split([1, d, d * d], dim=1)
    return share[:, 0].numpy(), first.numpy(), second.view(-1, d, d).numpy(), total / n


def _maximisation(
    share: Floats, first: Floats, second: Floats, floor: float, pseudo: float
) -> MixtureEstimate:
    count = share + 1e-9
    mean = first / count[:, None]
    scatter = second - count[:, None, None] * mean[:, :, None] * mean[:, None, :]
    scatter = 0.5 * (scatter + scatter.transpose(0, 2, 1))
    typical = scatter.sum(0) / count.sum()
    covariance = (scatter + pseudo * typical) / (count + pseudo)[:, None, None]
    return MixtureEstimate(count / count.sum(), mean, covariance + floor**2 * np.eye(mean.shape[1]))
