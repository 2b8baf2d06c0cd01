"""log Z and samples along the checkpoints of a training (Bereux et al. 2024, arXiv 2405.15376).

A machine learns its modes one after the other, so that its own past is a path from independent spins that
meets its transitions one by one, where a change of temperature meets all at once. `trajectory_annealing`
carries weighted chains along it; in `TrajectoryTempering` replicas at all checkpoints exchange their states.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cryoscape.priors.samplers.annealed import CHAINS, TEMPERATURES, annealed, independent_start, interpolated
from cryoscape.priors.samplers.base import IsingProblem, IsingSampler, IsingSamples, chain_starts, seeded
from cryoscape.priors.samplers.bennett import bennett_log_ratio, log_mean_exp
from cryoscape.priors.samplers.ordered import ColourOrder, OrderedProblem, logistic_noise, swept
from cryoscape.priors.samplers.tempering import exchange

_BLOCKS = 10
_KEPT = 10
_WARMING = 10
_PILOT_CHAINS = 50
_PILOT_STEPS = 5


@dataclass(frozen=True)
class TrajectoryEstimate:
    """log Z of every checkpoint.

    Attributes
    ----------
    log_z, std_err : Tensor, shape (K,), double
        Of sum exp(-beta E), offsets included, and the standard errors.
    ess : Tensor, shape (K,), double
        Effective chains of R.
    spins : Tensor, shape (R, n), int8
        Samples of the last checkpoint.
    log_weight : Tensor, shape (R,), optional
        Their log weights, where they are weighted.
    swap : tuple of float
        Mean chance of an exchange between neighbours, independent spins first; empty without exchanges.
    """

    log_z: Tensor
    std_err: Tensor
    ess: Tensor
    spins: Tensor
    log_weight: Tensor | None = None
    swap: tuple[float, ...] = ()


def ordered_path(
    path: Sequence[IsingProblem], beta: float
) -> tuple[ColourOrder, OrderedProblem, list[OrderedProblem]]:
    """The independent spins before the first checkpoint, and all checkpoints, in one order of the spins.

    Raises
    ------
    ValueError
        If the checkpoints are none, or not on one graph.
    """
    if not path:
        raise ValueError("a trajectory needs at least one checkpoint")
    if any(not torch.equal(problem.edges, path[0].edges) for problem in path):
        raise ValueError("the checkpoints of a trajectory must have the same edges")
    order = ColourOrder.of(path[0])
    laws = [order.problem(problem, beta) for problem in path]
    return order, laws[0].decoupled(), laws


@torch.no_grad()
def trajectory_annealing(
    path: Sequence[IsingProblem],
    *,
    beta: float = 1.0,
    chains: int = CHAINS,
    steps: int = TEMPERATURES,
    sweeps: int = 1,
    seed: int | None = 0,
) -> TrajectoryEstimate:
    """Annealed importance sampling along checkpoints.

    Parameters
    ----------
    path : sequence of IsingProblem
        K checkpoints on one graph, oldest first. Before them come the independent spins in the fields of the
        first one.
    beta : float
    chains : int
        R.
    steps : int
        Steps in all, on straight lines between the checkpoints; `shared_steps` divides them.
    sweeps : int
        Sweeps of every step.
    seed : int, optional
    """
    generator = seeded(seed)
    order, base, laws = ordered_path(path, beta)
    counts = shared_steps([base, *laws], steps, generator)
    spins = independent_start(base, chains, generator)
    log_weight = base.independent() + torch.zeros(chains, dtype=torch.float64, device=spins.device)
    found = []
    for problem, (before, law), count in zip(path, itertools.pairwise([base, *laws]), counts):
        spins, gained = annealed(interpolated(before, law, count), spins, generator, sweeps)
        log_weight += gained
        found.append(torch.stack(log_mean_exp(log_weight - beta * problem.offset)))
    log_z, error, ess = torch.stack(found, 1).cpu()
    return TrajectoryEstimate(log_z, error, ess, order.rows(spins), log_weight - beta * path[-1].offset)


def shared_steps(laws: Sequence[OrderedProblem], steps: int, generator: torch.Generator) -> list[int]:
    """Divide steps among the parts of a path so that every step changes the law by about as much.

    A part of length l adds l^2 / steps to the variance of the log weights, the sum of which is smallest where
    the steps are proportional to l. The lengths are those of a few short runs.
    """
    spins = independent_start(laws[0], _PILOT_CHAINS, generator)
    length = []
    for before, law in itertools.pairwise(laws):
        spins, gained = annealed(interpolated(before, law, _PILOT_STEPS), spins, generator)
        length.append(float(gained.std()) + 1e-12)
    return [max(1, round(steps * part / sum(length))) for part in length]


class TrajectoryTempering(IsingSampler):
    """Parallel tempering over the checkpoints of a training in place of temperatures.

    Parameters
    ----------
    path : sequence of IsingProblem
        Checkpoints before the problem that is sampled, on its graph, oldest first; the independent spins in
        the fields of the first one come before them and are drawn anew in every sweep.
    sweeps : int
        Sweeps of all replicas, each followed by exchanges of every second pair.
    """

    supports_initial_states = True

    def __init__(self, path: Sequence[IsingProblem], sweeps: int = 100) -> None:
        self.path = tuple(path)
        self.sweeps = sweeps

    def sample_ising(
        self,
        problem: IsingProblem,
        *,
        num_reads: int,
        beta: float = 1.0,
        initial_states: Tensor | None = None,
        seed: int | None = None,
    ) -> IsingSamples:
        """Run one ladder a read; `info` has `log_z`, `log_z_err` and `swap`."""
        found = self.estimate(
            problem, num_reads=num_reads, beta=beta, initial_states=initial_states, seed=seed
        )
        info = {
            "log_z": float(found.log_z[-1]),
            "log_z_err": float(found.std_err[-1]),
            "swap": found.swap,
            "sweeps": self.sweeps,
        }
        return IsingSamples(found.spins, info=info)

    @torch.no_grad()
    def estimate(
        self,
        problem: IsingProblem,
        *,
        num_reads: int,
        beta: float = 1.0,
        initial_states: Tensor | None = None,
        seed: int | None = 0,
    ) -> TrajectoryEstimate:
        """Run the ladders, and find log Z of all checkpoints.

        Neighbours are compared in both directions (Bennett 1976), with the states of the second half of the
        run; the errors are from leaving out a tenth of the ladders, which are independent, at a time.
        """
        generator, path = seeded(seed), (*self.path, problem)
        order, base, laws = ordered_path(path, beta)
        levels = [base, *laws]
        spins = self._warmed(levels, num_reads, generator)
        if initial_states is not None:
            start = chain_starts(problem, num_reads, initial_states, generator)
            spins[-1] = order.columns(start, problem.fields)
        turns = itertools.cycle((0, 1) if len(levels) > 2 else (0,))
        chances: list[list[float]] = [[] for _ in laws]
        weights = []
        for turn in range(self.sweeps):
            self._sweep(levels, spins, generator)
            up, down = _both_ways(levels, spins)
            if self._is_kept(turn):
                weights.append(torch.stack([up, down]))
            first = next(turns)
            source, chance = exchange(up + down, first, generator)
            for pair, value in zip(range(first, len(laws), 2), chance.tolist()):
                chances[pair].append(value)
            spins = spins.gather(0, source[:, None].expand_as(spins))
        # The first colour is not part of an exchange: it has to be drawn anew.
        self._sweep(levels, spins, generator)
        offsets = beta * torch.tensor([p.offset for p in path], dtype=torch.float64)
        log_z, error, ess = _along(torch.stack(weights, 2).double().cpu())
        log_z = float(base.independent()) + log_z - offsets
        swap = tuple(sum(seen) / len(seen) if seen else float("nan") for seen in chances)
        return TrajectoryEstimate(log_z, error, ess, order.rows(spins[-1]), swap=swap)

    def _warmed(self, levels: Sequence[OrderedProblem], reads: int, generator: torch.Generator) -> Tensor:
        """States of all replicas, (K + 1, n, reads): those of the one before after a few sweeps."""
        columns = independent_start(levels[0], reads, generator)
        states = [columns]
        for level in levels[1:]:
            columns = swept(level, columns.clone(), _WARMING, generator)
            states.append(columns)
        return torch.stack(states)

    def _sweep(self, levels: Sequence[OrderedProblem], spins: Tensor, generator: torch.Generator) -> None:
        for level, columns in zip(levels, spins):
            level.sweep(columns, logistic_noise(columns.shape, generator, columns))

    def _is_kept(self, turn: int) -> bool:
        left = self.sweeps - 1 - turn
        return left <= self.sweeps // 2 and left % max(1, self.sweeps // (2 * _KEPT)) == 0


def _both_ways(levels: Sequence[OrderedProblem], spins: Tensor) -> tuple[Tensor, Tensor]:
    """Log weights of the states (K + 1, n, R) in the next law and in the one before, each (K, R)."""
    own = [level.log_marginal(columns) for level, columns in zip(levels, spins)]
    up = [levels[k + 1].log_marginal(spins[k]) - own[k] for k in range(len(levels) - 1)]
    down = [levels[k].log_marginal(spins[k + 1]) - own[k + 1] for k in range(len(levels) - 1)]
    return torch.stack(up), torch.stack(down)


def _along(weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Find log Z of all laws relative to the first, with jackknife errors and the smallest overlap so far.

    Weights (2, K, S, R), up and down, of S states of R ladders.
    """

    def summed(kept: Tensor) -> Tensor:
        up, down = weights[0][..., kept].flatten(1), weights[1][..., kept].flatten(1)
        return torch.tensor([bennett_log_ratio(u, d)[0] for u, d in zip(up, down)]).double().cumsum(0)

    reads = weights.shape[-1]
    block = torch.arange(reads) % min(_BLOCKS, reads)
    value = summed(torch.ones(reads, dtype=torch.bool))
    left_out = torch.stack([summed(block != b) for b in range(int(block.max()) + 1)])
    n = len(left_out)
    error = torch.sqrt((n - 1) / n * (left_out - left_out.mean(0)).square().sum(0))
    ess = torch.stack([log_mean_exp(w.flatten(1))[2] for w in weights]).amin(0) / weights.shape[2]
    return value, error, ess.cummin(0).values
