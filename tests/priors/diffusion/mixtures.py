"""A Gaussian mixture whose denoiser and density are known, as a prior and as independent formulas."""

import numpy as np
import torch
from scipy.stats import multivariate_normal

from cryoscape.priors.diffusion.prior import DiffusionPrior

WEIGHT = np.array([0.5, 0.3, 0.2])
# About the origin, as whitened points are.
MEAN = np.array([[-1.0, 0.3], [0.9, 0.8], [0.6, -1.2]])
MEAN -= WEIGHT @ MEAN
COVARIANCE = np.array(
    [[[0.20, 0.10], [0.10, 0.15]], [[0.06, 0.0], [0.0, 0.20]], [[0.10, -0.05], [-0.05, 0.08]]]
)


def log_density(z, sigma=0.0):
    """Log density of the mixture blurred by sigma, (n, 2) -> (n,)."""
    blur = sigma**2 * np.eye(2)
    parts = [
        w * multivariate_normal(m, c + blur).pdf(z) for w, m, c in zip(WEIGHT, MEAN, COVARIANCE, strict=True)
    ]
    return np.log(np.sum(parts, 0))


def denoised(x, sigma):
    """The best denoiser, by the formula of conditional means, (n, 2) -> (n, 2)."""
    blur = sigma**2 * np.eye(2)
    share = np.stack(
        [
            w * multivariate_normal(m, c + blur).pdf(x)
            for w, m, c in zip(WEIGHT, MEAN, COVARIANCE, strict=True)
        ],
        1,
    )
    share /= share.sum(1, keepdims=True)
    each = [m + (x - m) @ np.linalg.inv(c + blur) @ c for m, c in zip(MEAN, COVARIANCE, strict=True)]
    return np.einsum("nk,knj->nj", share, np.stack(each))


def draw(n, seed=0):
    """Points of the mixture (n, 2)."""
    rng = np.random.default_rng(seed)
    which = rng.choice(3, n, p=WEIGHT)
    return MEAN[which] + np.einsum(
        "nij,nj->ni", np.linalg.cholesky(COVARIANCE)[which], rng.normal(size=(n, 2))
    )


def mixture_prior(dtype=torch.float32, **settings):
    """A prior that has learned nothing, over the mixture: its denoiser is the analytic one."""
    torch.manual_seed(0)
    prior = DiffusionPrior(2, layers=1, width=8, base="mixture", components=3, **settings).eval().to(dtype)
    prior.base.set(WEIGHT, MEAN, COVARIANCE)
    return prior


def moments():
    """Mean (2,) and covariance (2, 2) of the mixture."""
    mean = WEIGHT @ MEAN
    second = np.einsum("k,kij->ij", WEIGHT, COVARIANCE + MEAN[:, :, None] * MEAN[:, None])
    return mean, second - np.outer(mean, mean)
