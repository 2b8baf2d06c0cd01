"""Which particle belongs to which state, and how surely."""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cryoscape.analysis.clusters import cluster_particles
from cryoscape.analysis.components import decoded_motion, latent_components, posterior
from cryoscape.errors import InputError
from cryoscape.priors.deconvolution import (
    DeconvolvedMixture,
    Measurements,
    fit_deconvolved,
    measurements,
)

if TYPE_CHECKING:
    from cryoscape.training.run import Run

LARGEST = 8
"""Most states tried where the user names no number."""

SMALLEST_STATE = 20.0
"""Effective images below which a state has no map of its own."""

_NEGLIGIBLE = 1e-3
_FIT_LIMIT = 10_000
_PATIENCE = 2


@dataclass(frozen=True, eq=False)
class StateMembership:
    """Soft membership of N particles in K states, whoever says so.

    Attributes
    ----------
    weights : ndarray, shape (N, K), float64
        Probability of each state, 0 to 1. Rows add up to 1, or to less where a particle may belong to none.
    names : tuple of str, length K
    share : ndarray, shape (K,)
        Population of each state; the mean weight where nothing better is known.
    centre : ndarray, shape (K, d)
        Weighted mean of the latent codes.
    particle : ndarray, shape (K,), int
        Row of the embedding that represents the state.
    representative : ndarray, shape (K, d)
        Its latent code.
    source : str
        Where the weights come from, in a few words.
    """

    weights: NDArray[np.float64]
    names: tuple[str, ...]
    share: NDArray[np.float64]
    centre: NDArray[np.float64]
    particle: NDArray[np.int64]
    representative: NDArray[np.float64]
    source: str

    @property
    def label(self) -> NDArray[np.int64]:
        """Most probable state of every particle from 0, or -1 where none has more than a half, shape (N,)."""
        label = self.weights.argmax(axis=1)
        return np.where(self.weights.max(axis=1) > 0.5, label, -1)

    @property
    def effective(self) -> NDArray[np.float64]:
        """Images that would say as much with weight 1, (sum w)^2 / sum w^2, shape (K,)."""
        return effective_images(self.weights)


def effective_images(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Kish's effective sample size of each column, shape (K,)."""
    squares = np.square(weights).sum(axis=0)
    return np.square(weights.sum(axis=0)) / np.maximum(squares, 1e-300)


def images_held(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """The smaller of the sum of the weights and the effective sample size of each column, shape (K,)."""
    return np.minimum(weights.sum(axis=0), effective_images(weights))


def membership_of_weights(
    weights: NDArray, z: NDArray, share: NDArray | None = None, source: str = "given"
) -> StateMembership:
    """Complete given weights: a prior's states, or the user's own.

    Parameters
    ----------
    weights : ndarray, shape (N, K)
        0 to 1; rows add up to 1 or less.
    z : ndarray, shape (N, d)
        Posterior means, in the same order.
    share : ndarray, shape (K,), optional
        Populations; the mean weights by default.
    source : str
        Where they come from.

    Returns
    -------
    StateMembership
        A state's representative is the particle nearest to its centre among the half that belongs to it most
        surely.
    """
    weights, z = np.asarray(weights, dtype=np.float64), np.asarray(z, dtype=np.float64)
    weights = np.where(weights < _NEGLIGIBLE, 0.0, weights)
    total = np.maximum(weights.sum(axis=0), 1e-300)
    centre = weights.T @ z / total[:, None]
    particle = np.empty(weights.shape[1], dtype=np.int64)
    scale = np.maximum(z.std(axis=0), 1e-12)
    for k, column in enumerate(weights.T):
        sure = np.flatnonzero(column >= 0.5 * column.max(initial=0.0))
        particle[k] = sure[np.square((z[sure] - centre[k]) / scale).sum(axis=1).argmin()]
    return StateMembership(
        weights,
        tuple(f"state_{k + 1}" for k in range(len(particle))),
        weights.mean(axis=0) if share is None else np.asarray(share, dtype=np.float64),
        centre,
        particle,
        z[particle],
        source,
    )


def find_states(run: Run, n_states: int | None = None, seed: int = 0) -> StateMembership:
    """States of a run: components of the deconvolved mixture of its latent codes.

    The mixture (`deconvolution.fit_deconvolved`) is fitted to what the images say of the codes with every
    particle's own error, so a particle whose posterior spans two states is shared between them. It starts
    from groups of the decoded structures, whose distances are in Angstrom, or of the codes where the run has
    no structures. States are ordered by their share, the largest first.

    Parameters
    ----------
    run : Run
        With an embedding.
    n_states : int, optional
        How many; by default the number from 1 to 8 with the smallest Bayesian information criterion, among
        those that leave every state enough images for a map.
    seed : int
        Of the groups.

    Returns
    -------
    StateMembership

    Raises
    ------
    InputError
        No embedding, fewer than one state asked for, or more than the particles can be divided into.
    """
    z, z_sd = posterior(run.embedding, run.path)
    most = int(len(z) // SMALLEST_STATE)
    if n_states is not None and not 1 <= n_states <= most:
        raise InputError(
            f"{n_states} states of {len(z)} particles cannot be made",
            file=run.path,
            remedy=f"Give --states a number from 1 to {max(1, most)}.",
        )
    features = (
        decoded_motion(run, z, n_components=3, seed=seed).components.scores
        if run.has_structures
        else latent_components(z).scores
    )
    measured = measurements(z, z_sd)
    sizes = range(1, max(1, min(LARGEST, most)) + 1) if n_states is None else (n_states,)
    best: tuple[float, DeconvolvedMixture, NDArray[np.float64]] | None = None
    worse = 0
    for k in sizes:
        mixture = _fit(measured, features, k, seed)
        weights = mixture.responsibilities(measured.value, measured.variance)
        crowded = len(mixture.weight) == k and images_held(weights).min() >= SMALLEST_STATE
        if n_states is not None and not crowded:
            raise InputError(
                f"the particles do not divide into {k} states: one of them would hold fewer than "
                f"{SMALLEST_STATE:.0f} images",
                file=run.path,
                remedy="Ask for fewer states, or leave --states out.",
            )
        worse = 0 if best is None or mixture.bic < best[0] else worse + 1
        if worse > _PATIENCE:
            break
        if crowded and worse == 0:
            best = mixture.bic, mixture, weights
    if best is None:
        raise InputError(
            f"{len(z)} particles are too few for a map", file=run.path, remedy="Embed more particles."
        )
    _, mixture, weights = best
    order = np.argsort(-mixture.weight, kind="stable")
    return membership_of_weights(
        weights[:, order], z, mixture.weight[order], "deconvolved mixture of the latent codes"
    )


def _fit(measured: Measurements, features: NDArray, k: int, seed: int) -> DeconvolvedMixture:
    rows = np.arange(len(features))
    if len(rows) > _FIT_LIMIT:
        rows = np.random.default_rng(seed).choice(len(rows), _FIT_LIMIT, replace=False)
    start = cluster_particles(features[rows], k, seed).label.astype(np.int64)
    return fit_deconvolved(measured.value[rows], measured.variance[rows], start)


def read_weights(path: str | PathLike[str], run: Run) -> StateMembership:
    """Memberships from a file of the user's own.

    Parameters
    ----------
    path : path
        A `.npy` array of shape (N, K): the weight of every particle of the run's embedding, in its order, in
        every state.
    run : Run
        With an embedding of N particles.

    Returns
    -------
    StateMembership
        States in the order of the columns.

    Raises
    ------
    InputError
        The file is no such array.
    """
    z, _ = posterior(run.embedding, run.path)
    form = f"Give a .npy array of {len(z)} rows (the particles, in their order) and a column for each state."
    try:
        weights = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"the weights cannot be read ({error})", file=path, remedy=form) from error
    if not isinstance(weights, np.ndarray) or weights.ndim != 2 or weights.dtype.kind not in "fiub":
        raise InputError("this is not a table of weights", file=path, remedy=form)
    if len(weights) != len(z) or weights.shape[1] < 1:
        raise InputError(f"the weights have the shape {weights.shape}", file=path, remedy=form)
    weights = weights.astype(np.float64)
    bad = ~np.isfinite(weights).all(axis=1) | (weights < 0).any(axis=1) | (weights.sum(axis=1) > 1 + 1e-4)
    if bad.any():
        row = int(bad.argmax())
        raise InputError(
            f"the weights {np.array2string(weights[row], precision=3)} are not probabilities",
            file=path,
            row=row + 1,
            remedy="Give every particle weights of 0 or more that add up to 1 at most.",
        )
    held = images_held(weights)
    if held.min() < SMALLEST_STATE:
        raise InputError(
            f"state {int(held.argmin()) + 1} holds {held.min():.0f} images: too few for a map",
            file=path,
            remedy="Leave its column out, or join it with another.",
        )
    return membership_of_weights(weights, z, source=str(path))
