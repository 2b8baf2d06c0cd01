"""Minimum free-energy path of a run; beside it the straight one, and that along the probability flow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryoscape.analysis.landscape.landscape import BINS, CANDIDATES
from cryoscape.analysis.paths.ends import PathEnd, lowest_near, path_ends
from cryoscape.analysis.paths.first_guess import through_the_population
from cryoscape.analysis.paths.free_energy import FreeEnergy
from cryoscape.analysis.paths.metric import DecoderMetric
from cryoscape.analysis.paths.places import DecodedPlaces, places_of_run
from cryoscape.analysis.paths.population import PathPopulation, population_of_run
from cryoscape.analysis.paths.profile import PathProfile, profile_from_images
from cryoscape.analysis.paths.string_method import ITERATIONS, StringPath, minimum_path, spread_evenly
from cryoscape.analysis.populations.ensemble_weights import RESAMPLES
from cryoscape.analysis.variables.collective_variables import CollectiveVariable
from cryoscape.analysis.variables.decoded_latents import RunDecoder
from cryoscape.analysis.variables.variable_syntax import cv_of_run
from cryoscape.errors import InputError
from cryoscape.priors.transport import TransportPrior
from cryoscape.progress import ProgressReporter, reporter_or_silent

if TYPE_CHECKING:
    from cryoscape.training.run import Run

Array = NDArray[np.float64]

FRAMES = 20
"""Of a path, with both ends."""

_DRAWS = 1000
_NODES = 24
_BETWEEN = 4
# Share of the distance of two ends below which they have slid into one basin.
_SAME = 0.3


@dataclass(frozen=True, eq=False)
class Way:
    """One way from the start to the end.

    Attributes
    ----------
    name : str
        "minimum free energy", "straight" or "probability flow".
    z : ndarray, shape (n, d)
    travelled : ndarray, shape (n,)
        Length up to each point, A.
    free_energy : ndarray, shape (n,)
        Of the population model there, kT over its lowest value on the minimum free-energy path.
    """

    name: str
    z: NDArray[np.float32]
    travelled: Array
    free_energy: Array

    @property
    def length(self) -> float:
        """A."""
        return float(self.travelled[-1])

    @property
    def highest(self) -> float:
        """Highest free energy on the way, kT."""
        return float(self.free_energy.max())


@dataclass(frozen=True, eq=False)
class FreeEnergyPath:
    """A path between two conformations, and what it rests on.

    Attributes
    ----------
    ends : tuple of PathEnd
    ways : tuple of Way
        The path of minimum free energy first.
    frames : ndarray, shape (f, d)
        Codes of its frames, equally spaced.
    frame_travelled : ndarray, shape (f,)
        Length up to each, A.
    values : ndarray, shape (variables, f)
        Collective variables of the frames.
    variables : tuple of CollectiveVariable
    images : PathProfile
        Free energy along it, from the images.
    population : PathPopulation
        The model that it was found on.
    decoded : DecodedPlaces
        With the unit of lengths.
    string : StringPath
    cloud : ndarray, shape (m, d)
        Draws of the population.
    warnings : tuple of str
    """

    ends: tuple[PathEnd, PathEnd]
    ways: tuple[Way, ...]
    frames: NDArray[np.float32]
    frame_travelled: Array
    values: Array
    variables: tuple[CollectiveVariable, ...]
    images: PathProfile
    population: PathPopulation
    decoded: DecodedPlaces
    string: StringPath
    cloud: NDArray[np.float32]
    warnings: tuple[str, ...]


def make_path(
    run: Run,
    start: str | None = None,
    end: str | None = None,
    cvs: Sequence[str] = (),
    *,
    frames: int = FRAMES,
    candidates: int = CANDIDATES,
    bins: int = BINS,
    resamples: int = RESAMPLES,
    seed: int = 0,
    progress: ProgressReporter | None = None,
) -> FreeEnergyPath:
    """Find the path of minimum free energy between two conformations, and its profile from the images.

    Parameters
    ----------
    run : Run
        With an embedding, and its images at hand.
    start, end : str, optional
        As of `path_ends`.
    cvs : sequence of str
        Collective variables to follow along the path, as of
        `cryoscape.analysis.variables.variable_syntax.USAGE`.
    frames : int
        Structures or maps along the path, with both ends.
    candidates : int
        Structures that all images are compared with, the frames among them.
    bins : int
        Of the profile.
    resamples : int
        Fits behind the intervals.
    seed : int
    progress : ProgressReporter, optional

    Returns
    -------
    FreeEnergyPath

    Raises
    ------
    InputError
        The latents are bits, an end is not there, both ends are the same conformation, a variable cannot be
        read, or a number is too small.
    """
    _check(frames, candidates, bins, resamples)
    variables = tuple(cv_of_run(run, text) for text in cvs)
    population = population_of_run(run, seed)
    ends = path_ends(run, start, end, seed)
    codes = population.prior.sample(_DRAWS, torch.Generator().manual_seed(seed)).float()
    decoded = places_of_run(run, codes.numpy(), seed)
    metric = DecoderMetric(decoded.places, codes, decoded.floor)
    surface = FreeEnergy(population.prior.energy, population.prior.score, metric)
    z = torch.from_numpy(np.stack([one.z for one in ends]))
    _need_apart(run, metric, z, decoded)
    u, slid = _settled_ends(surface, ends, metric.whitened(z))
    with reporter_or_silent(progress).task("string", ITERATIONS, "iterations") as task:
        first = through_the_population(surface, u, metric.whitened(codes), _NODES)
        string = minimum_path(surface, first, task=task)
    fine = spread_evenly(metric, string.u, _BETWEEN * (frames - 1) + 1, between=8)
    ways = _ways(run, surface, fine)
    images = profile_from_images(
        run,
        ways[0].z[::_BETWEEN],
        ways[0].z,
        ways[0].travelled,
        decoded.places,
        unit=decoded.unit,
        candidates=max(candidates, frames),
        bins=bins,
        resamples=resamples,
        seed=seed,
        progress=progress,
    )
    found = FreeEnergyPath(
        ends,
        ways,
        ways[0].z[::_BETWEEN],
        ways[0].travelled[::_BETWEEN],
        _values(run, variables, ways[0].z[::_BETWEEN]),
        variables,
        images,
        population,
        decoded,
        string,
        codes.numpy(),
        () if slid else ("the two ends lie in one basin of the population model: they were kept in place",),
    )
    return replace(found, warnings=found.warnings + _warnings(run, found))


def _check(frames: int, candidates: int, bins: int, resamples: int) -> None:
    for name, value, least in (
        ("frames", frames, 3),
        ("candidates", candidates, 4),
        ("bins", bins, 6),
        ("resamples", resamples, 20),
    ):
        if value < least:
            raise InputError(f"--{name} {value} is too few", remedy=f"Give {least} or more.")


def _need_apart(run: Run, metric: DecoderMetric, z: Tensor, decoded: DecodedPlaces) -> None:
    with torch.no_grad():
        first, last = metric.places(z)
    apart = float((first - last).norm())
    if apart < 2 * decoded.floor:
        raise InputError(
            f"both ends decode to the same: they are {apart:.2g} {decoded.unit} apart",
            file=run.path,
            remedy="Name two other ends; `cryoscape analyze` shows what moves.",
        )


def _settled_ends(surface: FreeEnergy, ends: tuple[PathEnd, PathEnd], u: Tensor) -> tuple[Tensor, bool]:
    """States at the minima of their basins, particles where they are; and whether that left two ends."""
    moved = torch.stack([lowest_near(surface, p) if e.state else p for e, p in zip(ends, u)])
    metric = surface.metric
    before, after = float(metric.travelled(u)[-1]), float(metric.travelled(moved)[-1])
    return (moved, True) if after > _SAME * before else (u, False)


def _ways(run: Run, surface: FreeEnergy, fine: Tensor) -> tuple[Way, ...]:
    """The path found, the straight line, and the way along the flow where the prior has one."""
    metric = surface.metric
    share = torch.linspace(0, 1, len(fine))[:, None]
    found = {"minimum free energy": fine, "straight": fine[0] + share * (fine[-1] - fine[0])}
    if isinstance(run.prior, TransportPrior):
        ends = metric.codes(fine[[0, -1]])
        with torch.no_grad():
            found["probability flow"] = metric.whitened(run.prior.interpolate(ends[0], ends[1], len(fine)))
    lowest = float(surface(fine).min())
    return tuple(
        Way(
            name,
            metric.codes(u).numpy(),
            metric.travelled(u).numpy(),
            surface(u).numpy() - lowest,
        )
        for name, u in found.items()
    )


@torch.no_grad()
def _values(run: Run, variables: tuple[CollectiveVariable, ...], z: NDArray[np.float32]) -> Array:
    """Variables of codes, (variables, n)."""
    decoder, found = RunDecoder(run), []
    for part in torch.from_numpy(z).split(decoder.chunk):
        if variables:
            decoded = decoder(part)
            found.append(torch.stack([v(decoded.objects, decoded.present) for v in variables]))
    return torch.cat(found, 1).double().numpy() if found else np.zeros((0, len(z)))


def _warnings(run: Run, found: FreeEnergyPath) -> tuple[str, ...]:
    said, images = [], found.images
    if found.decoded.warning is not None:
        said.append(found.decoded.warning)
    if not found.string.settled:
        said.append(f"the string had not settled after {found.string.iterations} iterations")
    if not run.image_model.likelihood.in_nats:
        said.append(
            f"the {run.config.likelihood.kind} likelihood is not in nats: populations and intervals are not "
            "calibrated, and nothing is known of what the images resolve"
        )
    if images.elsewhere > 0.1:
        said.append(
            f"{100 * images.elsewhere:.0f} % of the sample lie farther from the path than half its length "
            "and are not in its profile"
        )
    if images.barriers.at_least:
        said.append("unresolvable: below one particle per bin at the top of the barrier; it is a lower limit")
    if images.side_nats is not None and images.side_nats < images.needed_nats:
        said.append(
            f"the two sides of the barrier are {images.side_nats:.2g} nats an image apart; "
            f"{images.needed_nats:.2g} are needed to tell them apart with {images.n_images} images"
        )
    return tuple(said)
