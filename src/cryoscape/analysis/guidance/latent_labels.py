"""Labels as functions of z: groups of the analysis by a classifier, states of the run's own prior."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryoscape.analysis.prior_fitting.states import find_basins
from cryoscape.errors import InputError

if TYPE_CHECKING:
    from cryoscape.priors.base import LatentPrior
    from cryoscape.training.run import Run

LogProbability = Callable[[Tensor], Tensor]
"""Points z (B, d) -> log probability of one label (B,), nats."""

LOW_ACCURACY = 0.8
"""Share of held-out particles below which a classifier is said not to know the groups."""

_HELD_BACK = 5
_FIT_LIMIT = 20_000


@dataclass(frozen=True, eq=False)
class LatentClassifier:
    """Multinomial logistic regression on z and its products.

    Attributes
    ----------
    mean, scale : Tensor, shape (d,)
        Of the particles.
    slope : Tensor, shape (f, K)
        Of the features: d coordinates in units of `scale`, then their d (d + 1) / 2 products.
    intercept : Tensor, shape (K,)
    accuracy : float
        Share of held-out particles whose label is the likeliest one.
    """

    mean: Tensor
    scale: Tensor
    slope: Tensor
    intercept: Tensor
    accuracy: float

    def __call__(self, z: Tensor) -> Tensor:
        """Log probabilities of all labels, (B, d) -> (B, K), nats."""
        u = (z - self.mean.to(z)) / self.scale.to(z)
        return (_features(u) @ self.slope.to(z) + self.intercept.to(z)).log_softmax(-1)


def fit_classifier(z: NDArray[np.floating], label: NDArray[np.integer], seed: int = 0) -> LatentClassifier:
    """Learn labels from z.

    Classes weigh what they hold, so that probabilities are those of the population of particles.

    Parameters
    ----------
    z : ndarray, shape (n, d)
    label : ndarray of int, shape (n,)
        0 to K - 1, every one of them given to two points or more.
    seed : int
        Of the fifth held back, and of the 20,000 particles taken from more.

    Returns
    -------
    LatentClassifier
        Fitted to all of them; its accuracy is that of a fit without the fifth.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    order = np.random.default_rng(seed).permutation(len(z))[:_FIT_LIMIT]
    z, label = np.asarray(z, dtype=np.float64)[order], np.asarray(label)[order]
    mean, scale = z.mean(0), np.maximum(z.std(0), 1e-9)
    x = _features(torch.as_tensor((z - mean) / scale)).numpy()
    classes = int(label.max()) + 1
    if classes < 2:
        raise ValueError("one label alone cannot be told from others")
    held = np.arange(len(x)) < len(x) // _HELD_BACK
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        accuracy = 0.0
        if held.any() and len(np.unique(label[~held])) > 1:
            first = LogisticRegression(max_iter=500).fit(x[~held], label[~held])
            accuracy = float((first.predict(x[held]) == label[held]).mean())
        model = LogisticRegression(max_iter=500).fit(x, label)
    slope, intercept = model.coef_, model.intercept_
    if len(model.classes_) == 2:
        slope, intercept = np.concatenate([0 * slope, slope]), np.concatenate([0 * intercept, intercept])
    full = np.zeros((classes, x.shape[1])), np.full(classes, -np.inf)
    full[0][model.classes_], full[1][model.classes_] = slope, intercept
    centre, width, slopes, constants = (
        torch.as_tensor(part, dtype=torch.float32) for part in (mean, scale, full[0].T, full[1])
    )
    return LatentClassifier(centre, width, slopes, constants, accuracy)


def cluster_probability(run: Run, cluster: int) -> tuple[LogProbability, float]:
    """Log probability of a k-means group of the run's analysis, given z.

    Parameters
    ----------
    run : Run
        Analysed.
    cluster : int
        From 1, as the analysis and `ensemble/clusters.cif` name them.

    Returns
    -------
    callable
        Points (B, d) -> (B,).
    float
        Accuracy of the classifier on held-out particles.

    Raises
    ------
    InputError
        The run has not been analysed since it was embedded, or has no such group.
    """
    from cryoscape.analysis.summary import AnalysisSummary

    summary = AnalysisSummary.read(run.path)
    if summary is None or not np.array_equal(summary.row, run.embedding.row):
        raise InputError(
            "the run has no analysis of its present embedding",
            file=run.path,
            remedy="Run `cryoscape analyze` first: it makes the groups.",
        )
    groups = summary.clusters
    _need_number("cluster", cluster, len(groups.count))
    if len(groups.count) < 2:
        raise InputError("the analysis found one group only", remedy="Leave this condition out.")
    classifier = fit_classifier(run.embedding.z, groups.label)
    return lambda z: classifier(z)[:, cluster - 1], classifier.accuracy


def state_probability(prior: LatentPrior, state: int) -> LogProbability:
    """Log probability of a state of a prior, given z: that of all its parts.

    Parameters
    ----------
    prior : LatentPrior
        With states.
    state : int
        From 1, as the analysis names them: basins of p(z), the most populated first.

    Returns
    -------
    callable
        Points (B, d) -> (B,), nats.

    Raises
    ------
    InputError
        The prior has no states, or no such state.
    """
    states = prior.states()
    if states is None:
        raise InputError(
            "the prior of this run has no states",
            remedy="Use `cluster N` for a group of the analysis, or train with --prior mixture.",
        )
    basins = find_basins(states)
    _need_number("state", state, len(basins.share))
    parts = torch.as_tensor(np.flatnonzero(basins.label == state - 1))

    def log_probability(z: Tensor) -> Tensor:
        share = prior.responsibilities(z)[:, parts.to(z.device)].sum(-1)
        return share.clamp_min(1e-30).log()

    return log_probability


def _need_number(what: str, number: int, count: int) -> None:
    if not 1 <= number <= count:
        raise InputError(f"there is no {what} {number}", remedy=f"Give a number from 1 to {count}.")


def _features(u: Tensor) -> Tensor:
    """Coordinates (B, d) and their products, (B, d + d (d + 1) / 2)."""
    first, second = torch.triu_indices(u.shape[-1], u.shape[-1])
    return torch.cat([u, u[:, first] * u[:, second]], -1)
