"""Whole trainings on images whose populations are known, to see whether intervals hold them (check 11).

The parametric bootstrap (Efron 1979): images of the run's own structures in the fitted populations, of as
many particles, with their poses, transfer functions and noise, are trained on from nothing, and the
population on either side of the main motion is found again.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from cryoscape.analysis.populations.ensemble_weights import fit_weights
from cryoscape.analysis.populations.likelihood_table import CANDIDATES, candidate_codes, image_table
from cryoscape.analysis.validation.results import Check, Status
from cryoscape.analysis.validation.retraining import Retraining
from cryoscape.analysis.validation.simulated_images import SimulatedImages, draw_scenes
from cryoscape.analysis.validation.simulated_stack import simulated_particles
from cryoscape.analysis.validation.two_states import MOST_IMAGES, MainMotion, Population, upper_population
from cryoscape.models.likelihoods import GaussianLikelihood

TRAININGS = 3
LEVELS = (0.5, 0.9, 0.95)
NUMBER, NAME = 11, "calibration"


def calibration_check(retraining: Retraining, motion: MainMotion, trainings: int = TRAININGS) -> Check:
    """Check 11, at full level: intervals of the two-state population over whole trainings.

    Passed where the 95 % intervals of all but one training or more hold the true population. With three
    trainings that is a crude test, which intervals that are right fail once in 140 times.

    Parameters
    ----------
    retraining : Retraining
    motion : MainMotion
    trainings : int
    """
    run, progress = retraining.run, retraining.progress
    if not motion.moves:
        text = "Not run: nothing moves, so that there is no population to find again."
        return Check(NUMBER, NAME, Status.NOT_RUN, text)
    likelihood = run.image_model.likelihood
    assert isinstance(likelihood, GaussianLikelihood)
    z = candidate_codes(run, CANDIDATES, retraining.seed)
    with torch.no_grad():
        scenes = [run.image_model.decoder(one[None]) for one in torch.from_numpy(z)]
    images = run.images()
    n = len(images)
    rows = torch.from_numpy(np.unique(np.linspace(0, n - 1, min(n, MOST_IMAGES)).round().astype(np.int64)))
    weight = fit_weights(
        image_table(likelihood, scenes, images.batch, rows, progress=progress), resamples=0
    ).weight
    true = float(weight[motion.scores(run, z) > 0].sum())
    found = []
    for k in range(1, trainings + 1):
        name = f"calibration_{k}"
        choice = draw_scenes(torch.from_numpy(weight), n, retraining.seed_of(f"states {name}"))
        drawn = SimulatedImages(
            images.batch, likelihood, scenes, choice, retraining.seed_of(f"images {name}")
        )
        folder = retraining.folder / "images" / name
        with simulated_particles(run, drawn, folder, progress) as particles:
            again = retraining.train(name, particles, recipe={"images": "fitted populations"})
            found.append(upper_population(again, motion, seed=retraining.seed, progress=progress))
    return summarise(true, found)


def summarise(true: float, found: list[Population]) -> Check:
    """Coverage and bias of populations found again, as a check."""
    n, estimate = len(found), np.array([one.upper for one in found])
    covered = {level: sum(one.covers(true, level) for one in found) for level in LEVELS}
    bias = float(estimate.mean() - true)
    error = float(estimate.std(ddof=1) / np.sqrt(n)) if n > 1 else float("nan")
    values: dict[str, Any] = {
        "true": true,
        "found": [one.to_dict() for one in found],
        "covered": {f"{100 * level:g} %": count for level, count in covered.items()},
        "trainings": n,
        "bias": bias,
        "bias_error": error,
    }
    good = covered[0.95] >= max(1, n - 1)
    text = (
        f"Trained again {n} times on images with {100 * true:.1f} % beyond the middle of the main motion, it "
        f"finds {', '.join(f'{100 * p:.1f}' for p in estimate)} % (bias {100 * bias:+.1f} %); the 95 % "
        f"interval holds the truth {covered[0.95]} times, the 50 % interval {covered[0.5]} times."
    )
    return Check(NUMBER, NAME, Status.PASSED if good else Status.FAILED, text, values)
