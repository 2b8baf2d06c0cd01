"""Annealed importance sampling: weights and log Z along a path from independent spins (Neal 2001).

The path keeps the fields and turns the couplings on (Salakhutdinov and Murray 2008); the largest colour is
summed out of the weights, which makes them more even.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from cryoscape.priors.samplers.base import IsingProblem, IsingSampler, IsingSamples, seeded
from cryoscape.priors.samplers.bennett import log_mean_exp
from cryoscape.priors.samplers.ordered import ColourOrder, OrderedProblem, logistic_noise

CHAINS = 500
TEMPERATURES = 1000


@dataclass(frozen=True)
class AnnealedEstimate:
    """log Z from weighted chains.

    Attributes
    ----------
    log_z : float
        Log of the mean weight, nats: of sum exp(-beta E), the offset included.
    std_err : float
        Its standard error.
    ess : float
        Effective sample size of the weights.
    sd : float
        Standard deviation of the log weights; the estimate can be trusted up to about 1.
    spins : Tensor, shape (R, n), int8
        The ends of the chains, samples of the law where weighted.
    log_weight : Tensor, shape (R,), double
        Log weights: their exponentials are estimates of Z.
    """

    log_z: float
    std_err: float
    ess: float
    sd: float
    spins: Tensor
    log_weight: Tensor

    @classmethod
    def of(cls, spins: Tensor, log_weight: Tensor) -> AnnealedEstimate:
        """From the ends of chains and their weights."""
        log_z, error, ess = log_mean_exp(log_weight)
        return cls(float(log_z), float(error), float(ess), float(log_weight.std()), spins, log_weight)


class AnnealedBatch(NamedTuple):
    """log Z of B problems that differ in their fields.

    Attributes
    ----------
    log_z, err : Tensor, shape (B,), double
        Log of the mean weight, and its standard error.
    spins : Tensor, shape (B, R, n), int8
        The ends of the chains.
    log_weight : Tensor, shape (B, R), double
    """

    log_z: Tensor
    err: Tensor
    spins: Tensor
    log_weight: Tensor


def annealed(
    stages: Iterable[OrderedProblem],
    spins: Tensor,
    generator: torch.Generator,
    sweeps: int = 1,
    backwards: bool = False,
) -> tuple[Tensor, Tensor]:
    """Carry chains along a path of laws.

    Parameters
    ----------
    stages : iterable of OrderedProblem
        The laws; the spins are samples of the first one.
    spins : Tensor, shape (n, C)
        Changed in place.
    generator : torch.Generator
    sweeps : int
        Sweeps at every law.
    backwards : bool
        Whether this is the reversal of a path forwards, so that its sweeps are reversed, too.

    Returns
    -------
    spins : Tensor, shape (n, C)
    log_weight : Tensor, shape (C,), double
        Log of the products of the ratios of unnormalised laws.
    """
    path = iter(stages)
    before = next(path)
    log_weight = torch.zeros(spins.shape[1], dtype=torch.float64, device=spins.device)
    for stage in path:
        log_weight += stage.log_marginal(spins) - before.log_marginal(spins)
        for _ in range(sweeps):
            noise = logistic_noise(spins.shape, generator, spins)
            spins = stage.sweep(spins, noise, backwards=backwards)
        before = stage
    return spins, log_weight


def independent_start(base: OrderedProblem, columns: int, generator: torch.Generator) -> Tensor:
    """Samples of independent spins in fields, shape (n, columns)."""
    noise = logistic_noise((len(base.fields), columns), generator, base.fields)
    return base.decoupled().sweep(torch.ones_like(noise), noise)


def interpolated(start: OrderedProblem, end: OrderedProblem, steps: int) -> Iterator[OrderedProblem]:
    """Laws from one problem to another in equal steps, both ends among them: steps + 1."""
    for step in range(steps + 1):
        yield start.blend(end, step / steps)


@torch.no_grad()
def annealed_importance(
    problem: IsingProblem,
    *,
    beta: float = 1.0,
    chains: int = CHAINS,
    temperatures: int = TEMPERATURES,
    base_fields: Tensor | None = None,
    seed: int | None = 0,
) -> AnnealedEstimate:
    """Estimate log Z by annealed importance sampling.

    Parameters
    ----------
    problem : IsingProblem
    beta : float
        Inverse temperature.
    chains : int
        R, independent of each other.
    temperatures : int
        Steps from independent spins to the law, a sweep at each.
    base_fields : Tensor, shape (n,), optional
        Fields of the independent spins at the start, for example those that give the means of data; the
        problem's own by default.
    seed : int, optional
    """
    generator, order = seeded(seed), ColourOrder.of(problem)
    target = order.problem(problem, beta)
    base = target.decoupled()
    if base_fields is not None:
        base = order.problem(problem, beta, base_fields[None].to(problem.fields)).decoupled()
    spins = independent_start(base, chains, generator)
    spins, log_weight = annealed(interpolated(base, target, temperatures), spins, generator)
    constant = base.independent() - beta * problem.offset
    return AnnealedEstimate.of(order.rows(spins), log_weight + constant)


@torch.no_grad()
def annealed_log_partition(
    problem: IsingProblem,
    fields: Tensor,
    *,
    chains: int = 16,
    temperatures: int = 64,
    seed: int | None = None,
) -> AnnealedBatch:
    """Estimate log Z of many problems on the same graph with the same couplings, at beta = 1.

    Parameters
    ----------
    problem : IsingProblem
        Its couplings and offset are those of all problems; its fields are not used.
    fields : Tensor, shape (B, n)
        Fields of every problem.
    chains : int
        R, of every problem.
    temperatures : int
        Steps from independent spins to the law.
    seed : int, optional

    Returns
    -------
    AnnealedBatch
        log_z (B,), err (B,), spins (B, R, n), log_weight (B, R).
    """
    generator, order = seeded(seed), ColourOrder.of(problem)
    target = order.problem(problem, 1.0, fields.repeat_interleave(chains, 0))
    base = target.decoupled()
    spins = independent_start(base, target.fields.shape[1], generator)
    spins, log_weight = annealed(interpolated(base, target, temperatures), spins, generator)
    log_weight = (log_weight + base.independent() - problem.offset).view(len(fields), chains)
    log_z, error, _ = log_mean_exp(log_weight)
    return AnnealedBatch(log_z, error, order.rows(spins).view(len(fields), chains, -1), log_weight)


class AnnealedImportance(IsingSampler):
    """Independent weighted samples by annealed importance sampling.

    Parameters
    ----------
    temperatures : int
        Steps from independent spins to the law.
    """

    def __init__(self, temperatures: int = TEMPERATURES) -> None:
        self.temperatures = temperatures

    def sample_ising(
        self,
        problem: IsingProblem,
        *,
        num_reads: int,
        beta: float = 1.0,
        initial_states: Tensor | None = None,
        seed: int | None = None,
    ) -> IsingSamples:
        """Draw weighted samples; `info` has `log_z`, `log_z_err`, `ess` and `sd_log_weight`.

        Raises
        ------
        InputError
            If chains are handed over.
        """
        self.refuse_initial_states(initial_states)
        found = annealed_importance(
            problem, beta=beta, chains=num_reads, temperatures=self.temperatures, seed=seed
        )
        info = {
            "log_z": found.log_z,
            "log_z_err": found.std_err,
            "ess": found.ess,
            "sd_log_weight": found.sd,
        }
        return IsingSamples(found.spins, found.log_weight, info)
