"""How well scores of the particles tell junk from particles, where the truth knows which is which."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from cryoscape.errors import InputError

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
    posterior : float or None
        Probability of being good that `cryoscape junk` found, by its log odds; None where it was not run.
    """

    particles: int
    junk: int
    evidence: float
    gain: float
    log_prior: float
    posterior: float | None = None


def evaluate_junk(
    embedding: Embedding, junk: NDArray[np.bool_], folder: Path | None = None
) -> JunkEvaluation | None:
    """Compare the scores of an embedding with the truth.

    Parameters
    ----------
    embedding : Embedding
        Of N particles.
    junk : ndarray of bool, shape (N,)
        Which of them are junk.
    folder : Path, optional
        That of the run; where it has an `analysis/junk.npz`, its score is compared too.

    Returns
    -------
    JunkEvaluation or None
        None where all or none are.

    Raises
    ------
    InputError
        `junk.npz` cannot be read.
    """
    if junk.all() or not junk.any():
        return None
    from sklearn.metrics import roc_auc_score

    scores = (embedding.elbo, embedding.gain, embedding.log_prior)
    evidence, gain, log_prior = (float(roc_auc_score(~junk, score)) for score in scores)
    odds = None if folder is None else _log_odds(folder / "analysis" / "junk.npz", embedding)
    posterior = None if odds is None else float(roc_auc_score(junk, odds))
    return JunkEvaluation(int((~junk).sum()), int(junk.sum()), evidence, gain, log_prior, posterior)


def _log_odds(path: Path, embedding: Embedding) -> NDArray[np.float64] | None:
    """Log odds of junk of the particles, shape (N,); None without a file, or where it is of others."""
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as stored:
            uid, odds = stored["uid"], stored["log_odds"]
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        raise InputError(
            "the junk scores cannot be read", file=path, remedy="Run: cryoscape junk RUN"
        ) from error
    return odds if np.array_equal(uid, embedding.uid) else None
