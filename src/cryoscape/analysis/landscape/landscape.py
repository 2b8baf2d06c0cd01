"""Free-energy landscape of a run along collective variables: populations that images give, not the encoder.

It is that of the *vitrified sample*: kT is a unit of populations, at the temperature, whatever it was, at
which freezing stopped the molecules. Poses and decoder are taken as they are; the intervals hold what the
images and the smoothness of the profile leave open.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from cryoscape.analysis.landscape.fit import SmoothPopulations, fit_populations
from cryoscape.analysis.landscape.identifiability import Detail, detail_along, nats_between_codes, needed_nats
from cryoscape.analysis.landscape.profile import Profile, make_axis, make_profile, weighted_quantiles
from cryoscape.analysis.landscape.states import (
    LandscapeStates,
    StatePopulation,
    basin_states,
    state_populations,
    user_states,
)
from cryoscape.analysis.populations.ensemble_weights import RESAMPLES, resampling_groups
from cryoscape.analysis.populations.likelihood_table import candidate_codes, likelihood_table, presence
from cryoscape.analysis.variables.collective_variables import CollectiveVariable
from cryoscape.analysis.variables.decoded_latents import RunDecoder
from cryoscape.analysis.variables.variable_syntax import cv_of_run
from cryoscape.errors import InputError
from cryoscape.progress import ProgressReporter, reporter_or_silent

if TYPE_CHECKING:
    from cryoscape.training.run import Run

Array = NDArray[np.float64]

CANDIDATES = 48
"""Structures that all images are compared with."""

BINS = 30
"""Of each variable."""

_FINE = 600
# Nats between nearest candidates above which images fall between them.
_COARSE = 0.5
_STILL = 0.2  # change, in units of the variable's scale, below which nothing moves


@dataclass(frozen=True, eq=False)
class Landscape:
    """Free energy, states and what they rest on.

    Attributes
    ----------
    profile : Profile
        Free energy along one or two variables, with 95 % bands.
    states : tuple of StatePopulation, length S
    member : ndarray of bool, shape (M, S)
        Which structures make up each state.
    elsewhere : float
        Population in no state.
    nats_between : ndarray, shape (S, S), or None
        Expected nats an image between the states.
    membership : ndarray, shape (N, S), float32
        Probability of each state given each image; rows add up to 1, less what lies elsewhere.
    uid, row : ndarray, shape (N,)
        The particles, and their rows in the table.
    detail : tuple of Detail, or None
        What the images can tell along each variable; None where the likelihood has no noise.
    needed_nats : float
        Between two minima, from which on so many images show two.
    unresolved : ndarray of bool, of the shape of the bins
        Where the profile is not to be believed: basins that the images hardly tell from a neighbour, or all
        of it where it is narrower than the finest detail.
    fit : SmoothPopulations
    z : ndarray, shape (K, d)
        Codes of the structures that images were compared with.
    values : ndarray, shape (axes, M)
        Variables of all structures, those first.
    n_images : int
    groups : int
        Micrographs by which images were drawn again; 0 where it was one by one.
    evidence : float
        Mean log evidence of an image over pure noise, nats.
    gain, gain_error : float
        By how much that exceeds the best single structure's, with its standard error.
    warnings : tuple of str
    """

    profile: Profile
    states: tuple[StatePopulation, ...]
    member: NDArray[np.bool_]
    elsewhere: float
    nats_between: Array | None
    membership: NDArray[np.float32]
    uid: NDArray[np.uint64]
    row: NDArray[np.int64]
    detail: tuple[Detail, ...] | None
    needed_nats: float
    unresolved: NDArray[np.bool_]
    fit: SmoothPopulations
    z: NDArray[np.float32]
    values: Array
    n_images: int
    groups: int
    evidence: float
    gain: float
    gain_error: float
    warnings: tuple[str, ...]

    @property
    def finest(self) -> tuple[float, ...] | None:
        """Shortest period that the images show along each variable, the median over the population."""
        if self.detail is None:
            return None
        found = []
        for d, one in enumerate(self.detail):
            others = tuple(i for i in range(len(self.profile.axes)) if i != d)
            weight = self.profile.population.sum(axis=others)
            found.append(float(weighted_quantiles(one.finest, weight, (0.5,))[0]))
        return tuple(found)


def make_landscape(
    run: Run,
    cvs: Sequence[str],
    *,
    states: Sequence[str] = (),
    bins: int = BINS,
    candidates: int = CANDIDATES,
    resamples: int = RESAMPLES,
    seed: int = 0,
    progress: ProgressReporter | None = None,
) -> Landscape:
    """Landscape of a run along one or two collective variables.

    Parameters
    ----------
    run : Run
        With an embedding, and its images at hand.
    cvs : sequence of str
        As of `cryoscape.analysis.variables.variable_syntax.USAGE`.
    states : sequence of str
        "name: condition"; by default the basins of the profile.
    bins : int
        Of each variable.
    candidates : int
        Structures that all images are compared with.
    resamples : int
        Fits behind the intervals.
    seed : int
    progress : ProgressReporter, optional

    Returns
    -------
    Landscape

    Raises
    ------
    InputError
        A variable or state cannot be read, the variable does not change, or the run has no embedding.
    """
    _check(cvs, bins, candidates, resamples)
    variables = [cv_of_run(run, text) for text in cvs]
    z = candidate_codes(run, max(_FINE, 4 * candidates), seed)
    values = _values(run, variables, z, progress)
    given = user_states(run, states, z) if states else None
    distance, count = _distances(run, z), min(candidates, len(z))
    table = likelihood_table(run, z[:count], progress=progress)
    groups = resampling_groups(run.particles.micrograph)
    fit = fit_populations(table, distance, groups=groups, resamples=resamples, seed=seed, progress=progress)
    profile = _profile(variables, values, fit, bins, len(table))
    found = given or basin_states(profile, values)
    nats, needed = nats_between_codes(run, z[:count]), needed_nats(len(table))
    parts = fit.weight[:, None] * fit.shared
    populations, between = state_populations(found, fit.fine, fit.resampled, parts, nats, needed)
    detail = None
    if nats is not None:
        detail = tuple(
            detail_along(nats, value[:count], axis.edges, len(table), axis.period)
            for value, axis in zip(values, profile.axes)
        )
    single = table[:, table.mean(axis=0).argmax()]
    top = table.max(axis=1)
    gain = np.log(np.exp(table - top[:, None]) @ fit.weight) + top - single
    member = fit.responsibilities(table) @ (fit.shared @ found.member)
    landscape = Landscape(
        profile=profile,
        states=populations,
        member=found.member,
        elsewhere=float(fit.fine[~found.member.any(axis=1)].sum()),
        nats_between=between,
        membership=member.astype(np.float32),
        uid=run.particles.uid,
        row=run.particles.row,
        detail=detail,
        needed_nats=needed,
        unresolved=_unresolved(profile, values, fit, parts, nats, detail, needed),
        fit=fit,
        z=z[:count],
        values=values,
        n_images=len(table),
        groups=0 if groups is None else len(np.unique(groups)),
        evidence=fit.evidence,
        gain=float(gain.mean()),
        gain_error=float(gain.std() / np.sqrt(len(gain))),
        warnings=(),
    )
    return _with_warnings(landscape, run, nats)


def _check(cvs: Sequence[str], bins: int, candidates: int, resamples: int) -> None:
    if not 1 <= len(cvs) <= 2:
        raise InputError(
            f"a landscape has one or two collective variables, not {len(cvs)}",
            remedy='Give --cv "distance A:55 A:169", once or twice.',
        )
    for name, value, least in (
        ("bins", bins, 4),
        ("candidates", candidates, 4),
        ("resamples", resamples, 20),
    ):
        if value < least:
            raise InputError(f"--{name} {value} is too few", remedy=f"Give {least} or more.")


def _values(
    run: Run, variables: Sequence[CollectiveVariable], z: NDArray, progress: ProgressReporter | None
) -> Array:
    """Variables (axes, M) of what codes decode to; refuses those that do not change."""
    decoder, found = RunDecoder(run), []
    with torch.no_grad(), reporter_or_silent(progress).task("decode", len(z), "structures") as task:
        for part in torch.as_tensor(z, dtype=torch.float32).split(decoder.chunk):
            decoded = decoder(part)
            found.append(torch.stack([v(decoded.objects, decoded.present) for v in variables]))
            task.advance(len(part))
    values = torch.cat(found, 1).double().numpy()
    for variable, value in zip(variables, values):
        if len(z) < 4 or np.ptp(value) < _STILL * variable.scale:
            raise InputError(
                f"`{variable.text}` does not change in what this run decodes: {variable.write(value[0])}",
                file=run.path,
                remedy="Take a variable of what moves; `cryoscape analyze` shows it.",
            )
    return values


def _distances(run: Run, z: NDArray[np.float32]) -> Array:
    """Between what codes decode to, (M, M): A rms; between the codes where there are maps."""
    points = z.astype(np.float64)
    if run.has_structures:
        coords = run.decode(z)
        points = (coords - coords.mean(axis=0)).reshape(len(z), -1).astype(np.float64)
        points /= np.sqrt(coords.shape[1])
        present = presence(run, z)
        points = points if present is None else np.concatenate([points, present], axis=1)
    power = np.square(points).sum(axis=1)
    squared = power[:, None] + power - 2 * points @ points.T
    np.fill_diagonal(squared, 0.0)
    return np.sqrt(np.maximum(squared, 0.0))


def _profile(
    variables: Sequence[CollectiveVariable], values: Array, fit: SmoothPopulations, bins: int, n: int
) -> Profile:
    # What any of the randomised fits populates belongs on the axis.
    shown = 0.5 * (fit.fine + fit.resampled.mean(axis=0))
    axes = [make_axis(variable, value, shown, bins) for variable, value in zip(variables, values)]
    return make_profile(axes, values, fit.fine, fit.resampled, n)


def _unresolved(
    profile: Profile,
    values: Array,
    fit: SmoothPopulations,
    parts: Array,
    nats: Array | None,
    detail: tuple[Detail, ...] | None,
    needed: float,
) -> NDArray[np.bool_]:
    """Bins that the images do not vouch for."""
    out = np.zeros(profile.population.shape, dtype=bool)
    if nats is None or detail is None:
        return out
    basins: LandscapeStates = basin_states(profile, values)
    if basins.member.shape[1] == 1:
        return out | all(
            _width(value, fit.fine)
            < float(np.average(np.minimum(one.finest, 1e9), weights=_margin(profile, d)))
            for d, (value, one) in enumerate(zip(values, detail))
        )
    found, _ = state_populations(basins, fit.fine, fit.resampled, parts, nats, needed)
    place = tuple(axis.bin_of(value) for axis, value in zip(profile.axes, values))
    lost = np.array([state.resolved is False for state in found])
    out[tuple(p[basins.member[:, lost].any(axis=1)] for p in place)] = True
    return out


def _margin(profile: Profile, axis: int) -> Array:
    return profile.population.sum(axis=tuple(d for d in range(len(profile.axes)) if d != axis))


def _width(value: Array, weight: Array) -> float:
    """What holds nine tenths of the weight (M,), from the 5 % to the 95 % quantile of the values (M,)."""
    return float(np.diff(weighted_quantiles(value, weight, (0.05, 0.95)))[0])


def _with_warnings(found: Landscape, run: Run, nats: Array | None) -> Landscape:
    from dataclasses import replace

    said = []
    if not run.image_model.likelihood.in_nats:
        said.append(
            f"the {run.config.likelihood.kind} likelihood is not in nats: populations and intervals are not "
            "calibrated, and nothing is known of what the images resolve"
        )
    if found.gain < 2 * found.gain_error:
        said.append(
            f"the images do not ask for more than one conformation: {found.gain:+.4f} +- "
            f"{found.gain_error:.4f} nats an image"
        )
    if nats is not None and len(nats) > 1:
        apart = float(np.median((nats + np.diag(np.full(len(nats), np.inf))).min(axis=1)))
        if apart > _COARSE:
            said.append(
                f"the images tell neighbouring structures apart ({apart:.1f} nats): take more than "
                f"--candidates {len(nats)}"
            )
    for state in found.states:
        if state.resolved is False:
            said.append(
                f"{state.name} is {state.nats:.2g} nats an image from its neighbour; "
                f"{found.needed_nats:.2g} are needed to tell them apart with {found.n_images} images"
            )
    if found.unresolved.all() and len(found.states) == 1:
        said.append("the distribution is narrower than the finest detail that the images show")
    return replace(found, warnings=tuple(said))
