"""Junk among the particles of a run, from the images alone: the encoder has no say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from cryoscape.analysis.junk.alike import alike_evidence
from cryoscape.analysis.junk.calibration import gaussian_start, refitted
from cryoscape.analysis.junk.displaced import displaced_evidence
from cryoscape.analysis.junk.false_discovery import call_junk
from cryoscape.analysis.junk.mixture import CLASSES, JunkMixture, fit_mixture
from cryoscape.analysis.junk.scan import projection_spectrum, scan_images
from cryoscape.analysis.junk.whiteness import residual_scores
from cryoscape.analysis.populations.ensemble_weights import RESAMPLES, resampling_groups
from cryoscape.analysis.populations.likelihood_table import CANDIDATES, candidate_codes
from cryoscape.data.images import BandImages
from cryoscape.errors import InputError
from cryoscape.progress import ProgressReporter, reporter_or_silent

if TYPE_CHECKING:
    from cryoscape.models.decoders.base import Scene
    from cryoscape.models.likelihoods import GaussianLikelihood
    from cryoscape.training.run import Run

Array = NDArray[np.float64]

RATE = 0.05
"""False discovery rate where the user names none."""

# Structures that fewer good particles have are not looked for elsewhere in the image.
_COMMON = 0.01
# Mean z-score of kept particles from which on their residuals are no noise.
_COLOURED = 1.0
# Standard deviations by which the mean strength must exceed 0, or an empty image is as good as a particle.
_CLEAR = 2.0


@dataclass(frozen=True, eq=False)
class Junk:
    """What was found about N particles.

    Attributes
    ----------
    uid, row : ndarray, shape (N,)
        The particles, and their rows in the table.
    mixture : JunkMixture
        Evidence, posterior and shares of the classes of `cryoscape.analysis.junk.mixture.CLASSES`.
    called : ndarray of bool, shape (N,)
        Those called junk.
    rate : float
        The false discovery rate that was asked for.
    residual_z : ndarray, shape (N,)
        Whiteness of what the best structure leaves: standard normal where that is noise.
    log_prior : ndarray, shape (N,)
        E_q log p(z) of the embedding, nats: the energy of the code under the population model, with the sign
        turned.
    structures : int
        That all images were compared with.
    groups : int
        Micrographs by which images were drawn again; 0 where it was one by one.
    warnings : tuple of str
    """

    uid: NDArray[np.uint64]
    row: NDArray[np.int64]
    mixture: JunkMixture
    called: NDArray[np.bool_]
    rate: float
    residual_z: Array
    log_prior: NDArray[np.float32]
    structures: int
    groups: int
    warnings: tuple[str, ...]

    @property
    def probability(self) -> Array:
        """Of being junk, shape (N,)."""
        return self.mixture.posterior[:, 1:].sum(axis=1)

    @property
    def kind(self) -> NDArray[np.str_]:
        """The most probable class of each particle, shape (N,)."""
        return np.array(CLASSES)[self.mixture.posterior.argmax(axis=1)]

    @property
    def log_odds(self) -> Array:
        """Log odds of junk over good, nats, shape (N,): the probability without its rounding to 0 and 1."""
        with np.errstate(divide="ignore"):
            joint = self.mixture.evidence + np.log(self.mixture.share)
        return np.logaddexp.reduce(joint[:, 1:], axis=1) - joint[:, 0]

    @property
    def share(self) -> tuple[float, float, float]:
        """Share of junk, and its 95 % interval."""
        junk = 1 - self.mixture.resampled[:, 0]
        low, high = np.quantile(junk, (0.025, 0.975))
        return float(1 - self.mixture.share[0]), float(low), float(high)


def find_junk(
    run: Run,
    *,
    rate: float = RATE,
    candidates: int = CANDIDATES,
    resamples: int = RESAMPLES,
    seed: int = 0,
    progress: ProgressReporter | None = None,
) -> Junk:
    """Weigh for every particle of a run whether it is one.

    Twice all images are compared with all structures; between, gain and noise are measured again from what
    the first time was probably good.

    Parameters
    ----------
    run : Run
        With an embedding, and its images at hand.
    rate : float
        Expected share of good particles among those called junk.
    candidates : int
        Structures that all images are compared with.
    resamples : int
        Fits behind the interval.
    seed : int
    progress : ProgressReporter, optional

    Returns
    -------
    Junk

    Raises
    ------
    InputError
        A number is out of range, there is no embedding, or it is of other particles.
    """
    _check(rate, candidates, resamples)
    embedding, particles = run.embedding, run.particles
    if not np.array_equal(particles.uid, embedding.uid):
        raise InputError(
            "the embedding is not of the particles of the run",
            file=run.path,
            remedy="Run: cryoscape embed RUN",
        )
    images = BandImages(particles, run.geometry.cutoff)
    images.prepare(progress)
    scenes = _scenes(run, candidates, seed)
    own = run.image_model.likelihood
    likelihood = gaussian_start(own, scenes[0], images)
    first = _fit(likelihood, scenes, images, None, resamples=0, progress=progress)
    likelihood = refitted(likelihood, scenes, images, first.best, first.amplitude, first.posterior[:, 0])
    groups = resampling_groups(particles.micrograph)
    mixture = _fit(
        likelihood, scenes, images, first,
        groups=groups, resamples=resamples, seed=seed, progress=progress,
    )  # fmt: skip
    called = call_junk(mixture.posterior[:, 0], rate)
    scores = residual_scores(likelihood, scenes, images, mixture.best, mixture.amplitude)
    return Junk(
        uid=particles.uid,
        row=particles.row,
        mixture=mixture,
        called=called,
        rate=rate,
        residual_z=scores,
        log_prior=embedding.log_prior,
        structures=len(scenes),
        groups=0 if groups is None else len(np.unique(groups)),
        warnings=_warnings(mixture, scores[~called], None if own.in_nats else run.config.likelihood.kind),
    )


def _check(rate: float, candidates: int, resamples: int) -> None:
    if not 0 < rate < 1:
        raise InputError(f"--fdr {rate:g} is no rate", remedy="Give a number between 0 and 1, such as 0.05.")
    for name, value, least in (("candidates", candidates, 1), ("resamples", resamples, 20)):
        if value < least:
            raise InputError(f"--{name} {value} is too few", remedy=f"Give {least} or more.")


@torch.no_grad()
def _scenes(run: Run, candidates: int, seed: int) -> list[Scene]:
    decoder = run.image_model.decoder
    codes = torch.as_tensor(candidate_codes(run, candidates, seed), dtype=torch.float32)
    return [decoder(one[None]) for one in codes]


def _fit(
    likelihood: GaussianLikelihood,
    scenes: Sequence[Scene],
    images: BandImages,
    before: JunkMixture | None,
    *,
    groups: NDArray | None = None,
    resamples: int,
    seed: int = 0,
    progress: ProgressReporter | None = None,
) -> JunkMixture:
    """One comparison of all images with everything; what needs an earlier one is left out of the first."""
    shares = np.ones(len(scenes)) if before is None else before.structure_share
    spectrum = projection_spectrum(likelihood, scenes, shares, images)
    scan = scan_images(likelihood, scenes, images, spectrum, progress=progress)
    displaced = alike = None
    if before is not None:
        alike = alike_evidence(likelihood, scenes, images, spectrum, before.best, before.alternatives)
        common = np.flatnonzero(shares >= min(_COMMON, shares.max()))
        chosen = [scenes[int(k)] for k in common]
        strength = before.mean, before.variance
        displaced = displaced_evidence(
            likelihood, chosen, shares[common], images, *strength, progress=progress
        )
    with reporter_or_silent(progress).task("shares", 1, "fits") as task:
        found = fit_mixture(
            scan, displaced, alike, start=before, groups=groups, resamples=resamples, seed=seed
        )
        task.advance()
    return found


def _warnings(mixture: JunkMixture, kept: Array, kind: str | None) -> tuple[str, ...]:
    said = []
    if kind is not None:
        said.append(
            f"the {kind} likelihood of the run is not in nats: gain and noise were measured from the images "
            "and the run's structures"
        )
    if mixture.mean < _CLEAR * mixture.variance**0.5:
        said.append(
            f"the structures have a strength of {mixture.mean:.2f} +- {mixture.variance**0.5:.2f} in the "
            "images, which noise may have as well: good particles and noise are not told apart"
        )
    if mixture.share[0] < 0.5:
        said.append(
            f"only {100 * mixture.share[0]:.0f} % of the images look like what this run decodes: look at "
            "poses and structures before you throw images away"
        )
    if len(kept) and abs(kept.mean()) > _COLOURED:
        said.append(
            f"what the structures leave of kept images is not quite noise (mean z {kept.mean():+.1f}): odds "
            "against other objects are too high, whatever their sign"
        )
    return tuple(said)
