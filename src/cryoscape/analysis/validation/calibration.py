"""Do the intervals of populations cover? A parametric bootstrap with the decoder frozen.

Images are drawn from the fitted populations, populations are fitted again with their bootstrap, and the
intervals are asked whether they hold what was put in. For an image of structure c, with whitened projections
y_k and white noise, ln p(x | V_k) = y_c.y_k - |y_k|^2 / 2 + e_k with e normal of covariance y_j.y_k. So the
products of an image's projections are all that is needed to draw its row of the table, as often as wanted.
Poses, transfer functions, gain and noise are those of the particles.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import binom
from torch import Tensor

from cryoscape.analysis.populations.ensemble_weights import fit_weights
from cryoscape.analysis.validation.nats import need_nats
from cryoscape.analysis.validation.results import Check, Status
from cryoscape.analysis.validation.simulated_images import ImageSource
from cryoscape.models.decoders.base import Scene
from cryoscape.models.likelihoods import GaussianLikelihood
from cryoscape.progress import ProgressReporter, reporter_or_silent

Array = NDArray[np.float64]

LEVELS = (0.5, 0.9, 0.95)
REPEATS = 50
"""Data sets; a coverage of 95 % then has an error of 3 %."""

UNLIKELY = 0.01
"""Chance below which a coverage of 95 % intervals is too low to be one of 95 %."""

_BATCH = 64


@dataclass(frozen=True, eq=False)
class Products:
    """Products of whitened projections of n images in K structures, less their mean over the structures.

    Attributes
    ----------
    gram : ndarray, shape (n, K, K)
        Nats.
    root : ndarray, shape (n, K, K)
        A matrix whose square, root root^T, is the gram.
    """

    gram: Array
    root: Array

    def of(self, count: int) -> Products:
        """The same of the first structures alone."""
        return Products.of_gram(self.gram[:, :count, :count])

    @classmethod
    def of_gram(cls, gram: Array) -> Products:
        """Products with their root."""
        value, vector = np.linalg.eigh(gram)
        return cls(gram, vector * np.sqrt(np.maximum(value, 0.0))[:, None])

    def draw(self, structure: NDArray[np.int64], rng: np.random.Generator) -> Array:
        """Table (n, K) of images of these structures (n,), nats, up to a constant for each image."""
        expected = self.gram[np.arange(len(structure)), structure] - 0.5 * np.einsum("nkk->nk", self.gram)
        noise = rng.standard_normal(expected.shape)
        return expected + np.einsum("nkj,nj->nk", self.root, noise)


@torch.no_grad()
def projection_products(
    likelihood: GaussianLikelihood,
    scenes: Sequence[Scene],
    images: ImageSource,
    rows: Tensor,
    *,
    progress: ProgressReporter | None = None,
) -> Products:
    """Products of the projections of scenes of one object each in the poses of some particles.

    Parameters
    ----------
    likelihood : GaussianLikelihood
    scenes : sequence of Scene, length K
    images : callable
        Batches of rows (B,); the images themselves are not used.
    rows : Tensor, shape (n,), int64
    progress : ProgressReporter, optional

    Returns
    -------
    Products

    Raises
    ------
    InputError
        If the likelihood is not in nats.
    """
    need_nats(likelihood)
    n, k = len(rows), len(scenes)
    gram = np.empty((n, k, k))
    with reporter_or_silent(progress).task("products of projections", n, "images") as task:
        for start in range(0, n, _BATCH):
            batch = images(rows[start : start + _BATCH])
            scale = likelihood.transfer(batch.ctf, batch.group)
            scale = scale * (likelihood.weights / likelihood.noise[:, likelihood.shells]).sqrt()[batch.group]
            seen = [s.project(batch.rotations, likelihood.box, likelihood.pixel_size) * scale for s in scenes]
            white = torch.stack([torch.view_as_real(one).flatten(1) for one in seen], dim=1)
            # Structures share most of their projection; without it no digits are lost.
            apart = (white - white.mean(1, keepdim=True)).double()
            gram[start : start + len(batch.rows)] = (apart @ apart.transpose(1, 2)).numpy()
            task.advance(len(batch.rows))
    return Products.of_gram(gram)


@dataclass(frozen=True, eq=False)
class Coverage:
    """How often intervals hold the truth, of q quantities.

    Attributes
    ----------
    truth : ndarray, shape (q,)
    covered : ndarray, shape (q, 3)
        Share of data sets whose 50, 90 and 95 % interval holds it.
    covered_error : ndarray, shape (q, 3)
        Binomial standard error, of the nominal level.
    bias, bias_error : ndarray, shape (q,)
        Mean of the estimates less the truth, and its standard error.
    width : ndarray, shape (q,)
        Mean of the 95 % intervals'.
    repeats : int
    """

    truth: Array
    covered: Array
    covered_error: Array
    bias: Array
    bias_error: Array
    width: Array
    repeats: int

    @property
    def chance(self) -> Array:
        """Chance of so few 95 % intervals that hold the truth, if they were right, shape (q,)."""
        hits = np.round(self.covered[:, -1] * self.repeats)
        return binom.cdf(hits, self.repeats, LEVELS[-1])

    def as_values(self) -> dict[str, object]:
        """Everything by name, for a record."""
        names = ("truth", "covered", "covered_error", "bias", "bias_error", "width", "chance", "repeats")
        return {name: getattr(self, name) for name in names}


def coverage_of(truth: Array, estimates: Array, resampled: Array) -> Coverage:
    """Coverage of percentile intervals.

    Parameters
    ----------
    truth : ndarray, shape (q,)
    estimates : ndarray, shape (R, q)
    resampled : ndarray, shape (R, B, q)
        Bootstrap of each estimate.

    Returns
    -------
    Coverage
    """
    repeats = len(estimates)
    covered = []
    for level in LEVELS:
        low, high = np.quantile(resampled, [0.5 - level / 2, 0.5 + level / 2], axis=1)
        covered.append(((low <= truth) & (truth <= high)).mean(axis=0))
    nominal = np.array(LEVELS)
    error = np.broadcast_to(np.sqrt(nominal * (1 - nominal) / repeats), (len(truth), len(LEVELS)))
    off = estimates - truth
    spread = off.std(axis=0, ddof=1) / np.sqrt(repeats)
    return Coverage(
        truth, np.stack(covered, axis=-1), error, off.mean(axis=0), spread, (high - low).mean(axis=0), repeats
    )


def population_coverage(
    products: Products,
    weight: Array,
    member: NDArray,
    *,
    repeats: int = REPEATS,
    resamples: int = 100,
    seed: int = 0,
    progress: ProgressReporter | None = None,
) -> tuple[Coverage, Coverage | None]:
    """Coverage of populations of states and of the free energies between them.

    Parameters
    ----------
    products : Products
        Of n images and K structures.
    weight : ndarray, shape (K,)
        Fitted populations, which are the truth of the drawn images.
    member : ndarray, shape (K, S)
        Which structures make up each state, by share.
    repeats : int
        R, data sets.
    resamples : int
        Bootstrap fits of each.
    seed : int
    progress : ProgressReporter, optional

    Returns
    -------
    populations : Coverage
        Of the S states.
    free_energies : Coverage or None
        Of states 1 .. S - 1 over the first, -ln of the ratio, kT; None for one state or an empty one.
    """
    rng = np.random.default_rng(seed)
    true = np.maximum(np.asarray(weight, dtype=np.float64), 0.0)
    true = true / true.sum()
    member = np.asarray(member, dtype=np.float64)
    found, again = [], []
    with reporter_or_silent(progress).task("drawn data sets", repeats, "sets") as task:
        for repeat in range(repeats):
            structure = rng.choice(len(true), len(products.gram), p=true)
            fit = fit_weights(products.draw(structure, rng), resamples=resamples, seed=seed + repeat)
            found.append(fit.weight @ member)
            again.append(fit.resampled @ member)
            task.advance()
    estimates, resampled, truth = np.array(found), np.array(again), true @ member
    populations = coverage_of(truth, estimates, resampled)
    if member.shape[1] < 2 or truth.min() <= 0:
        return populations, None
    # A state that a resample leaves empty is rarer than half an image.
    floor = 0.5 / len(products.gram)
    energies = [-_log_ratio(np.maximum(x, floor)) for x in (truth, estimates, resampled)]
    return populations, coverage_of(*energies)


def _log_ratio(population: Array) -> Array:
    """ln(p_s / p_0) of all states but the first, along the last axis."""
    return np.log(population[..., 1:] / population[..., :1])


def calibration_check(populations: Coverage, free_energies: Coverage | None, images: int) -> Check:
    """Coverage as a check.

    Parameters
    ----------
    populations : Coverage
    free_energies : Coverage or None
    images : int
        In each data set.

    Returns
    -------
    Check
        Passed where no state's 95 % intervals miss the truth more often than chance (1 in 100) allows.
    """
    sets = [populations] if free_energies is None else [populations, free_energies]
    status = Status.PASSED if all(one.chance.min() >= UNLIKELY for one in sets) else Status.FAILED
    worst = int(populations.covered[:, -1].argmin())
    inside = ", ".join(
        f"{share:.0%} of {level:.0%}" for share, level in zip(populations.covered[worst], LEVELS)
    )
    text = (
        f"In {populations.repeats} sets of {images} images drawn from the fitted populations, intervals of "
        f"the state of {populations.truth[worst]:.3f} hold it {inside}; its bias is "
        f"{populations.bias[worst]:+.4f} +- {populations.bias_error[worst]:.4f}"
    )
    if free_energies is not None:
        energy = int(free_energies.covered[:, -1].argmin())
        text += (
            f", that of the free energy {free_energies.bias[energy]:+.3f} +- "
            f"{free_energies.bias_error[energy]:.3f} kT"
        )
    values = {
        "populations": populations.as_values(),
        "free_energies": None if free_energies is None else free_energies.as_values(),
        "levels": LEVELS,
        "images": images,
    }
    return Check(11, "calibration", status, f"{text}.", values)
