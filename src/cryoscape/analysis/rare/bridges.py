"""Whether a rare structure is a state of its own, or the end of a continuous motion.

Structures on the straight line between it and its nearest populated state are given to the mixture. A state
of its own leaves them empty: the population of one of them, on average, is below its own by a dip.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryoscape.analysis.landscape.states import DIP
from cryoscape.analysis.populations.ensemble_weights import fit_weights
from cryoscape.analysis.rare.evidence import evidence_table
from cryoscape.analysis.rare.pool import Pool
from cryoscape.analysis.rare.refinement import Conformation
from cryoscape.models.decoders.base import Decoder, Scene, StructureDecoder
from cryoscape.progress import ProgressReporter

if TYPE_CHECKING:
    from cryoscape.training.run import Run

ALONG = (0.25, 0.5, 0.75)
"""Of the way from the populated structure to the rare one."""

_FITS = 40
_SURE = 0.975


@torch.no_grad()
def bridge_scenes(run: Run, first: Conformation, second: Conformation) -> list[Scene]:
    """Scenes on the straight line between two conformations, in coordinates or in density."""
    (a, there), (b, here) = (_object(run, one) for one in (first, second))
    decoder = run.image_model.decoder
    found: list[Scene] = []
    for t in ALONG:
        between = (1 - t) * a + t * b
        if there is not None and here is not None:
            assert isinstance(decoder, StructureDecoder)
            found.append(decoder.scene(between, (1 - t) * there + t * here))
        else:
            found.append(decoder.scene(between))
    return found


def _object(run: Run, one: Conformation) -> tuple[Tensor, Tensor | None]:
    decoder: Decoder = one.decoder or run.image_model.decoder
    z = torch.from_numpy(one.z)[None]
    present = decoder.occupancy(z) if isinstance(decoder, StructureDecoder) else None
    return decoder.objects(z), present


def stands_apart(
    run: Run,
    pool: Pool,
    columns: NDArray[np.int64],
    groups: NDArray[np.int64],
    state: int,
    ends: tuple[Conformation, Conformation],
    progress: ProgressReporter | None = None,
) -> bool:
    """Whether the population dips between a state and its nearest populated one.

    Parameters
    ----------
    run : Run
    pool : Pool
    columns : ndarray, shape (M,)
        Selected structures.
    groups : ndarray, shape (M,)
        State of each.
    state : int
    ends : tuple of Conformation
        The populated structure and the rare one.
    progress : ProgressReporter, optional
    """
    table, _ = evidence_table(run, bridge_scenes(run, *ends), progress=progress)
    return dips(np.concatenate([pool.table[:, columns], table], axis=1), groups == state, len(ALONG))


def dips(table: NDArray[np.float64], rare: NDArray[np.bool_], between: int) -> bool:
    """Whether structures between hold less each than a rare state, by a dip, in 97.5 % of resampled fits.

    Parameters
    ----------
    table : ndarray, shape (N, M + between)
        Log likelihoods; the last columns are of what lies between.
    rare : ndarray of bool, shape (M,)
        The structures of the rare state.
    between : int
    """
    drawn = fit_weights(table, resamples=_FITS).resampled
    own = drawn[:, : len(rare)][:, rare].sum(axis=1)
    middle = drawn[:, len(rare) :].sum(axis=1) / between
    return float(np.mean(middle < np.exp(-DIP) * own)) >= _SURE
