"""Does the latent code carry anything? Posterior collapse, found and named."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

ACTIVE_VARIANCE = 0.01
"""A dimension is active when the variance of its posterior means exceeds this (Burda et al. 2016)."""

_DEAD_NATS, _POOR_NATS = 0.1, 1.0
_DEAD_SPREAD, _POOR_SPREAD = 0.05, 0.3
_DEAD_DENSITY, _POOR_DENSITY = 0.005, 0.03
# Fewer held-out particles than this cannot tell a small gain from none.
_ENOUGH = 100


@dataclass(frozen=True)
class CollapseVerdict:
    """What the latent code carries.

    Parameters
    ----------
    verdict : {"collapsed", "weak", "informative"}
        The answer in one word.
    reasons : tuple of str
        Plain sentences, the weightiest first.
    nats : float
        Nats that an image moves the code by: the Gaussian estimate of the mutual information.
    kl : float or None
        Mean KL divergence from the prior, nats, where known.
    gain, gain_error : float or None
        Mean gain over the homogeneous model with its standard error, nats a particle (held-out
        particles where there are a hundred or more).
    spread : float or None
        Root mean square distance of the decoded structures from their mean, A.
    density_spread : float or None
        Root mean square difference of the decoded maps from their mean, as a share of its density.
    active : tuple of int
        Indices of the active dimensions.
    dimensions : int
        Dimensions in all.
    """

    verdict: str
    reasons: tuple[str, ...]
    nats: float
    kl: float | None
    gain: float | None
    gain_error: float | None
    spread: float | None
    active: tuple[int, ...] = field(default=())
    dimensions: int = 0
    density_spread: float | None = None


def information(z: NDArray, z_sd: NDArray) -> float:
    """Nats that an image tells about its code, from posterior means and widths alone.

    I(x; z) = H(z) - E[H(z|x)] with the aggregate posterior taken as Gaussian,
    1/2 log det(Cov[mean] + diag E[sd^2]) - E[sum log sd]. Unlike the KL divergence it does not count a
    posterior that merely sits away from the prior in the same place for every image. Since the
    Gaussian has the largest entropy of its covariance, it is an upper bound for codes in clumps.

    Parameters
    ----------
    z, z_sd : ndarray, shape (n, d)
        Posterior means and standard deviations.

    Returns
    -------
    float
        Nats, not negative.
    """
    z, z_sd = np.asarray(z, dtype=np.float64), np.maximum(np.asarray(z_sd, dtype=np.float64), 1e-6)
    covariance = np.atleast_2d(np.cov(z, rowvar=False, bias=True)) + np.diag((z_sd**2).mean(axis=0))
    log_det = float(np.linalg.slogdet(covariance)[1])
    return max(0.0, 0.5 * log_det - float(np.log(z_sd).sum(axis=1).mean()))


def detect_collapse(
    z: NDArray,
    z_sd: NDArray,
    *,
    kl: float | None = None,
    gain: NDArray | None = None,
    held_out: NDArray | None = None,
    spread: float | None = None,
    density_spread: float | None = None,
) -> CollapseVerdict:
    """Judge whether the latent code is used.

    Collapsed: no active dimension, less than 0.1 nats, decoded structures within 0.05 A of one another, or
    decoded maps that differ by less than 0.5 % of their density. Weak: less than 1 nat, structures within
    0.3 A, maps within 3 %, or a gain over the homogeneous model that is not above zero by two standard
    errors. Informative otherwise.

    Parameters
    ----------
    z, z_sd : ndarray, shape (n, d)
        Posterior means and standard deviations.
    kl : float, optional
        Mean KL divergence from the prior, nats.
    gain : ndarray, shape (n,), optional
        Log-evidence gain of each particle over the homogeneous model, nats; NaN where unknown.
    held_out : ndarray, shape (n,), bool, optional
        Particles that training did not see; the gain is averaged over them where there are a hundred or more.
    spread : float, optional
        Root mean square distance of the decoded structures from their mean, A.
    density_spread : float, optional
        Root mean square difference of the decoded maps from their mean, as a share of its density.

    Returns
    -------
    CollapseVerdict
    """
    z = np.asarray(z, dtype=np.float64)
    active = tuple(int(d) for d in np.flatnonzero(z.var(axis=0) > ACTIVE_VARIANCE))
    nats = information(z, z_sd)
    mean_gain, error, where = _mean_gain(gain, held_out)
    dead, poor = [], []
    if not active:
        dead.append("no dimension of the code varies between particles")
    if nats < _DEAD_NATS:
        dead.append(f"an image tells only {nats:.2f} nats about its code")
    elif nats < _POOR_NATS:
        poor.append(f"an image tells only {nats:.2f} nats about its code")
    if spread is not None and spread < _DEAD_SPREAD:
        dead.append(f"all decoded structures lie within {spread:.2f} A of their mean")
    elif spread is not None and spread < _POOR_SPREAD:
        poor.append(f"the decoded structures differ by {spread:.2f} A only")
    if density_spread is not None and density_spread < _POOR_DENSITY:
        few = dead if density_spread < _DEAD_DENSITY else poor
        few.append(
            f"the decoded maps differ from their mean by {100 * density_spread:.1f} % of the density only"
        )
    one = "structure" if density_spread is None else "map"
    if mean_gain is not None and error is not None and mean_gain < 2 * error:
        poor.append(
            f"{where} are explained no better than by one {one} ({mean_gain:+.2f} ± {error:.2f} nats each)"
        )
    verdict = "collapsed" if dead else "weak" if poor else "informative"
    if verdict == "informative":
        poor = [f"{len(active)} of {z.shape[1]} dimensions are in use and an image tells {nats:.1f} nats"]
        if mean_gain is not None:
            poor.append(f"{where} gain {mean_gain:.2f} ± {error:.2f} nats each over one {one}")
    reasons = tuple(dead + poor)
    return CollapseVerdict(
        verdict, reasons, nats, kl, mean_gain, error, spread, active, z.shape[1], density_spread
    )


def _mean_gain(gain: NDArray | None, held_out: NDArray | None) -> tuple[float | None, float | None, str]:
    if gain is None:
        return None, None, ""
    gain = np.asarray(gain, dtype=np.float64)
    known, where = np.isfinite(gain), "the images"
    if held_out is not None and (known & held_out).sum() >= _ENOUGH:
        known, where = known & held_out, "held-out images"
    if known.sum() < 2:
        return None, None, ""
    gain = gain[known]
    return float(gain.mean()), float(gain.std(ddof=1) / np.sqrt(len(gain))), where
