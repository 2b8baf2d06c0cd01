"""States of a landscape: the user's ranges, or the basins of the profile; populations and free energies."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from cryoscape.analysis.landscape.identifiability import nats_between_means
from cryoscape.analysis.landscape.profile import LEVEL, Axis, Profile, interval
from cryoscape.analysis.variables.condition_syntax import parse_condition
from cryoscape.analysis.variables.conditions import Conditions, FitCondition, FunctionCondition
from cryoscape.analysis.variables.decoded_latents import RunDecoder
from cryoscape.errors import InputError

if TYPE_CHECKING:
    from cryoscape.training.run import Run

Array = NDArray[np.float64]

DIP = 0.5
"""Two minima are one basin where the free energy between them rises by less than this, kT."""

_NAMED = re.compile(r"\s*([^:<>]*[^:<>\s])\s*:\s+(\S.*)")


@dataclass(frozen=True, eq=False)
class LandscapeStates:
    """S states and what structures belong to them.

    Attributes
    ----------
    names, ranges : tuple of str, length S
        `ranges` say what belongs to each.
    member : ndarray of bool, shape (M, S)
        Which structures; one in no state is elsewhere.
    """

    names: tuple[str, ...]
    ranges: tuple[str, ...]
    member: NDArray[np.bool_]


@dataclass(frozen=True)
class StatePopulation:
    """A state's share of the vitrified sample.

    Attributes
    ----------
    name, range : str
    population, low, high : float
        With its 95 % interval.
    free_energy, free_energy_low, free_energy_high : float
        -ln of the population over that of the fullest state, kT, with its 95 % interval.
    nats : float or None
        Expected nats an image between it and the nearest other state; None where that is not known.
    resolved : bool or None
        Whether that is enough for the number of images.
    """

    name: str
    range: str
    population: float
    low: float
    high: float
    free_energy: float
    free_energy_low: float
    free_energy_high: float
    nats: float | None
    resolved: bool | None


def user_states(run: Run, texts: Sequence[str], z: NDArray) -> LandscapeStates:
    """States of the user: "closed: distance A:55 A:169 < 20". Conditions of the same name hold together.

    Parameters
    ----------
    run : Run
    texts : sequence of str
    z : ndarray, shape (M, d)
        Codes of the structures.

    Raises
    ------
    InputError
        A text cannot be read, a state holds nothing that the run decodes, or two states overlap.
    """
    found: dict[str, list[str]] = {}
    for text in texts:
        match = _NAMED.fullmatch(text)
        if match is None:
            raise InputError(
                f"`{text}` names no state", remedy='Write "name: condition", with a blank after the colon.'
            )
        found.setdefault(match[1], []).append(match[2])
    points, decoder = torch.as_tensor(z, dtype=torch.float32), RunDecoder(run)
    columns = []
    for name, ranges in found.items():
        conditions = Conditions([parse_condition(run, text) for text in ranges], decoder, decoder.chunk)
        for one in conditions.conditions:
            if isinstance(one, FitCondition | FunctionCondition):
                raise InputError(f"`{one.text}` is no range: a state ends nowhere", remedy="Give limits.")
        value = conditions.values(points)
        held = torch.stack([one.holds(v) for one, v in zip(conditions.conditions, value.T)]).all(0).numpy()
        if not held.any():
            raise InputError(
                f"nothing that the run decodes is in the state {name!r}",
                remedy=f"Values run from {float(value[:, 0].min()):.4g} to {float(value[:, 0].max()):.4g}.",
            )
        columns.append(held)
    member = np.stack(columns, axis=1)
    if (member.sum(axis=1) > 1).any():
        a, b = np.flatnonzero(member[(member.sum(axis=1) > 1).argmax()])[:2]
        names = tuple(found)
        raise InputError(
            f"the states {names[a]!r} and {names[b]!r} overlap", remedy="Give ranges that exclude each other."
        )
    return LandscapeStates(tuple(found), tuple(" and ".join(r) for r in found.values()), member)


def basin_states(profile: Profile, values: Array) -> LandscapeStates:
    """States of a profile: its basins, along the first variable (`find_basins`).

    Parameters
    ----------
    profile : Profile
    values : ndarray, shape (axes, M)
    """
    label = find_basins(profile)
    count = int(label.max()) + 1
    place = tuple(axis.bin_of(value) for axis, value in zip(profile.axes, values))
    member = label[place][:, None] == np.arange(count)
    ranges = [_extent(profile.axes, label == k) for k in range(count)]
    return LandscapeStates(tuple(f"state {k + 1}" for k in range(count)), tuple(ranges), member)


def find_basins(profile: Profile) -> NDArray[np.int64]:
    """Basin of every bin, from 0 in the order of the axes.

    Bins are filled from the lowest up. Where two basins meet, they are one unless the way from the shallower
    minimum up to there is at least `DIP` and is a rise in 97.5 % of the randomised fits.

    Parameters
    ----------
    profile : Profile

    Returns
    -------
    ndarray of int64, of the shape of the bins
    """
    shape = profile.population.shape
    energy = -np.log(np.maximum(profile.population.ravel(), 1e-300))
    drawn = -np.log(np.maximum(profile.resampled.reshape(len(profile.resampled), -1), 1e-300))
    label = np.full(energy.size, -1)
    lowest: list[int] = []
    merged: dict[int, int] = {}

    def root(basin: int) -> int:
        while basin in merged:
            basin = merged[basin]
        return basin

    for here in np.argsort(energy, kind="stable"):
        near = {root(label[j]) for j in _neighbours(int(here), shape, profile.axes) if label[j] >= 0}
        ranked = sorted(near, key=lambda basin: energy[lowest[basin]])
        if not ranked:
            label[here] = len(lowest)
            lowest.append(int(here))
            continue
        label[here] = ranked[0]
        for other in ranked[1:]:
            minimum = lowest[other]
            rise = drawn[:, here] - drawn[:, minimum]
            sure = not len(rise) or np.quantile(rise, 0.5 - LEVEL / 2) > 0
            if energy[here] - energy[minimum] < DIP or not sure:
                merged[other] = ranked[0]
    final = np.array([root(basin) for basin in label])
    order = {basin: k for k, basin in enumerate(dict.fromkeys(final.tolist()))}
    return np.array([order[basin] for basin in final.tolist()]).reshape(shape)


def _neighbours(index: int, shape: tuple[int, ...], axes: Sequence[Axis]) -> list[int]:
    place = np.unravel_index(index, shape)
    found = []
    for d, axis in enumerate(axes):
        for step in (-1, 1):
            moved = [int(p) for p in place]
            moved[d] += step
            if axis.period is not None:
                moved[d] %= shape[d]
            if 0 <= moved[d] < shape[d]:
                found.append(int(np.ravel_multi_index(moved, shape)))
    return found


def _extent(axes: Sequence[Axis], inside: NDArray[np.bool_]) -> str:
    """Range of a basin on each axis, in words."""
    words = []
    for d, axis in enumerate(axes):
        held = np.asarray(np.moveaxis(inside, d, 0).reshape(inside.shape[d], -1).any(axis=1))
        bins = np.flatnonzero(held)
        gap = np.flatnonzero(~held)
        if axis.period is not None and len(gap) and bins[0] == 0 and bins[-1] == len(held) - 1:
            # It crosses the seam of the circle.
            low, high = axis.edges[gap[-1] + 1], axis.edges[gap[0]]
        else:
            low, high = axis.edges[bins[0]], axis.edges[bins[-1] + 1]
        words.append(f"{low:.4g}..{high:.4g}{' ' + axis.unit if axis.unit else ''}")
    return " x ".join(words)


def state_populations(
    states: LandscapeStates,
    fine: Array,
    resampled: Array,
    parts: Array,
    nats: Array | None,
    needed: float,
) -> tuple[tuple[StatePopulation, ...], Array | None]:
    """Populations of the states, and how well the images tell them apart.

    Parameters
    ----------
    states : LandscapeStates
    fine, resampled : ndarray, shape (M,) and (R, M)
    parts : ndarray, shape (K, M)
        Population that each of the K structures with images gives to each of the M.
    nats : ndarray, shape (K, K), or None
        Expected nats between the K.
    needed : float
        Nats that two states must be apart.

    Returns
    -------
    populations : tuple of StatePopulation
    between : ndarray, shape (S, S), or None
        Expected nats between the mean projections of the states.
    """
    member = states.member.astype(np.float64)
    share, drawn = fine @ member, resampled @ member
    low, high = interval(drawn)
    top = int(share.argmax())
    tiny = 1e-300
    energy = np.log(np.maximum(share[top], tiny) / np.maximum(share, tiny))
    energy_low, energy_high = interval(
        np.log(np.maximum(drawn[:, top : top + 1], tiny) / np.maximum(drawn, tiny))
    )
    between = nearest = None
    if nats is not None and len(share) > 1:
        mixture = (parts @ member).T + 1e-300
        mixture = mixture / mixture.sum(axis=1, keepdims=True)
        between = nats_between_means(nats, mixture[:, None], mixture[None])
        nearest = (between + np.diag(np.full(len(share), np.inf))).min(axis=1)
    columns = (share, low, high, energy, energy_low, energy_high)
    found = []
    for k, name in enumerate(states.names):
        share_k, low_k, high_k, energy_k, energy_low_k, energy_high_k = (float(v[k]) for v in columns)
        found.append(
            StatePopulation(
                name=name,
                range=states.ranges[k],
                population=share_k,
                low=low_k,
                high=high_k,
                free_energy=energy_k,
                free_energy_low=energy_low_k,
                free_energy_high=energy_high_k,
                nats=None if nearest is None else float(nearest[k]),
                resolved=None if nearest is None else bool(nearest[k] >= needed),
            )
        )
    return tuple(found), between
