"""Uncertainty of decoded coordinates, and the B-factor column that shows it.

Everything here is a mean square displacement <|u|^2> of each residue, A^2, over all three axes. The column is
B = 8 pi^2 / 3 <|u|^2>, which is 8 pi^2 sd^2 for an isotropic displacement of standard deviation sd along each
axis: sd = sqrt(B / (8 pi^2)) is that of one coordinate, A.

Codes are propagated through the decoder as they are, without its linearisation. The draws are antithetic and
have unit covariance exactly, so that a linear decoder gives sum_j sd_j^2 |dr/dz_j|^2 exactly.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

if TYPE_CHECKING:
    from cryoscape.training.run import Run

B_PER_DISPLACEMENT = 8 * np.pi**2 / 3
"""B-factor of a mean square displacement of 1 A^2."""

DRAWS = 16
"""Structures decoded for one code; twice the dimensions of z where that is more."""

STATE_DRAWS = 64
"""Particles of a state whose structures tell its spread."""


def b_factors(displacement: NDArray) -> NDArray[np.float64]:
    """B-factors, A^2, of mean square displacements <|u|^2>, A^2."""
    return B_PER_DISPLACEMENT * np.asarray(displacement, dtype=np.float64)


def unit_draws(d: int, count: int, seed: int) -> NDArray[np.float64]:
    """Antithetic draws (n, d) of mean 0 and covariance I, both exact; n is `count` or 2 d, made even."""
    half = max(-(-count // 2), d)
    q, r = np.linalg.qr(np.random.default_rng(seed).standard_normal((half, d)))
    some = np.sqrt(half) * q * np.sign(np.diag(r))
    return np.concatenate([some, -some])


def posterior_displacement(
    run: Run, z: NDArray, z_sd: NDArray, draws: int = DRAWS, seed: int = 0
) -> NDArray[np.float32]:
    """Mean square displacement of each residue that the posterior of a code implies.

    Parameters
    ----------
    run : Run
        That decodes structures.
    z, z_sd : ndarray, shape (m, d)
        Mean and standard deviation of the codes; of bits the probabilities of 1, whose draws are bits.
    draws : int
        Structures decoded for each code.
    seed : int

    Returns
    -------
    ndarray, shape (m, N), float32
        <|u|^2> about the mean of the draws, A^2.
    """
    out = np.empty((len(z), len(run.structure)), dtype=np.float32)
    binary = _binary(run)
    unit = unit_draws(z.shape[1], draws, seed)
    rng = np.random.default_rng(seed)
    for i, (mean, sd) in enumerate(zip(z, z_sd)):
        codes = (rng.random((draws, len(mean))) < mean) if binary else mean + sd * unit
        coords = np.asarray(run.decode(codes.astype(np.float32)), dtype=np.float64)
        out[i] = coords.var(axis=0).sum(axis=-1)
    return out


def state_displacement(
    run: Run, z: NDArray, z_sd: NDArray, weights: NDArray, draws: int = STATE_DRAWS, seed: int = 0
) -> NDArray[np.float32]:
    """Mean square displacement of each residue within states: between their particles and within each.

    Parameters
    ----------
    run : Run
        That decodes structures.
    z, z_sd : ndarray, shape (n, d)
        Posteriors of the particles.
    weights : ndarray, shape (n, S)
        Probability of each state for every particle.
    draws : int
        Particles drawn for each state in proportion to these, one code from the posterior of each.
    seed : int

    Returns
    -------
    ndarray, shape (S, N), float32
        <|u|^2> about the mean structure of the state, A^2; 0 for a state without particles.
    """
    rng = np.random.default_rng(seed)
    out = np.zeros((weights.shape[1], len(run.structure)), dtype=np.float32)
    for s, column in enumerate(np.asarray(weights, dtype=np.float64).T):
        noise = rng.standard_normal((draws, z.shape[1]))
        uniform = rng.random(noise.shape)
        if column.sum() <= 0:
            continue
        # Evenly spaced in the cumulative weight: every particle comes as often as it should, within one.
        place = (np.arange(draws) + rng.random()) / draws * column.sum()
        rows = np.minimum(np.searchsorted(np.cumsum(column), place), len(column) - 1)
        codes = uniform < z[rows] if _binary(run) else z[rows] + z_sd[rows] * noise
        coords = np.asarray(run.decode(codes.astype(np.float32)), dtype=np.float64)
        out[s] = coords.var(axis=0).sum(axis=-1)
    return out


def member_displacement(coords: NDArray, weight: NDArray) -> NDArray[np.float64]:
    """Mean square displacement (N,) of K structures (K, N, 3) with weights (K,) about their mean, A^2."""
    share = np.asarray(weight, dtype=np.float64) / np.sum(weight)
    centred = coords - np.tensordot(share, coords, axes=1)
    return np.asarray(share @ np.square(centred).sum(axis=-1), dtype=np.float64)


def widths_of_codes(run: Run, z: NDArray) -> NDArray[np.float64] | None:
    """Posterior widths (m, d) for codes that are no particle's: those of the particle with the nearest code.

    How well an image tells a conformation differs along the motion; the nearest particle knows. None for a
    run without an embedding.

    Parameters
    ----------
    run : Run
    z : ndarray, shape (m, d)
    """
    from cryoscape.errors import InputError

    try:
        embedding = run.embedding
    except InputError:
        return None
    if embedding is None or not len(embedding.z):
        return None
    nearest = cKDTree(embedding.z).query(z)[1]
    return np.asarray(embedding.z_sd, dtype=np.float64)[nearest]


def _binary(run: Run) -> bool:
    return run.config.prior.support == "binary"
