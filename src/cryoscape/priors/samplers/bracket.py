"""A lower and an upper bound of log Z, by annealing in both directions.

The mean log weight of annealing towards a law is below its log Z, and minus that of annealing away from it,
started from samples of the law itself, above it; the gap tells how far from equilibrium the chains were
(bidirectional Monte Carlo: Grosse, Ghahramani and Adams 2015).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cryoscape.priors.samplers.annealed import (
    CHAINS,
    TEMPERATURES,
    annealed,
    annealed_importance,
    interpolated,
)
from cryoscape.priors.samplers.base import IsingProblem, IsingSampler, chain_starts, seeded
from cryoscape.priors.samplers.bennett import bennett_log_ratio
from cryoscape.priors.samplers.ordered import ColourOrder
from cryoscape.priors.samplers.tempering import ParallelTempering


@dataclass(frozen=True)
class Bracket:
    """log Z between a lower and an upper bound, each on average.

    Attributes
    ----------
    lower, upper : float
        Mean log weight of annealing towards the law, and minus that of annealing away from it.
    lower_err, upper_err : float
        Standard errors.
    log_z, log_z_err : float
        The estimate from both directions together (Bennett 1976).
    """

    lower: float
    lower_err: float
    upper: float
    upper_err: float
    log_z: float
    log_z_err: float


@torch.no_grad()
def annealed_bracket(
    problem: IsingProblem,
    *,
    beta: float = 1.0,
    chains: int = CHAINS,
    temperatures: int = TEMPERATURES,
    samples: Tensor | None = None,
    sampler: IsingSampler | None = None,
    seed: int = 0,
) -> Bracket:
    """Bracket log Z by annealing towards the law and away from it.

    Parameters
    ----------
    problem : IsingProblem
    beta : float
    chains, temperatures : int
        See `annealed_importance`.
    samples : Tensor, shape (S, n), optional
        Samples of the law to start from; the upper bound is one only as far as they are.
    sampler : IsingSampler, optional
        Draws them where none are given; parallel tempering of 200 sweeps by default.
    seed : int
    """
    if samples is None:
        drawn = (sampler or ParallelTempering(200)).sample_ising(
            problem, num_reads=chains, beta=beta, seed=seed
        )
        samples = drawn.resampled(seeded(seed))
    generator, order = seeded(seed + 1), ColourOrder.of(problem)
    target = order.problem(problem, beta)
    base = target.decoupled()
    start = chain_starts(problem, len(samples), samples, generator)
    columns = order.columns(start, problem.fields)
    path = interpolated(target, base, temperatures)
    _, backward = annealed(path, columns, generator, backwards=True)
    constant = float(base.independent()) - beta * problem.offset
    found = annealed_importance(problem, beta=beta, chains=chains, temperatures=temperatures, seed=seed + 2)
    ratio, error = bennett_log_ratio(found.log_weight - constant, backward)
    return Bracket(
        lower=float(found.log_weight.mean()),
        lower_err=float(found.log_weight.std()) / chains**0.5,
        upper=constant - float(backward.mean()),
        upper_err=float(backward.std()) / len(samples) ** 0.5,
        log_z=constant + ratio,
        log_z_err=error,
    )
