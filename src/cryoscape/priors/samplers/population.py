"""Population annealing: annealed importance sampling whose chains are resampled on the way.

Hukushima and Iba 2003. Where the weights have become uneven, chains of small weight are replaced by copies of
others, so that the population follows the law as it cools; its samples have equal weights in the end.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from cryoscape.priors.samplers.annealed import independent_start, interpolated
from cryoscape.priors.samplers.base import IsingProblem, IsingSampler, IsingSamples, seeded
from cryoscape.priors.samplers.ordered import ColourOrder, swept


def systematic(log_weight: Tensor, generator: torch.Generator) -> Tensor:
    """Indices (R,) of as many copies as weights (R,) ask for, rounded up or down at random.

    Systematic resampling: one uniform number places R equidistant marks on the cumulated weights.
    """
    return comb(log_weight, len(log_weight), float(torch.rand((), generator=generator)))


def comb(log_weight: Tensor, count: int, start: float) -> Tensor:
    """Indices (count,), ascending, under equidistant marks on the cumulated weights (R,).

    Parameters
    ----------
    log_weight : Tensor, shape (R,)
    count : int
        Marks.
    start : float
        Of the first mark, in units of the distance between two, 0 to 1.
    """
    ends = torch.softmax(log_weight.double(), 0).cumsum(0).cpu()
    marks = (torch.arange(count, dtype=torch.float64) + start) / count
    picked = torch.searchsorted(ends, marks * ends[-1], right=True).clamp_max(len(ends) - 1)
    return picked.to(log_weight.device)


class PopulationAnnealing(IsingSampler):
    """A population that is cooled from independent spins to the law.

    Parameters
    ----------
    temperatures : int
        Steps, each with `sweeps` sweeps.
    sweeps : int
        Also the sweeps after the last resampling, times ten, which tell copies apart.
    threshold : float
        Share of effective samples below which the population is resampled.
    """

    def __init__(self, temperatures: int = 100, sweeps: int = 1, threshold: float = 0.7) -> None:
        self.temperatures = temperatures
        self.sweeps = sweeps
        self.threshold = threshold

    @torch.no_grad()
    def sample_ising(
        self,
        problem: IsingProblem,
        *,
        num_reads: int,
        beta: float = 1.0,
        initial_states: Tensor | None = None,
        seed: int | None = None,
    ) -> IsingSamples:
        """Draw a population of equal weights.

        `info` has `log_z`, its error `log_z_err` by the spread of the families (Lee and Whiteley 2018),
        `ess`, one over the sum of the squared shares of families, and `resamplings`.

        Raises
        ------
        InputError
            If chains are handed over.
        """
        self.refuse_initial_states(initial_states)
        generator, order = seeded(seed), ColourOrder.of(problem)
        target = order.problem(problem, beta)
        base = target.decoupled()
        spins = independent_start(base, num_reads, generator)
        family = torch.arange(num_reads, device=spins.device)
        log_weight = torch.zeros(num_reads, dtype=torch.float64, device=spins.device)
        log_z = float(base.independent()) - beta * problem.offset
        resamplings, before = 0, base
        for step, stage in enumerate(interpolated(base, target, self.temperatures)):
            log_weight += stage.log_marginal(spins) - before.log_marginal(spins)
            share = torch.softmax(log_weight, 0)
            last = step == self.temperatures
            if last:
                families = torch.zeros_like(share).index_add_(0, family, share).square().sum()
            if last or float(share.square().sum()) * num_reads * self.threshold > 1:
                log_z += float(torch.logsumexp(log_weight, 0)) - math.log(num_reads)
                picked = systematic(log_weight, generator)
                spins, family = spins[:, picked], family[picked]
                log_weight.zero_()
                resamplings += 1
            if step > 0:
                spins = swept(stage, spins, self.sweeps * (10 if last else 1), generator)
            before = stage
        error = math.sqrt(max(0.0, float(families) - 1 / num_reads))
        info = {"log_z": log_z, "log_z_err": error, "ess": 1 / float(families), "resamplings": resamplings}
        return IsingSamples(order.rows(spins), info=info)
