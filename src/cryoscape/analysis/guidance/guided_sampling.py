"""Samples of a prior under conditions, with the probability that the prior meets them.

Sequential Monte Carlo (Del Moral, Doucet and Jasra, J. R. Stat. Soc. B 68, 2006): walkers start as samples of
the prior; the conditions are turned on step by step; walkers are resampled by their weights and then moved.
The product of the mean weights is an estimate of

    E_p[weights x walls] = P(conditions).

A first population finds the schedule: steps that leave half of the walkers effective, and moves that suit
them. Independent repeats follow it as it is, which makes their estimates unbiased whatever it is; populations
that found their own were measured 0.1 nats too low at P = 0.001. The spread of the repeats is the error.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cryoscape.analysis.guidance.latent_moves import (
    FreshDraw,
    LatentMove,
    ProposedDraw,
    Stage,
    Tuning,
    Walkers,
    draw_walkers,
    local_move,
)
from cryoscape.analysis.variables.conditions import Conditions, Evaluation
from cryoscape.errors import InputError
from cryoscape.models.estimators import effective_samples
from cryoscape.priors.base import LatentPrior
from cryoscape.priors.guidance import GuidedSampler
from cryoscape.priors.mixture import MixturePrior
from cryoscape.priors.samplers.population import systematic

REPEATS = 4
"""Independent populations, whose spread is the error."""

LEAST_WALKERS = 256
"""In each of them."""

EFFECTIVE = 0.5
"""Share of effective walkers that a step of the conditions leaves."""

NEVER = -50.0
"""Log probability, nats, below which conditions are said never to be met."""

_LEAST_MOVES, _MOST_MOVES, _MOST_LAST = 3, 25, 60
# Correlation with where the walkers were, below which they have moved enough: on the way, and at the end.
_MOVED, _MOVED_LAST = 0.5, 0.2
_GUIDED = 512


@dataclass(frozen=True, eq=False)
class ConditionalSamples:
    """Samples of p(z) under conditions, all of the same weight.

    Attributes
    ----------
    z : Tensor, shape (n, d)
    log_probability : float
        ln of the probability that the prior meets the conditions: the mean of the product of all weights.
        Minus this is a free energy in kT.
    std_err : float
        Its standard error by the repeats, nats.
    ess : float
        Effective number of independent draws of the prior that the population descends from; at most n.
    stages : int
        Steps in which the conditions were turned on; 1 where half of the prior's samples meet them.
    acceptance : float
        Share of accepted moves at the end.
    """

    z: Tensor
    log_probability: float
    std_err: float
    ess: float
    stages: int
    acceptance: float

    @property
    def probability(self) -> float:
        """P(conditions); of weights that exceed 1, their mean."""
        return math.exp(self.log_probability)


def sample_under_conditions(
    prior: LatentPrior,
    conditions: Conditions,
    n: int,
    generator: torch.Generator,
    *,
    repeats: int = REPEATS,
    walkers: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> ConditionalSamples:
    """Draw from p(z) times the weights of conditions.

    Parameters
    ----------
    prior : LatentPrior
        Any. One with a sampler that can be guided (`priors.guidance.GuidedSampler`) also proposes guided
        samples, which Metropolis corrects.
    conditions : Conditions
    n : int
        Samples wanted.
    generator : torch.Generator
    repeats : int
        Independent populations, two or more.
    walkers : int, optional
        In each; by default enough for n samples, and `LEAST_WALKERS` at least.
    progress : callable, optional
        Called with 1 when a population is done: the first one, and every repeat.

    Returns
    -------
    ConditionalSamples

    Raises
    ------
    InputError
        The conditions are never met, as far as the sampler can find.
    """
    size = max(LEAST_WALKERS, -(-n // repeats)) if walkers is None else walkers
    moves = _Moves.of(prior, conditions, _guided_proposal(prior, conditions, generator))
    schedule = _find_schedule(moves, size, generator)
    if progress is not None:
        progress(1)
    done = []
    for _ in range(repeats):
        done.append(_follow(schedule, moves, size, generator))
        if progress is not None:
            progress(1)
    if all(math.isinf(one.log_z) for one in done):
        raise _never_met(conditions, done[0].walkers)
    log_z = torch.tensor([one.log_z for one in done], dtype=torch.float64)
    mean = float(torch.logsumexp(log_z, 0)) - math.log(repeats)
    share = torch.softmax(log_z, 0)
    spread = float((share * repeats).std()) / math.sqrt(repeats)
    # Populations count as the probability that they found, which keeps the whole without bias.
    z = torch.cat([one.walkers.z for one in done])
    picked = systematic(log_z.repeat_interleave(size), generator)
    chosen = picked[torch.randperm(len(picked), generator=generator)[:n].to(picked.device)]
    squares = sum(float(s) ** 2 * _family_squares(one.walkers.family) for s, one in zip(share, done))
    return ConditionalSamples(
        z[chosen],
        mean,
        spread,
        min(float(n), 1 / squares),
        len(schedule),
        sum(one.acceptance for one in done) / repeats,
    )


@dataclass(frozen=True)
class _Population:
    walkers: Walkers
    log_z: float
    acceptance: float


@dataclass(frozen=True)
class _Leg:
    """One step of a schedule: the law to go to, and the moves made there."""

    stage: Stage
    moves: int
    tuning: Tuning


@dataclass(frozen=True)
class _Moves:
    """The moves of a prior under conditions."""

    prior: LatentPrior
    conditions: Conditions
    local: LatentMove
    jumps: tuple[LatentMove, ...]

    @classmethod
    def of(cls, prior: LatentPrior, conditions: Conditions, proposal: LatentPrior | None) -> _Moves:
        jumps: tuple[LatentMove, ...] = (FreshDraw(prior, conditions),)
        if proposal is not None:
            jumps += (ProposedDraw(prior, conditions, proposal),)
        return cls(prior, conditions, local_move(prior, conditions), jumps)


def _find_schedule(moves: _Moves, size: int, generator: torch.Generator) -> list[_Leg]:
    """Turn the conditions on for a population, as fast as it can follow."""
    walkers = draw_walkers(moves.prior, moves.conditions, size, generator)
    stage, log_z = Stage(0.0, 0.0), 0.0
    last = Stage(1.0, 0.0, cut=moves.conditions.walls)
    legs: list[_Leg] = []
    while stage != last:
        stage, gain = _next_stage(walkers.found, stage, last, moves.conditions)
        log_z += float(torch.logsumexp(gain, 0)) - math.log(size)
        if not log_z > NEVER:
            raise _never_met(moves.conditions, walkers)
        walkers = walkers.take(systematic(gain, generator))
        walkers = _jump(walkers, stage, moves, generator)
        moves.local.start(walkers, stage)
        first, least, most = walkers.place, _LEAST_MOVES, _MOST_LAST if stage == last else _MOST_MOVES
        enough = _MOVED_LAST if stage == last else _MOVED
        for count in range(1, most + 1):
            walkers = moves.local(walkers, stage, generator)
            if count >= least and _correlation(first, walkers.place) < enough:
                break
        legs.append(_Leg(stage, count, moves.local.tuning))
    return legs


def _follow(schedule: Sequence[_Leg], moves: _Moves, size: int, generator: torch.Generator) -> _Population:
    """Take a new population along a schedule."""
    walkers = draw_walkers(moves.prior, moves.conditions, size, generator)
    stage, log_z, accepted = Stage(0.0, 0.0), 0.0, 0.0
    for leg in schedule:
        gain = _gain(walkers.found, stage, leg.stage)
        stage = leg.stage
        log_z += float(torch.logsumexp(gain, 0)) - math.log(size)
        if math.isinf(log_z):
            return _Population(walkers, log_z, 0.0)
        walkers = walkers.take(systematic(gain, generator))
        walkers = _jump(walkers, stage, moves, generator)
        moves.local.start(walkers, stage, leg.tuning)
        accepted = 0.0
        for _ in range(leg.moves):
            before = walkers.z
            walkers = moves.local(walkers, stage, generator)
            accepted += float((walkers.z != before).any(-1).float().mean()) / leg.moves
    return _Population(walkers, log_z, accepted)


def _jump(walkers: Walkers, stage: Stage, moves: _Moves, generator: torch.Generator) -> Walkers:
    for move in moves.jumps:
        walkers = move(walkers, stage, generator)
    return walkers


def _gain(found: Evaluation, before: Stage, after: Stage) -> Tensor:
    """Log weights (n,) of the step from one stage to another, nats."""
    # A walker that had no weight was not kept by the last resampling.
    return (after.log_weight(found) - before.log_weight(found)).double()


def _never_met(conditions: Conditions, walkers: Walkers) -> InputError:
    nearest = (walkers.found.weight + walkers.found.wall).argmax()
    values = conditions.values(walkers.z[nearest : nearest + 1])[0]
    reached = ", ".join(
        f"{float(value):.4g} {condition.unit}".rstrip() + f" for `{condition.text}`"
        for condition, value in zip(conditions.conditions, values)
    )
    return InputError(
        f"no conformation of this population meets the conditions; the nearest found has {reached}",
        remedy="Loosen them; `cryoscape sample` without --where shows what the population has.",
    )


def _next_stage(found: Evaluation, stage: Stage, last: Stage, conditions: Conditions) -> tuple[Stage, Tensor]:
    """The farthest stage that leaves enough effective walkers, and their log weights (n,), nats.

    All conditions grow together to full power; then the walls alone grow on, until enough walkers are inside.
    """

    def gain(to: Stage) -> Tensor:
        return _gain(found, stage, to)

    def at(power: float) -> Stage:
        return Stage(min(power, 1.0), power if conditions.walls else 0.0)

    wanted = EFFECTIVE * len(found.weight)
    whole = gain(last)
    if _effective(whole) >= wanted:
        return last, whole
    low = max(stage.weight, stage.wall)
    if not conditions.walls and low >= 1:
        return last, whole
    high = 2 * low if low >= 1 else 1.0
    while conditions.walls and _effective(gain(at(high))) > wanted and high < 1e12:
        low, high = high, 2 * high
    for _ in range(40):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if _effective(gain(at(middle))) >= wanted else (low, middle)
    # The first power may already be too much for all but one of the walkers.
    return (at(high), gain(at(high))) if low == max(stage.weight, stage.wall) else (at(low), gain(at(low)))


def _effective(log_weight: Tensor) -> float:
    """Kish's effective number of weights (n,); 0 where all are 0."""
    if not bool((log_weight > -math.inf).any()):
        return 0.0
    return float(effective_samples(log_weight))


def _correlation(first: Tensor, now: Tensor) -> float:
    """Correlation of places (n, d) with earlier ones, mean over the dimensions that vary."""
    a, b = first - first.mean(0), now - now.mean(0)
    scale = (a.square().sum(0) * b.square().sum(0)).sqrt()
    varies = scale > 0
    if not bool(varies.any()):
        return 0.0
    return float(((a * b).sum(0)[varies] / scale[varies]).mean())


def _family_squares(family: Tensor) -> float:
    """Sum of the squared shares of families (n,)."""
    count = family.unique(return_counts=True)[1].double() / len(family)
    return float(count.square().sum())


def _guided_proposal(
    prior: LatentPrior, conditions: Conditions, generator: torch.Generator
) -> LatentPrior | None:
    """A mixture fitted to samples that the prior's own sampler made under guidance, if it has one."""
    if not isinstance(prior, GuidedSampler) or prior.support == "binary":
        return None

    def gradient(z: Tensor) -> Tensor:
        return conditions.with_gradient(z, 1.0, 1.0)[1]

    z = prior.guided_sample(_GUIDED, gradient, generator)
    z = z[z.isfinite().all(-1)]
    if len(z) < _GUIDED // 2:
        return None
    mixture = MixturePrior(prior.z_dim, 4).to(z)
    mixture.shift.copy_(z.mean(0))
    mixture.scale.copy_(z.std(0).mean().clamp_min(1e-6))
    mixture.warm_start(z, generator)
    return mixture.requires_grad_(False)
