"""Groups of particles after training: k-means with real representatives, Gaussian mixtures with BIC.

These describe the cloud of posterior means. Their shares are counts of blurred points, not populations.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cryoscape.errors import InputError

_EXACT_KMEANS = 100_000
_FIT_LIMIT = 20_000


@dataclass(frozen=True)
class Clusters:
    """Groups of particles, ordered along the first component.

    Parameters
    ----------
    label : ndarray, shape (n,), int
        Group of each particle, from 0.
    count : ndarray, shape (k,), int
        Particles in each group.
    particle : ndarray, shape (k,), int
        The representative (row of the embedding): the particle nearest to the group's centre.
    radius : ndarray, shape (k,)
        Root mean square distance of the group's particles from its centre, in the features' unit.
    """

    label: NDArray[np.int32]
    count: NDArray[np.int64]
    particle: NDArray[np.int64]
    radius: NDArray[np.float64]


@dataclass(frozen=True)
class Mixture:
    """A Gaussian mixture whose size the Bayesian information criterion chose.

    Parameters
    ----------
    sizes : ndarray, shape (m,), int
        Numbers of components tried.
    bic : ndarray, shape (m,)
        Bayesian information criterion of each; the smallest wins.
    weight : ndarray, shape (K,)
        Weights of the chosen mixture's components, ordered along the first feature.
    mean : ndarray, shape (K, d)
        Their means.
    label : ndarray, shape (n,), int
        The most probable component of each particle.
    certainty : ndarray, shape (n,)
        Its probability.
    """

    sizes: NDArray[np.int64]
    bic: NDArray[np.float64]
    weight: NDArray[np.float64]
    mean: NDArray[np.float64]
    label: NDArray[np.int32]
    certainty: NDArray[np.float32]


def cluster_particles(features: NDArray, n_clusters: int = 6, seed: int = 0) -> Clusters:
    """K-means with the nearest real particle as each group's representative.

    Parameters
    ----------
    features : ndarray, shape (n, f)
        Coordinates of the particles, best in A (Cartesian components), so that distances mean something.
    n_clusters : int
        Groups wanted; fewer come back when there are fewer distinct particles.
    seed : int
        Of the starting centres.

    Returns
    -------
    Clusters

    Raises
    ------
    InputError
        No particle, or fewer than one group asked for.
    """
    from sklearn.cluster import KMeans, MiniBatchKMeans

    if n_clusters < 1 or len(features) == 0:
        raise InputError(
            f"{n_clusters} clusters of {len(features)} particles cannot be made",
            remedy="Ask for at least one cluster of at least one particle.",
        )
    features = np.asarray(features, dtype=np.float64)
    probe = features[np.random.default_rng(seed).permutation(len(features))[:2000]]
    n_clusters = min(n_clusters, len(np.unique(np.round(probe, 6), axis=0)))
    kind = KMeans if len(features) <= _EXACT_KMEANS else MiniBatchKMeans
    fit = kind(n_clusters, n_init=4, random_state=seed).fit(features)
    distance = np.linalg.norm(features - fit.cluster_centers_[fit.labels_], axis=1)

    order = np.argsort(fit.cluster_centers_[:, 0], kind="stable")
    rank = np.empty(n_clusters, dtype=np.int32)
    rank[order] = np.arange(n_clusters)
    label = rank[fit.labels_]
    members = [np.flatnonzero(label == k) for k in range(n_clusters)]
    return Clusters(
        label=label,
        count=np.array([len(rows) for rows in members]),
        particle=np.array([rows[distance[rows].argmin()] for rows in members]),
        radius=np.array([np.sqrt(np.mean(distance[rows] ** 2)) for rows in members]),
    )


def fit_mixture(points: NDArray, largest: int = 8, seed: int = 0) -> Mixture:
    """Gaussian mixtures of 1 to `largest` components; the smallest BIC wins.

    Directions without variance are left out of the fit. Fitted to at most 20,000 particles.

    Parameters
    ----------
    points : ndarray, shape (n, d)
        Latent codes along their principal axes, the largest variance first.
    largest : int
        The largest number of components to try.
    seed : int
        Of the starts and of the sample.

    Returns
    -------
    Mixture
        `mean` in the units of `points`.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    points = np.asarray(points, dtype=np.float64)
    scale = points.std(axis=0)
    live = scale > max(1e-3 * scale.max(), 1e-9)
    n = len(points)
    if not live.any() or n < 4:
        label = np.zeros(n, dtype=np.int32)
        mean = points.mean(axis=0, keepdims=True)
        return Mixture(np.array([1]), np.zeros(1), np.ones(1), mean, label, np.ones(n, dtype=np.float32))
    unit = points[:, live] / scale[live]
    part = unit
    if n > _FIT_LIMIT:
        part = unit[np.random.default_rng(seed).choice(n, _FIT_LIMIT, replace=False)]
    # A full covariance needs a few particles for each of its entries, or BIC chases single points.
    sizes = np.arange(1, max(1, min(largest, len(part) // (5 * (unit.shape[1] + 1)))) + 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        fits = [GaussianMixture(int(k), reg_covar=1e-4, random_state=seed).fit(part) for k in sizes]
    bic = np.array([fit.bic(part) for fit in fits])
    best = fits[int(bic.argmin())]
    order = np.argsort(best.means_[:, 0], kind="stable")
    probability = best.predict_proba(unit)[:, order]
    mean = np.tile(points.mean(axis=0), (len(order), 1))
    mean[:, live] = best.means_[order] * scale[live]
    label = probability.argmax(axis=1).astype(np.int32)
    return Mixture(sizes, bic, best.weights_[order], mean, label, probability.max(axis=1).astype(np.float32))


def umap_layout(z: NDArray, seed: int = 0) -> NDArray[np.float32]:
    """Two-dimensional UMAP of latent codes (an optional extra; distances in it are not faithful).

    Parameters
    ----------
    z : ndarray, shape (n, d)
        Latent codes.
    seed : int
        Of the layout.

    Returns
    -------
    ndarray, shape (n, 2), float32

    Raises
    ------
    InputError
        The extra is not installed, or there are fewer than four particles.
    """
    try:
        from umap import UMAP
    except ImportError:
        raise InputError(
            "the UMAP map needs a package that is not installed",
            remedy="Run: pip install 'cryoscape[umap]', or leave the UMAP map out.",
        ) from None
    if len(z) < 4:
        raise InputError(f"a UMAP map of {len(z)} particles cannot be made", remedy="Leave the UMAP map out.")
    with warnings.catch_warnings():
        # A seeded layout is single-threaded, which UMAP announces every time.
        warnings.simplefilter("ignore", UserWarning)
        layout = UMAP(n_neighbors=min(15, len(z) - 1), random_state=seed).fit_transform(np.asarray(z))
    return np.asarray(layout, dtype=np.float32)
