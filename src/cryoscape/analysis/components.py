"""Principal components of the latent codes and of the decoded structures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from os import PathLike
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cryoscape.errors import InputError

if TYPE_CHECKING:
    from cryoscape.training.embedding import Embedding
    from cryoscape.training.run import Run

# Decoded structures held at once; a 13,000-residue complex then goes through in chunks of some 400.
_CHUNK_BYTES = 64_000_000
# The sample that fits the components; every particle is projected on them afterwards.
_FIT_BYTES = 160_000_000
_FIT_PARTICLES = 3000


@dataclass(frozen=True)
class PrincipalComponents:
    """Principal components of a cloud of points.

    Parameters
    ----------
    mean : ndarray, shape (d,)
        Centre of the cloud.
    axes : ndarray, shape (k, d)
        Orthonormal axes, the largest variance first. Rows are zero where no variance is left.
    variance : ndarray, shape (k,)
        Variance along each axis.
    total_variance : float
        Variance over all d directions.
    scores : ndarray, shape (n, k)
        Coordinates of every particle along the axes.
    """

    mean: NDArray[np.float64]
    axes: NDArray[np.float64]
    variance: NDArray[np.float64]
    total_variance: float
    scores: NDArray[np.float32]

    @property
    def explained(self) -> NDArray[np.float64]:
        """Fraction of the total variance along each axis, shape (k,); zeros for a single point."""
        return (
            self.variance / self.total_variance if self.total_variance > 0 else np.zeros_like(self.variance)
        )


@dataclass(frozen=True)
class Motion:
    """How the decoded structures differ from one another, in Angstrom and without superposition.

    Parameters
    ----------
    components : PrincipalComponents
        Cartesian components. Scores are rms displacements over all residues in A, so a score of 2
        means that the structure lies 2 A rmsd from the mean along that axis.
    mean_structure : ndarray, shape (N, 3)
        Mean of the decoded structures, A, in the frame of the model file.
    rmsf : ndarray, shape (N,)
        Root mean square fluctuation of each residue over all particles, A.
    """

    components: PrincipalComponents
    mean_structure: NDArray[np.float64]
    rmsf: NDArray[np.float64]

    @property
    def spread(self) -> float:
        """Root mean square distance from the mean structure over particles and residues, A."""
        return float(np.sqrt(np.mean(self.rmsf**2)))


def posterior(
    embedding: Embedding, path: str | PathLike[str]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Means and widths of the latent codes, refusing what no analysis can use.

    Parameters
    ----------
    embedding : Embedding
        Of n particles.
    path : path
        The run, for the message.

    Returns
    -------
    z, z_sd : ndarray, shape (n, d)

    Raises
    ------
    InputError
        A code is not finite.
    """
    z, z_sd = np.asarray(embedding.z, dtype=np.float64), np.asarray(embedding.z_sd, dtype=np.float64)
    bad = ~(np.isfinite(z).all(axis=1) & np.isfinite(z_sd).all(axis=1))
    if bad.any():
        raise InputError(
            f"the latent codes of {int(bad.sum())} of {len(z)} particles are not finite: training diverged",
            file=path,
            remedy="Train again with a smaller learning rate, or look for broken images: cryoscape check.",
        )
    return z, z_sd


def decode_in_chunks(run: Run, z: NDArray) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    """Decode many latent codes in bounded memory.

    Parameters
    ----------
    run : Run
        The trained run; its `decode` gives coordinates in the frame of the model file.
    z : ndarray, shape (n, d)
        Latent codes.

    Yields
    ------
    slice
        Which rows of `z`.
    ndarray, shape (m, N, 3), float32
        Their structures, A.
    """
    size = int(np.clip(_CHUNK_BYTES // (12 * len(run.structure)), 1, 2048))
    for start in range(0, len(z), size):
        rows = slice(start, min(start + size, len(z)))
        yield rows, np.asarray(run.decode(z[rows]), dtype=np.float32)


def latent_components(z: NDArray) -> PrincipalComponents:
    """Principal components of the posterior means.

    Parameters
    ----------
    z : ndarray, shape (n, d)
        Posterior means.

    Returns
    -------
    PrincipalComponents
        With all d axes.
    """
    z = np.asarray(z, dtype=np.float64)
    mean, axes, variance, total = fit_components(z, z.shape[1])
    return PrincipalComponents(mean, axes, variance, total, ((z - mean) @ axes.T).astype(np.float32))


def decoded_motion(run: Run, z: NDArray, n_components: int = 5, seed: int = 0) -> Motion:
    """Principal components and fluctuations of the decoded structures.

    The components are fitted to a seeded sample of at most 3,000 particles (fewer for large complexes);
    means, fluctuations and scores use every particle. The structures share the frame of the poses and are
    not superposed: a superposition would spread the motion of one domain over the whole molecule.

    Parameters
    ----------
    run : Run
        A run with an atomic decoder.
    z : ndarray, shape (n, d)
        Posterior means.
    n_components : int
        How many axes to keep.
    seed : int
        Of the sample.

    Returns
    -------
    Motion
    """
    n_residues = len(run.structure)
    sample = _sample(len(z), int(np.clip(_FIT_BYTES // (12 * n_residues), 50, _FIT_PARTICLES)), seed)
    cloud = np.empty((len(sample), 3 * n_residues), dtype=np.float32)
    for rows, coords in decode_in_chunks(run, z[sample]):
        cloud[rows] = coords.reshape(len(coords), -1)
    # Dividing by sqrt(N) turns Euclidean lengths in 3N dimensions into rms displacements a residue.
    scale = 1 / np.sqrt(n_residues)
    centre, axes, variance, total = fit_components(cloud, n_components)
    del cloud

    scores = np.empty((len(z), len(axes)), dtype=np.float32)
    first, second = np.zeros((n_residues, 3)), np.zeros((n_residues, 3))
    for rows, coords in decode_in_chunks(run, z):
        shift = coords.reshape(len(coords), -1).astype(np.float64) - centre
        scores[rows] = shift @ axes.T * scale
        shift = shift.reshape(len(coords), n_residues, 3)
        first += shift.sum(axis=0)
        second += (shift**2).sum(axis=0)
    offset = first / len(z)
    rmsf = np.sqrt(np.clip(second / len(z) - offset**2, 0, None).sum(axis=1))
    components = PrincipalComponents(centre, axes, variance * scale**2, total * scale**2, scores)
    return Motion(components, centre.reshape(n_residues, 3) + offset, rmsf)


def _sample(n: int, limit: int, seed: int) -> NDArray[np.int64]:
    if n <= limit:
        return np.arange(n)
    return np.sort(np.random.default_rng(seed).choice(n, limit, replace=False))


def fit_components(points: NDArray, k: int) -> tuple[NDArray, NDArray, NDArray, float]:
    """Principal components through the smaller of the two Gram matrices.

    Parameters
    ----------
    points : ndarray, shape (n, d)
        The cloud.
    k : int
        Axes to keep, at most.

    Returns
    -------
    mean : ndarray, shape (d,)
    axes : ndarray, shape (k, d)
        Orthonormal, the largest entry of each positive; zero where no variance is left.
    variance : ndarray, shape (k,)
    total : float
        Variance over all d directions.
    """
    mean = points.mean(axis=0, dtype=np.float64)
    centred = points - mean.astype(points.dtype)
    n, d = centred.shape
    k = min(k, d)
    if d <= n:
        gram = _gram(centred.T) / n
        values, vectors = np.linalg.eigh(gram)
        axes = vectors.T[::-1][:k]
    else:
        gram = _gram(centred) / n
        values, vectors = np.linalg.eigh(gram)
        axes = vectors.T[::-1][:k] @ centred
        axes = axes / np.maximum(np.linalg.norm(axes, axis=1, keepdims=True), 1e-30)
    total, values = float(np.trace(gram)), values[::-1][:k]
    k = len(values)
    variance, kept = np.zeros(k), np.zeros((k, d))
    # Round-off of coordinates hundreds of A from the origin is no motion.
    floor = max(1e-10 * total, d * (1e-7 * float(np.abs(mean).max(initial=0.0))) ** 2)
    real = np.flatnonzero(values > floor)
    variance[real], kept[real] = values[real], axes[real]
    # An axis has no sign of its own; the largest entry positive makes runs comparable.
    largest = np.take_along_axis(kept, np.abs(kept).argmax(axis=1)[:, None], axis=1)
    return mean, kept * np.where(largest < 0, -1.0, 1.0), variance, max(total, 0.0)


def _gram(rows: NDArray) -> NDArray[np.float64]:
    """`rows @ rows.T` in double precision without a second copy of the rows."""
    out = np.zeros((len(rows), len(rows)))
    for start in range(0, rows.shape[1], 1024):
        block = rows[:, start : start + 1024].astype(np.float64)
        out += block @ block.T
    return out
