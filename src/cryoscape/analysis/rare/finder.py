"""Rare states of a run: proposed by the decoder and by what the images lack, kept where unseen images ask.

Rounds, until none adds anything:

1. conformations that cover what decoder, posteriors, prior and tempered prior make are compared with all
   images; `selection.select_structures` grows a mixture on one half of the images and tests it on the other;
2. every group of structures that images cannot tell apart, and the images that no structure explains
   (`evidence.shortfall`), propose a structure fitted to them (`refinement`), from the first half alone;
3. proposals and earlier conformations are compared again.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cryoscape.analysis.landscape.identifiability import needed_nats
from cryoscape.analysis.populations.ensemble_weights import RESAMPLES, fit_weights, resampling_groups
from cryoscape.analysis.rare.evidence import nats_between, shortfall
from cryoscape.analysis.rare.pool import Pool
from cryoscape.analysis.rare.proposals import covering_codes
from cryoscape.analysis.rare.refinement import (
    Conformation,
    fit_code,
    image_group,
    scenes_of,
    tune_decoder,
)
from cryoscape.analysis.rare.selection import Selection, link, select_structures
from cryoscape.analysis.rare.states import RareFindings, describe_states
from cryoscape.errors import InputError
from cryoscape.progress import ProgressReporter, reporter_or_silent

if TYPE_CHECKING:
    from cryoscape.training.run import Run

Array = NDArray[np.float64]

CANDIDATES = 48
"""Conformations that all images are compared with at the start."""

ROUNDS = 3
"""Of proposals, at most."""

FDR = 0.05
"""Expected share of wrong particles in the list of a state."""

_SHORT = 2.0  # standard deviations from which on evidence is short of what a right structure gives
_FEWEST = 20  # images that a proposal is fitted to


def find_rare_states(
    run: Run,
    *,
    fdr: float = FDR,
    candidates: int = CANDIDATES,
    rounds: int = ROUNDS,
    resamples: int = RESAMPLES,
    seed: int = 0,
    progress: ProgressReporter | None = None,
) -> RareFindings:
    """Find the states that a run's images hold, the rare ones among them.

    Parameters
    ----------
    run : Run
        With an embedding, and its images at hand.
    fdr : float
        Expected share of wrong particles in the list of a state.
    candidates : int
        Conformations that all images are compared with at the start.
    rounds : int
        Of fitted proposals, at most.
    resamples : int
        Fits behind the intervals.
    seed : int
    progress : ProgressReporter, optional

    Returns
    -------
    RareFindings

    Raises
    ------
    InputError
        The likelihood has no nats, a number makes no sense, or the run has no embedding.
    """
    _check(run, fdr, candidates)
    fitted = run.particles.half == 1
    codes = covering_codes(run, candidates, seed)
    start = [Conformation(z, "decoder") for z in codes]
    pool = Pool((), np.empty((len(fitted), 0)), np.empty((len(fitted), 0))).with_more(run, start, progress)
    chosen = select_structures(pool.table, fitted)
    for _ in range(rounds):
        more = _proposals(run, pool, chosen, fitted, progress)
        if not more:
            break
        known = len(pool.conformations)
        pool = pool.with_more(run, more, progress)
        chosen = select_structures(pool.table, fitted)
        if max(chosen.columns) < known:
            break
    by_group = resampling_groups(run.particles.micrograph)
    columns = list(chosen.columns)
    weights = fit_weights(pool.table[:, columns], groups=by_group, resamples=resamples, seed=seed)
    return describe_states(run, pool, chosen, weights, fitted, fdr, progress)


def _check(run: Run, fdr: float, candidates: int) -> None:
    if not run.image_model.likelihood.in_nats:
        raise InputError(
            f"the {run.config.likelihood.kind} likelihood of this run is not in nats, so that evidence for a "
            "state cannot be weighed",
            file=run.path,
            remedy="Train with --likelihood gaussian.",
        )
    if not 0 < fdr < 1:
        raise InputError(f"a false discovery rate of {fdr:g}", remedy="Give --fdr between 0 and 1.")
    if candidates < 4:
        raise InputError(f"--candidates {candidates} is too few", remedy="Give 4 or more.")


def _proposals(
    run: Run, pool: Pool, chosen: Selection, fitted: NDArray[np.bool_], progress: ProgressReporter | None
) -> list[Conformation]:
    """Structures fitted to each group of the first half's images, and to those that nothing explains."""
    columns = list(chosen.columns)
    members = [pool.conformations[k] for k in columns]
    nats = nats_between(run, scenes_of(run, members))
    label = link(nats, needed_nats(len(fitted)))
    share = np.where(fitted[:, None], pool.shares(chosen), 0.0)
    short = shortfall(pool.table[:, columns], pool.expected[:, columns], pool.shares(chosen))
    jobs: list[tuple[Conformation, Array]] = []
    for k in range(label.max() + 1):
        mine = np.flatnonzero(label == k)
        best = int(mine[chosen.weight[mine].argmax()])
        # One that was fitted and alone in its group would come out the same.
        if len(mine) > 1 or members[best].decoder is None:
            jobs.append((members[best], share[:, mine].sum(axis=1)))
    lacking = np.where(short > _SHORT, short, 0.0)[:, None] * share
    for k in lacking.sum(axis=0).argsort()[::-1][:1]:
        jobs.append((members[k], lacking[:, k]))
    found: list[Conformation] = []
    with reporter_or_silent(progress).task("fit structures", len(jobs), "groups") as task:
        for start, belongs in jobs:
            group = image_group(run, belongs) if np.count_nonzero(belongs) >= _FEWEST else None
            if group is not None and belongs.sum() > 0:
                fit = start if run.prior.support == "binary" else fit_code(run, start, group)
                tuned = tune_decoder(run, fit, group, members)
                found += [replace(fit, source="fitted code"), tuned]
            task.advance()
    return found
