"""Do maps made of the images alone show the motion? Both sides of it, back-projected and compared (check 9).

Images are weighted by how probable each side of the motion is given the image, and back-projected without
decoder or deformation; the difference of the maps must fit the difference of the models.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cryoscape.analysis.populations.ensemble_weights import responsibilities
from cryoscape.analysis.states.specificity import compare
from cryoscape.analysis.states.state_maps import back_project_states, finish_map
from cryoscape.analysis.validation.results import Check, Status
from cryoscape.analysis.validation.subject import Subject
from cryoscape.progress import ProgressReporter

SURE = 2.0
"""Standard deviations by which each map's own model must win."""

NAME = "state maps without the model"


def state_maps(
    subject: Subject,
    table: NDArray[np.float64],
    rows: NDArray[np.int64],
    weight: NDArray[np.float64],
    high: NDArray[np.bool_],
    progress: ProgressReporter | None = None,
) -> Check:
    """Back-project the two sides of a motion.

    Parameters
    ----------
    subject : Subject
    table : ndarray, shape (n, K)
        Log likelihoods of images `rows`.
    rows : ndarray, shape (n,)
    weight : ndarray, shape (K,)
        Populations from the images.
    high : ndarray of bool, shape (K,)
        Which objects are on the high side.
    progress : ProgressReporter, optional
    """
    sides = np.stack([~high, high]).astype(np.float64)
    held = sides @ weight
    if held.min() < 0.02:
        return Check(9, NAME, Status.NOT_RUN, "nearly all images are on one side of the motion")
    member = responsibilities(table, weight) @ sides.T
    weights = np.zeros((len(subject.images), 2))
    weights[rows] = member
    half = subject.particles.half
    if any(weights[half == h].sum(axis=0).min() < 5 for h in (1, 2)):
        half = (np.arange(len(half)) % 2 + 1).astype(np.int8)
    sums = back_project_states(subject.images, weights, half, progress=progress)
    maps = [finish_map(one) for one in sums]
    flat = subject.objects.flatten(1).numpy()
    means = np.stack([(side * weight) @ flat / (side @ weight) for side in sides])
    nearest = [
        int(np.where(side > 0, np.square(flat - mean).sum(1), np.inf).argmin())
        for side, mean in zip(sides, means)
    ]
    found = compare(maps, subject.maps(subject.objects[nearest]))
    margin = float(found.margin.min())
    won = bool(found.won.all() and margin >= SURE)
    text = (
        f"maps of the two sides, from {len(rows)} images: each fits its own model "
        f"{'best' if found.won.all() else 'NOT best'}, by {margin:+.1f} sd "
        f"(correlation of differences {found.difference.diagonal().min():.2f})"
    )
    values = {
        "margin": found.margin,
        "plain": found.plain,
        "difference": found.difference,
        "images": len(rows),
        "resolution": [one.resolution for one in maps],
    }
    return Check(9, NAME, Status.PASSED if won else Status.FAILED, text, values)
