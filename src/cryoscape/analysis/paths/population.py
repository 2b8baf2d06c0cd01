"""p(z) of a run for its paths: the prior that it learned, or a mixture behind its posteriors."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from cryoscape.analysis.clusters import cluster_particles
from cryoscape.analysis.components import posterior
from cryoscape.errors import InputError
from cryoscape.priors.base import LatentPrior
from cryoscape.priors.deconvolution import (
    DeconvolvedMixture,
    Measurements,
    fit_deconvolved,
    measurements,
)
from cryoscape.priors.mixture import MixturePrior
from cryoscape.priors.normal import NormalPrior

if TYPE_CHECKING:
    from cryoscape.training.run import Run

MOST = 8
"""Components of the mixture at most."""

_PATIENCE = 2
_FIT_LIMIT = 10_000


@dataclass(frozen=True)
class PathPopulation:
    """A density over z to go along.

    Attributes
    ----------
    prior : LatentPrior
    source : str
        What it is, in words.
    """

    prior: LatentPrior
    source: str


def population_of_run(run: Run, seed: int = 0) -> PathPopulation:
    """The learned prior of a run; where that is N(0, I), what is behind its posteriors.

    N(0, I) is no population but what the posteriors were shrunk to. It is divided out of them, and a Gaussian
    mixture is fitted to what is left, with every particle's own error (`cryoscape.priors.deconvolution`);
    its number of components has the smallest Bayesian information criterion.

    Parameters
    ----------
    run : Run
        With an embedding.
    seed : int
        Of the groups that the fit starts from.

    Raises
    ------
    InputError
        The latents are bits, or there is no embedding.
    """
    if run.prior.support == "binary":
        raise InputError(
            "the latents of this run are bits: there is nothing between two of them, and no path",
            file=run.path,
            remedy="Use `cryoscape landscape` for its free energy, or a run with a prior on real latents.",
        )
    if not isinstance(run.prior, NormalPrior):
        return PathPopulation(run.prior, f"the {run.config.prior.kind} prior of the run")
    z, z_sd = posterior(run.embedding, run.path)
    found = deconvolved_prior(z, z_sd, seed)
    count = found.components
    return PathPopulation(found, f"a mixture of {count} deconvolved from the posteriors")


def deconvolved_prior(z: np.ndarray, z_sd: np.ndarray, seed: int = 0) -> MixturePrior:
    """Mixture behind Gaussian posteriors that were made under N(0, I).

    Parameters
    ----------
    z, z_sd : ndarray, shape (N, d)
    seed : int

    Returns
    -------
    MixturePrior
        Directions in which nothing was measured are N(0, 1).
    """
    rows = np.arange(len(z))
    if len(rows) > _FIT_LIMIT:
        rows = np.random.default_rng(seed).choice(len(rows), _FIT_LIMIT, replace=False)
    measured = measurements(z[rows], z_sd[rows])
    points = z[rows][:, measured.active]
    best: DeconvolvedMixture | None = None
    worse = 0
    for k in range(1, MOST + 1):
        start = cluster_particles(points, k, seed).label.astype(np.int64)
        mixture = fit_deconvolved(measured.value, measured.variance, start)
        if best is not None and mixture.bic >= best.bic:
            worse += 1
            if worse >= _PATIENCE:
                break
        else:
            best, worse = mixture, 0
    assert best is not None
    return _as_prior(_within_reason(best, measured), measured.active)


def _within_reason(mixture: DeconvolvedMixture, measured: Measurements) -> DeconvolvedMixture:
    """The mixture with no component narrower than what images can show, or wider than what was decoded.

    N measurements with an error s show nothing finer than s / sqrt(ln N) (Fan 1991; see
    `cryoscape.analysis.landscape.identifiability`). A narrower component is an accident of the fit, and a
    cliff of hundreds of kT for whatever climbs the density. The decoder learned under N(0, I), so what it
    makes of codes far outside was never compared with an image: in directions that are hardly measured,
    posteriors that are a little too narrow would be deconvolved to that.
    """
    error = np.sqrt(np.median(measured.variance, axis=0))
    scaled = mixture.covariance / (error[:, None] * error)
    values, vectors = np.linalg.eigh(scaled)
    values = np.maximum(values, 1 / np.log(max(mixture.n, 3)))
    wide = (vectors * values[:, None, :]) @ vectors.transpose(0, 2, 1) * (error[:, None] * error)
    values, vectors = np.linalg.eigh(wide)
    narrow = (vectors * np.minimum(values, 1.0)[:, None, :]) @ vectors.transpose(0, 2, 1)
    return replace(mixture, covariance=narrow)


def _as_prior(mixture: DeconvolvedMixture, active: np.ndarray) -> MixturePrior:
    k, d = len(mixture.weight), len(active)
    mean, covariance = np.zeros((k, d)), np.tile(np.eye(d), (k, 1, 1))
    mean[:, active] = mixture.mean
    covariance[np.ix_(np.arange(k), active, active)] = mixture.covariance
    prior = MixturePrior(d, k, floor=1e-3)
    with torch.no_grad():
        prior.logits.copy_(torch.as_tensor(np.log(np.maximum(mixture.weight, 1e-12))))
        prior.gaussians.set(mean, covariance)
    return prior.eval().requires_grad_(False)
