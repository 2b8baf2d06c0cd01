"""Training again on images that hold no motion: noise alone, and one structure (checks 2 and 3).

What a training claims there is what this method makes of nothing, with these poses, transfer functions and
noise: the gain on held-out images has to vanish, and how much each residue still seems to move is the floor
below which no motion of it is to be believed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import logsumexp
from torch import Tensor

from cryoscape.analysis.populations.ensemble_weights import fit_weights, resampling_groups
from cryoscape.analysis.populations.likelihood_table import CANDIDATES, candidate_codes, image_table
from cryoscape.analysis.validation.results import Check, Status
from cryoscape.analysis.validation.retraining import LEAST_HELD_OUT, Retraining
from cryoscape.analysis.validation.simulated_images import SimulatedImages
from cryoscape.analysis.validation.simulated_stack import simulated_particles
from cryoscape.analysis.validation.two_states import (
    decode_flat,
    least_motion,
    some_rows,
)
from cryoscape.data.images import BandImages
from cryoscape.data.particles import Particles
from cryoscape.errors import InputError
from cryoscape.models.decoders.base import Scene
from cryoscape.models.likelihoods import GaussianLikelihood
from cryoscape.progress import ProgressReporter
from cryoscape.training.consensus import find_consensus
from cryoscape.training.run import Run
from cryoscape.training.sampling import held_out_mask

Array = NDArray[np.float64]

NEEDED_ERRORS = 2.0
"""Standard errors above zero from which a gain counts."""

FLOOR = 0.99
"""Quantile of the null's fluctuation that is the floor."""

_MOST_TRAINING = 4000
_RESAMPLES = 500


@dataclass(frozen=True)
class Gain:
    """How much better a mixture explains images that were not trained on than one structure does.

    Attributes
    ----------
    mean, error : float
        Nats an image, and the standard error (by micrograph where there are enough).
    n : int
        Images.
    """

    mean: float
    error: float
    n: int

    @property
    def vanishes(self) -> bool:
        """Whether it is not above zero by `NEEDED_ERRORS`, or less than a nat in all images together.

        A nat is no evidence, however small its error: that of a code that has collapsed is round-off.
        """
        return self.mean <= max(NEEDED_ERRORS * self.error, 1 / self.n)

    def __str__(self) -> str:
        return f"{self.mean:+.2g} +- {self.error:.1g} nats an image"


def standard_error(values: NDArray, groups: NDArray | None) -> float:
    """Of a mean: of independent values, or of values that vary together within groups."""
    away = np.asarray(values, dtype=np.float64) - np.mean(values)
    if groups is not None:
        away = np.bincount(np.unique(groups, return_inverse=True)[1], away)
    m = len(away)
    return float(np.sqrt(np.square(away).sum() * m / max(m - 1, 1)) / len(values))


@torch.no_grad()
def candidate_scenes(run: Run, seed: int = 0) -> list[Scene]:
    """The reference, the mean of what is decoded, and conformations that cover what the run has found."""
    decoder, z = run.image_model.decoder, torch.from_numpy(run.embedding.z)
    some = z[torch.from_numpy(some_rows(run, len(z)))]
    codes = torch.from_numpy(candidate_codes(run, CANDIDATES, seed))
    single = [decoder.scene(decoder.reference[None]), decoder.mean_scene(some)]
    return [*single, *(decoder(one[None]) for one in codes)]


def held_out_gain(run: Run, seed: int = 0, progress: ProgressReporter | None = None) -> Gain:
    """Gain of populations over the best single scene, both chosen on training images.

    Parameters
    ----------
    run : Run
        With an embedding, its images at hand and some of them held out.
    seed : int
        Of the candidates.
    progress : ProgressReporter, optional
    """
    held_out = run.embedding.held_out
    shown, hidden = np.flatnonzero(~held_out), np.flatnonzero(held_out)
    shown = shown[np.linspace(0, len(shown) - 1, min(len(shown), _MOST_TRAINING)).round().astype(np.int64)]
    scenes, images = candidate_scenes(run, seed), run.images()
    tables = [
        image_table(
            run.image_model.likelihood, scenes, images.batch, torch.from_numpy(rows), progress=progress
        )
        for rows in (shown, hidden)
    ]
    groups = resampling_groups(run.particles.micrograph[hidden])
    return mixture_gain(tables[0], tables[1], groups)


def mixture_gain(shown: Array, hidden: Array, groups: NDArray | None = None) -> Gain:
    """Gain from tables (n, K) of log likelihoods of images to fit to, and of others to judge by."""
    weight = fit_weights(shown, resamples=0).weight
    single = int(shown.mean(axis=0).argmax())
    # A population of exactly zero says nothing to logsumexp.
    each = logsumexp(hidden, axis=1, b=weight) - hidden[:, single]
    return Gain(float(each.mean()), standard_error(each, groups), len(each))


@torch.no_grad()
def best_scene(run: Run, seed: int = 0, progress: ProgressReporter | None = None) -> Scene:
    """The one scene that explains the images of a run best."""
    scenes, images = candidate_scenes(run, seed), run.images()
    rows = torch.linspace(0, len(images) - 1, min(len(images), 1000)).long()
    table = image_table(run.image_model.likelihood, scenes, images.batch, rows, progress=progress)
    return scenes[int(table.mean(axis=0).argmax())]


def fluctuation(run: Run, z: NDArray) -> Array:
    """Rms fluctuation of what codes decode to: of every residue (N,), A; of maps in one number (1,)."""
    return _rmsf(_decoded(run, z), np.ones(len(z)))


def _decoded(run: Run, z: NDArray) -> Array:
    """Objects (n, N, 3); maps as one place of many numbers (n, 1, P), in units of the rms of their mean."""
    flat = decode_flat(run, z).astype(np.float64)
    if run.has_structures:
        return flat.reshape(len(z), -1, 3)
    return flat[:, None] / max(float(np.linalg.norm(flat.mean(axis=0))), 1e-30)


def _rmsf(points: Array, counts: NDArray) -> Array:
    share = counts / counts.sum()
    mean = np.tensordot(share, points, axes=1)
    return np.sqrt(np.tensordot(share, np.square(points - mean).sum(-1), axes=1))


def fluctuation_floor(run: Run, z: NDArray, seed: int = 0) -> Array:
    """Upper quantile `FLOOR` of the fluctuation over codes drawn again, shape (N,) or (1,)."""
    points, n = _decoded(run, z), len(z)
    rng = np.random.default_rng([seed, 43])
    counts = rng.multinomial(n, np.full(n, 1 / n), size=_RESAMPLES) / n
    # Mean square less square of the mean, for all resamples at once; the centre keeps the digits.
    points = points - points.mean(axis=0)
    square = counts @ np.square(points).sum(-1)
    if points.shape[1] == 1:
        gram = points[:, 0] @ points[:, 0].T
        mean = ((counts @ gram) * counts).sum(axis=1)[:, None]
    else:
        mean = np.stack([np.square(np.tensordot(share, points, axes=1)).sum(-1) for share in counts])
    return np.quantile(np.sqrt(np.maximum(square - mean, 0.0)), FLOOR, axis=0)


def held_out_codes(run: Run) -> NDArray[np.float32]:
    """Posterior means of particles that a run was not shown; of all where it was shown all."""
    z, held_out = run.embedding.z, run.embedding.held_out
    z = z[held_out] if held_out.any() else z
    return z[some_rows(run, len(z))]


def noise_check(retraining: Retraining) -> Check:
    """Check 2: a training on noise alone must gain nothing on noise it has not seen."""
    n = retraining.run.info["particles"]["n"]
    choice = torch.full((n,), -1)
    images = _images(retraining, "noise", [], choice, 0.0, 0.0)
    return _retrain(retraining, 2, "noise", images, {"images": "noise"})


def homogeneous_check(retraining: Retraining, rotation_sd: float = 0.0, shift_sd: float = 0.0) -> Check:
    """Check 3: a training on images of the best single structure must gain nothing either.

    Parameters
    ----------
    retraining : Retraining
    rotation_sd : float
        Error of the poses, standard deviation about each axis, degrees.
    shift_sd : float
        The same in each direction of the image, A.
    """
    run = retraining.run
    scene = best_scene(run, progress=retraining.progress)
    choice = torch.zeros(run.info["particles"]["n"], dtype=torch.int64)
    images = _images(retraining, "homogeneous", [scene], choice, rotation_sd, shift_sd)
    recipe = {"images": "one structure", "rotation_sd": rotation_sd, "shift_sd": shift_sd}
    return _retrain(retraining, 3, "homogeneous", images, recipe)


def _images(
    retraining: Retraining,
    name: str,
    scenes: Sequence[Scene],
    choice: Tensor,
    rotation_sd: float,
    shift_sd: float,
) -> SimulatedImages:
    run, seed = retraining.run, retraining.seed_of(f"images {name}")
    likelihood = run.image_model.likelihood
    assert isinstance(likelihood, GaussianLikelihood)
    return SimulatedImages(run.images().batch, likelihood, scenes, choice, seed, rotation_sd, shift_sd)


def _retrain(
    retraining: Retraining, number: int, name: str, images: SimulatedImages, recipe: dict[str, Any]
) -> Check:
    run, progress = retraining.run, retraining.progress
    title = {2: "noise only", 3: "homogeneous"}[number]
    what = {2: "noise alone", 3: "one structure"}[number]
    with simulated_particles(run, images, retraining.folder / "images" / name, progress) as particles:
        if not run.has_structures and not _has_consensus(retraining, name, particles):
            text = f"Images of {what} give no consensus map: training refuses them, and claims nothing."
            return Check(number, title, Status.PASSED, text, {"refused": True})
        null = retraining.train(name, particles, held_out=LEAST_HELD_OUT, recipe=recipe)
        gain = held_out_gain(null, progress=progress)
    floor = fluctuation_floor(null, held_out_codes(null), retraining.seed)
    own = fluctuation(run, held_out_codes(run))
    prior = fluctuation(null, null.sample(256, retraining.seed))
    # One training draws the floor once: of a code that has collapsed it is next to nothing.
    above = own > np.maximum(floor, least_motion(run))
    values = {
        "gain": gain.mean,
        "gain_error": gain.error,
        "images": gain.n,
        "steps": int(null.info["total_steps"]),
        "recipe": recipe,
        "rmsf": fluctuation(null, held_out_codes(null)),
        "floor": floor,
        "prior_rmsf": prior,
        "run_rmsf": own,
        "above_floor": above,
    }
    status = Status.PASSED if gain.vanishes else Status.FAILED
    if run.has_structures:
        moved = (
            f"residues seem to move by {_rms(floor):.2g} A rms there, and by {_rms(own):.2g} A in this run, "
            f"where {int(above.sum())} of {len(own)} are above their floor and {least_motion(run):g} A"
        )
    else:
        moved = (
            f"maps seem to differ by {100 * floor[0]:.2g} % of their rms there, and by {100 * own[0]:.2g} % "
            "in this run"
        )
    claimed = "gains" if gain.vanishes else "claims to gain"
    text = f"Trained again on images of {what}, it {claimed} {gain} it has not seen; {moved}."
    return Check(number, title, status, text, values)


def _rms(x: Array) -> float:
    return float(np.sqrt(np.square(x).mean()))


def _has_consensus(retraining: Retraining, name: str, particles: Particles) -> bool:
    """Whether the consensus that training on maps starts from can be made of these images."""
    config = retraining.config_for(name, len(particles), LEAST_HELD_OUT)
    hidden = held_out_mask(len(particles), config.data.held_out, config.training.seed)
    images = BandImages(particles, retraining.run.geometry.cutoff, cache_memory=0.0)
    try:
        find_consensus(images, torch.from_numpy(np.flatnonzero(~hidden)), retraining.progress)
    except InputError:
        return False
    return True
