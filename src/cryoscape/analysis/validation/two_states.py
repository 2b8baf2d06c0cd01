"""The main motion of a run as an axis that its retrainings share, and the population on either side of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from cryoscape.analysis.components import fit_components
from cryoscape.analysis.populations.ensemble_weights import RESAMPLES, fit_weights, resampling_groups
from cryoscape.analysis.populations.likelihood_table import CANDIDATES, candidate_codes, image_table
from cryoscape.progress import ProgressReporter
from cryoscape.training.run import Run

Array = NDArray[np.float64]

MOST_IMAGES = 20_000
"""Images behind a population, at most."""

_BYTES = 64_000_000
_MOST_DECODED = 3000


def decode_flat(run: Run, z: NDArray) -> NDArray[np.float32]:
    """What codes (n, d) decode to, one a row: coordinates in A, or the voxels of maps."""
    objects = run.decode(z) if run.has_structures else run.decode_maps(z)
    return objects.reshape(len(z), -1)


def some_rows(run: Run, n: int) -> NDArray[np.int64]:
    """Evenly spread rows out of n, as many as can be decoded at once."""
    size = 12 * len(run.structure) if run.has_structures else 4 * run.geometry.box**3
    count = min(n, int(np.clip(_BYTES // size, 16, _MOST_DECODED)))
    return np.unique(np.linspace(0, n - 1, count).round().astype(np.int64))


def length_unit(run: Run, mean: NDArray) -> float:
    """Length of a flat displacement that counts as 1: 1 A rms over the residues; that of the mean map."""
    if run.has_structures:
        return float(np.sqrt(len(mean) / 3))
    return max(float(np.linalg.norm(mean)), 1e-30)


def least_motion(run: Run) -> float:
    """Rms, in these units, below which nothing moves."""
    return 0.1 if run.has_structures else 0.02


@dataclass(frozen=True, eq=False)
class MainMotion:
    """An axis in the space of structures or maps.

    Attributes
    ----------
    centre : ndarray, shape (P,)
        Mean of what the run decodes; the two states lie on its two sides.
    axis : ndarray, shape (P,)
        Of unit length.
    moves : bool
        Whether what the run decodes varies along it by more than `least_motion`.
    """

    centre: Array
    axis: Array
    moves: bool

    def scores(self, run: Run, z: NDArray) -> Array:
        """Where codes (n, d) of a run, or of a retraining of it, lie along the axis, shape (n,).

        Rms displacement over the residues in A; of maps in units of the mean map.
        """
        away = decode_flat(run, z).astype(np.float64) - self.centre
        return away @ self.axis / length_unit(run, self.centre)


def main_motion(run: Run, axis: NDArray | None = None) -> MainMotion:
    """Main motion of a run.

    Parameters
    ----------
    run : Run
        With an embedding.
    axis : ndarray, shape (P,), optional
        By default the first principal component of what the posterior means decode to.
    """
    z = run.embedding.z
    points = decode_flat(run, z[some_rows(run, len(z))])
    if axis is None:
        centre, axes, _, _ = fit_components(points, 1)
        unit = axes[0]
    else:
        centre = points.mean(axis=0, dtype=np.float64)
        unit = np.asarray(axis, dtype=np.float64).ravel()
        if len(unit) != len(centre):
            raise ValueError(f"the axis has {len(unit)} numbers, what is decoded {len(centre)}")
        unit = unit / max(float(np.linalg.norm(unit)), 1e-30)
    spread = float(((points - centre) @ unit).std()) / length_unit(run, centre)
    return MainMotion(centre, unit, spread > least_motion(run))


@dataclass(frozen=True, eq=False)
class Population:
    """Population on the positive side of the main motion.

    Attributes
    ----------
    upper : float
    resampled : ndarray, shape (R,)
        Of images drawn again with replacement, by micrograph where there are enough.
    """

    upper: float
    resampled: Array

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Percentile interval of the bootstrap."""
        low, high = np.quantile(self.resampled, [0.5 - 0.5 * level, 0.5 + 0.5 * level])
        return float(low), float(high)

    def covers(self, value: float, level: float) -> bool:
        """Whether a population lies in the interval, the best estimate counted in."""
        low, high = self.interval(level)
        return min(low, self.upper) <= value <= max(high, self.upper)

    def change_to(self, other: Population, level: float = 0.95) -> tuple[float, float, float]:
        """How much larger another is: estimate, and joint interval of the two as if they were independent.

        On the same images, where they are not, it is wider than that of the change.
        """
        pairs = other.resampled[:, None] - self.resampled
        low, high = np.quantile(pairs, [0.5 - 0.5 * level, 0.5 + 0.5 * level])
        change = other.upper - self.upper
        return change, min(float(low), change), max(float(high), change)

    def to_dict(self) -> dict[str, object]:
        """For a report."""
        return {"upper": self.upper, "interval": self.interval()}


def upper_population(
    run: Run,
    motion: MainMotion,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
    progress: ProgressReporter | None = None,
) -> Population:
    """Population on the positive side of a main motion, by a run's own structures and images.

    Parameters
    ----------
    run : Run
        With an embedding, and its images at hand.
    motion : MainMotion
        Of this run or of the one that it is a retraining of.
    resamples : int
        R.
    seed : int
        Of candidates and bootstrap.
    progress : ProgressReporter, optional
    """
    z = candidate_codes(run, CANDIDATES, seed)
    images, decoder = run.images(), run.image_model.decoder
    count = min(len(images), MOST_IMAGES)
    rows = np.unique(np.linspace(0, len(images) - 1, count).round().astype(np.int64))
    with torch.no_grad():
        scenes = [decoder(one[None]) for one in torch.from_numpy(z)]
    table = image_table(
        run.image_model.likelihood, scenes, images.batch, torch.from_numpy(rows), progress=progress
    )
    groups = resampling_groups(run.particles.micrograph[rows])
    fit = fit_weights(table, groups=groups, resamples=resamples, seed=seed)
    upper = motion.scores(run, z) > 0
    return Population(float(fit.weight[upper].sum()), fit.resampled[:, upper].sum(axis=1))
