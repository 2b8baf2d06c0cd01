"""How well scores of the particles tell junk from particles, where the truth knows which is which."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from cryoscape.training.embedding import Embedding


@dataclass(frozen=True)
class JunkEvaluation:
    """Scores against the truth.

    Each number is the area under the receiver operating characteristic: the chance that a junk image scores
    lower than a particle, 0.5 where the score knows nothing.

    Attributes
    ----------
    particles, junk : int
        How many of each.
    evidence : float
        ELBO: log p(x) over pure noise.
    gain : float
        ELBO over the likelihood of the best single structure.
    log_prior : float
        E_q log p(z): the energy of the particle's code under the population model, with the sign turned.
    """

    particles: int
    junk: int
    evidence: float
    gain: float
    log_prior: float


def evaluate_junk(embedding: Embedding, junk: NDArray[np.bool_]) -> JunkEvaluation | None:
    """Compare the scores of an embedding with the truth.

    Parameters
    ----------
    embedding : Embedding
        Of N particles.
    junk : ndarray of bool, shape (N,)
        Which of them are junk.

    Returns
    -------
    JunkEvaluation or None
        None where all or none are.
    """
    if junk.all() or not junk.any():
        return None
    from sklearn.metrics import roc_auc_score

    scores = (embedding.elbo, embedding.gain, embedding.log_prior)
    evidence, gain, log_prior = (float(roc_auc_score(~junk, score)) for score in scores)
    return JunkEvaluation(int((~junk).sum()), int(junk.sum()), evidence, gain, log_prior)
