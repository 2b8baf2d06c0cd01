"""Evidence that an image shows an object which is half like the molecule.

Two proteins of one size have much of their low resolution in common.
Here a share of the signal is that of the molecule's best structure, and the rest a random signal,

    X ~ N(sqrt(c) b T Y, s2 + c (1 - b^2) T^2 P),

with b the correlation of the object's projections with the molecule's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from cryoscape.analysis.junk.calibration import best_projections
from cryoscape.analysis.junk.hypotheses import random_signal_evidence
from cryoscape.analysis.junk.scan import FACTORS, Spectrum

if TYPE_CHECKING:
    from cryoscape.data.images import BandImages
    from cryoscape.models.decoders.base import Scene
    from cryoscape.models.likelihoods import GaussianLikelihood

Array = NDArray[np.float64]

LIKENESS = 0.5
"""b: more, and a decoder that is not quite right would make contaminants of good particles."""


@torch.no_grad()
def alike_evidence(
    likelihood: GaussianLikelihood,
    scenes: Sequence[Scene],
    images: BandImages,
    spectrum: Spectrum,
    best: NDArray[np.int64],
    alternatives: Array,
) -> Array:
    """Log evidence of an object half like each image's best structure.

    Parameters
    ----------
    likelihood : GaussianLikelihood
    scenes : sequence of Scene
    images : BandImages
        N images.
    spectrum : Spectrum
        Of the projections of the molecule.
    best : ndarray, shape (N,)
        Which of the scenes.
    alternatives : ndarray, shape (N,)
        What the mixture of all structures has in evidence over the best one alone, nats: the object may be
        like any of them.

    Returns
    -------
    ndarray, shape (N, A)
        For each power of `cryoscape.analysis.junk.scan.FACTORS`, nats over pure noise.
    """
    out = np.empty((len(images), len(FACTORS)))
    power = (1 - LIKENESS**2) * spectrum.power[likelihood.shells]
    for batch, y in best_projections(likelihood, scenes, images, best):
        noise = likelihood.noise[:, likelihood.shells][batch.group].sqrt()
        scaled = likelihood.transfer(batch.ctf, batch.group) / noise
        mean, variance = LIKENESS * scaled * y, scaled.square() * power
        found = random_signal_evidence(
            batch.images / noise, mean, variance, likelihood.weights, torch.tensor(FACTORS)
        )
        out[batch.rows.numpy()] = found.numpy()
    return out + alternatives[:, None]
