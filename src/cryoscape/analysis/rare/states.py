"""States behind the structures that images ask for: populations, evidence, particles, images needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cryoscape.analysis.coordinate_uncertainty import member_displacement
from cryoscape.analysis.landscape.identifiability import nats_between_means, needed_nats
from cryoscape.analysis.landscape.profile import interval
from cryoscape.analysis.populations.ensemble_weights import (
    EnsembleWeights,
    maximise_evidence,
    responsibilities,
)
from cryoscape.analysis.rare.bridges import stands_apart
from cryoscape.analysis.rare.evidence import nats_between
from cryoscape.analysis.rare.pool import Pool
from cryoscape.analysis.rare.power import images_for_interval, images_to_detect, retrieve
from cryoscape.analysis.rare.refinement import Conformation, coordinates_of, scenes_of
from cryoscape.analysis.rare.selection import HeldOut, Refused, Selection, link, without
from cryoscape.progress import ProgressReporter

if TYPE_CHECKING:
    from cryoscape.training.run import Run

Array = NDArray[np.float64]

RARE = 0.1
"""Population below which a state is rare."""

_SUSPECTS = 3
_CROWDED = 2.0  # times what two states must be apart to be told from one
_LEAST = 1e-4  # population for which images needed still mean something


@dataclass(frozen=True, eq=False)
class RareState:
    """One state.

    Attributes
    ----------
    name : str
    kind : str
        "populated"; "rare", below a tenth; "tail" of the nearest state, where the population between them
        does not dip;
        "unsure", where unseen images do not ask for it by itself.
    population, low, high : float
        With its 95 % interval.
    nearest : int or None
        The nearest state of a larger population.
    rmsd : float or None
        From that, A rms over the residues, without superposition; None without atoms.
    nats : float or None
        Expected nats an image between the two.
    held_out : HeldOut or None
        What unseen images lose without it; None for the only state.
    retrieved : ndarray of int
        Particles in its list, the surest first.
    to_detect : float or None
        Images in all that show it by two standard errors, nine times in ten.
    to_halve : float or None
        Images in all that halve its interval.
    members : tuple of int
        Columns of the pool.
    """

    name: str
    kind: str
    population: float
    low: float
    high: float
    nearest: int | None
    rmsd: float | None
    nats: float | None
    held_out: HeldOut | None
    retrieved: NDArray[np.int64]
    to_detect: float | None
    to_halve: float | None
    members: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Suspect:
    """A structure that unseen images do not ask for, or not yet.

    Attributes
    ----------
    population : float
        That the fitted half gave it.
    held_out : HeldOut
    nats : float
        From the nearest selected structure.
    to_detect : float
        Images in all that would show it, were it there at that population.
    """

    population: float
    held_out: HeldOut
    nats: float
    to_detect: float


@dataclass(frozen=True, eq=False)
class RareFindings:
    """States of a run, the most populated first, and what they rest on.

    Attributes
    ----------
    states : tuple of RareState, length S
    suspects : tuple of Suspect
    conformations : tuple of Conformation, length S
        One of each state: its heaviest structure.
    members : tuple of Conformation, length M
        All structures of the mixture.
    label : ndarray, shape (M,)
        State of each.
    weight : ndarray, shape (M,)
        Populations, from all images.
    probability : ndarray, shape (N, S), float32
        Of each state given each image.
    nats_between : ndarray, shape (S, S)
        Between mean projections.
    displacement : ndarray, shape (S, R), or None
        Mean square displacement of each residue among all structures that the images of a state populate,
        A^2; None without atoms.
    uid, row : ndarray, shape (N,)
    fdr : float
    n_images, n_tested : int
    needed : float
        Nats that two states must be apart.
    misfit, misfit_error : float
        Nats an image by which the evidence is below that of right structures, with its standard error.
    """

    states: tuple[RareState, ...]
    suspects: tuple[Suspect, ...]
    conformations: tuple[Conformation, ...]
    members: tuple[Conformation, ...]
    label: NDArray[np.int64]
    weight: Array
    probability: NDArray[np.float32]
    nats_between: Array
    displacement: Array | None
    uid: NDArray[np.uint64]
    row: NDArray[np.int64]
    fdr: float
    n_images: int
    n_tested: int
    needed: float
    misfit: float
    misfit_error: float

    @property
    def crowded(self) -> bool:
        """Whether states lie as near to each other as marks along one continuous motion would."""
        apart = self.nats_between + np.diag(np.full(len(self.nats_between), np.inf))
        return len(apart) > 2 and float(np.median(apart.min(axis=1))) < _CROWDED * self.needed

    @property
    def rare(self) -> tuple[int, ...]:
        """Which states are rare."""
        return tuple(k for k, state in enumerate(self.states) if state.kind == "rare")


def describe_states(
    run: Run,
    pool: Pool,
    chosen: Selection,
    weights: EnsembleWeights,
    fitted: NDArray[np.bool_],
    fdr: float,
    progress: ProgressReporter | None = None,
) -> RareFindings:
    """Join structures to states and say of each what the images say.

    Parameters
    ----------
    run : Run
    pool : Pool
    chosen : Selection
    weights : EnsembleWeights
        Of the selected columns, from all images.
    fitted : ndarray of bool, shape (N,)
        The half that selection fitted.
    fdr : float
    progress : ProgressReporter, optional

    Returns
    -------
    RareFindings
    """
    columns = np.array(chosen.columns)
    members = tuple(pool.conformations[k] for k in columns)
    nats, needed = nats_between(run, scenes_of(run, members)), needed_nats(len(fitted))
    groups = _by_population(link(nats, needed), weights.weight)
    count = int(groups.max()) + 1
    member = (groups[:, None] == np.arange(count)).astype(np.float64)
    # What all images gave nothing to has an equal share of its state.
    inside = np.maximum(weights.weight, 1e-300) * member.T
    inside = inside / inside.sum(axis=1, keepdims=True)
    part = pool.table[:, columns]
    responsibility = weights.responsibilities(part)
    shown = tuple(pool.conformations[_heaviest(columns, weights.weight, groups, s)] for s in range(count))
    joined = _Joined(
        pool=pool,
        columns=columns,
        groups=groups,
        share=weights.weight @ member,
        bounds=np.stack(interval(weights.resampled @ member)),
        between=nats_between_means(nats, inside[:, None], inside[None]),
        probability=responsibility @ member,
        shown=shown,
        coords=_mean_structures(run, members, inside),
    )
    missing = (responsibility * (pool.expected[:, columns] - part)).sum(axis=1)
    return RareFindings(
        states=tuple(_state(run, joined, s, fitted, fdr, progress) for s in range(count)),
        suspects=_suspects(run, pool, members, chosen.refused, needed),
        conformations=shown,
        members=members,
        label=groups,
        weight=weights.weight,
        probability=joined.probability.astype(np.float32),
        nats_between=joined.between,
        displacement=_spread(run, pool, joined.probability),
        uid=run.particles.uid,
        row=run.particles.row,
        fdr=fdr,
        n_images=len(fitted),
        n_tested=int((~fitted).sum()),
        needed=needed,
        misfit=float(missing.mean()),
        misfit_error=float(missing.std() / np.sqrt(len(missing))),
    )


@dataclass(frozen=True, eq=False)
class _Joined:
    """Structures joined to S states: share (S,), bounds (2, S), between (S, S), coords (S, R, 3)."""

    pool: Pool
    columns: NDArray[np.int64]
    groups: NDArray[np.int64]
    share: Array
    bounds: Array
    between: Array
    probability: Array
    shown: tuple[Conformation, ...]
    coords: Array | None


def _state(
    run: Run,
    joined: _Joined,
    s: int,
    fitted: NDArray[np.bool_],
    fdr: float,
    progress: ProgressReporter | None,
) -> RareState:
    p, (low, high) = float(joined.share[s]), joined.bounds[:, s].tolist()
    mine = {int(k) for k in joined.columns[joined.groups == s]}
    held = None
    if len(joined.share) > 1:
        held = without(joined.pool.table, fitted, joined.columns.tolist(), mine)
    # Of the states of a larger population, which come first.
    nearest = int(joined.between[s, :s].argmin()) if s else None
    away = None if nearest is None else float(joined.between[s, nearest])
    kind = "populated"
    if nearest is not None and p < RARE:
        apart = held is not None and held.holds
        kind = "unsure"
        if apart:
            ends = joined.shown[nearest], joined.shown[s]
            dip = stands_apart(run, joined.pool, joined.columns, joined.groups, s, ends, progress)
            kind = "rare" if dip else "tail"
    rmsd = None
    if joined.coords is not None and nearest is not None:
        rmsd = _rmsd(joined.coords[s], joined.coords[nearest])
    detect = halve = None
    if away is not None and away > 0 and _LEAST < p < 0.5:
        detect = images_to_detect(p, away)
        halve = images_for_interval(p, away, 0.25 * (high - low)) if high > low else None
    found = retrieve(joined.probability[:, s], fdr)
    return RareState(
        f"state {s + 1}", kind, p, low, high, nearest, rmsd, away, held, found, detect, halve,
        tuple(sorted(mine)),
    )  # fmt: skip


def _by_population(label: NDArray[np.int64], weight: Array) -> NDArray[np.int64]:
    """Labels renumbered, the group of the largest population first."""
    order = np.argsort(-np.bincount(label, weights=weight), kind="stable")
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    return rank[label]


def _heaviest(columns: NDArray[np.int64], weight: Array, groups: NDArray[np.int64], s: int) -> int:
    """Column of the structure of a state that has the largest population."""
    return int(columns[groups == s][weight[groups == s].argmax()])


def _spread(run: Run, pool: Pool, probability: Array) -> Array | None:
    """Mean square displacement within each state (S, N), A^2: of all structures that its images populate."""
    if not run.has_structures:
        return None
    likelihood = np.exp(pool.table - pool.table.max(axis=1, keepdims=True))
    weight, _ = maximise_evidence(likelihood, np.ones(len(likelihood)))
    share = probability.T @ responsibilities(pool.table, weight)
    coords = coordinates_of(run, pool.conformations).astype(np.float64)
    return np.stack([member_displacement(coords, one) for one in share])


def _mean_structures(run: Run, members: Sequence[Conformation], inside: Array) -> Array | None:
    """Mean structure of each state (S, N, 3), A; None without atoms."""
    if not run.has_structures:
        return None
    return np.einsum("sm,mni->sni", inside, coordinates_of(run, members).astype(np.float64))


def _rmsd(a: Array, b: Array) -> float:
    return float(np.sqrt(np.square(a - b).sum(axis=-1).mean()))


def _suspects(
    run: Run, pool: Pool, members: Sequence[Conformation], refused: Sequence[Refused], needed: float
) -> tuple[Suspect, ...]:
    """Refused structures that are no variants of selected ones, and would be states if they were there."""
    likely = [one for one in refused if one.share > _LEAST and one.held_out.gain > 0]
    if not likely:
        return ()
    theirs = [pool.conformations[one.column] for one in likely]
    nats = nats_between(run, scenes_of(run, [*members, *theirs]))[len(members) :, : len(members)].min(axis=1)
    found = [
        Suspect(one.share, one.held_out, float(d), images_to_detect(one.share, float(d)))
        for one, d in zip(likely, nats)
        if d >= needed and one.share < 0.5
    ]
    return tuple(sorted(found, key=lambda one: -one.held_out.gain)[:_SUSPECTS])
