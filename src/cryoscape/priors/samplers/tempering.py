"""Parallel tempering: replicas at inverse temperatures from 0 to beta that exchange their states.

The replica at 0 tosses fair coins in every sweep, so that a chain caught in one mode is replaced by new
states that come down the ladder. Neighbours exchange with probability min(1, exp((b_i - b_j) (E_i - E_j))).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from scipy.special import erfcinv
from torch import Tensor

from cryoscape.errors import InputError
from cryoscape.priors.samplers.base import IsingProblem, IsingSampler, IsingSamples, chain_starts, seeded
from cryoscape.priors.samplers.ordered import ColourOrder, swept


def even_ladder(replicas: int) -> tuple[float, ...]:
    """Inverse temperatures 0 to 1 at equal distances."""
    return tuple(i / (replicas - 1) for i in range(replicas))


def exchange(log_ratio: Tensor, first: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Exchange states of neighbouring replicas, the pairs (first, first + 1), (first + 2, first + 3), ...

    Parameters
    ----------
    log_ratio : Tensor, shape (K - 1, R)
        Log of p(exchanged) / p(as they are) of replicas k and k + 1.
    first : {0, 1}
    generator : torch.Generator

    Returns
    -------
    source : Tensor, shape (K, R), int64
        Replica whose state each one takes.
    chance : Tensor, shape (pairs,)
        Mean probability of exchange of the pairs.
    """
    replicas, reads = len(log_ratio) + 1, log_ratio.shape[1]
    chance = log_ratio[first::2].clamp_max(0).exp()
    uniform = torch.rand(chance.shape, generator=generator).to(chance)
    accepted = (uniform < chance).long()
    source = torch.arange(replicas, device=log_ratio.device)[:, None].repeat(1, reads)
    lower, upper = source[first : replicas - 1 : 2], source[first + 1 :: 2]
    lower += accepted
    upper -= accepted
    return source, chance.mean(1)


class ParallelTempering(IsingSampler):
    """Block Gibbs chains on a ladder of inverse temperatures.

    Every read has a ladder of its own, and is the state of its coldest replica. Chains that are handed over
    are those of the coldest replicas; the others start from them as well, and forget them the sooner the
    hotter they are.

    Parameters
    ----------
    sweeps : int
        Sweeps of all replicas, each followed by exchanges of every second pair.
    replicas : int
        K, at even distances.
    ladder : sequence of float, optional
        Inverse temperatures relative to the one that is asked for, from 0 up to 1, in place of even ones; see
        `adapted`.
    """

    supports_initial_states = True

    def __init__(self, sweeps: int = 100, replicas: int = 12, ladder: Sequence[float] | None = None) -> None:
        self.sweeps = sweeps
        self.ladder = even_ladder(replicas) if ladder is None else tuple(float(b) for b in ladder)
        rising = all(a < b for a, b in itertools.pairwise(self.ladder))
        if not rising or len(self.ladder) < 2 or (self.ladder[0], self.ladder[-1]) != (0.0, 1.0):
            raise InputError(
                f"a ladder of tempering rises from 0 to 1, and {self.ladder} does not",
                remedy="Give two replicas or more.",
            )

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
        """Run the ladders; `info` has the mean chance of an exchange of every pair, `swap` (K - 1,)."""
        generator, order = seeded(seed), ColourOrder.of(problem)
        ordered = order.problem(problem, beta)
        start = chain_starts(problem, num_reads, initial_states, generator)
        replicas = len(self.ladder)
        columns = order.columns(start, problem.fields).repeat(1, replicas)
        ladder = torch.tensor(self.ladder).to(columns)
        chances: list[list[float]] = [[] for _ in range(replicas - 1)]
        turns = itertools.cycle((0, 1) if replicas > 2 else (0,))

        def exchanged(spins: Tensor) -> Tensor:
            energy = ordered.energy(spins).view(replicas, num_reads)
            log_ratio = ladder.diff()[:, None] * energy.diff(dim=0)
            first = next(turns)
            source, chance = exchange(log_ratio, first, generator)
            for pair, value in zip(range(first, replicas - 1, 2), chance.tolist()):
                chances[pair].append(value)
            cube = spins.view(-1, replicas, num_reads)
            return cube.gather(1, source.expand_as(cube)).view_as(spins)

        scale = ladder.repeat_interleave(num_reads)
        columns = swept(ordered, columns, self.sweeps, generator, scale, exchanged)
        swap = tuple(sum(seen) / len(seen) if seen else float("nan") for seen in chances)
        coldest = columns.view(-1, replicas, num_reads)[:, -1]
        info = {"swap": swap, "ladder": self.ladder, "sweeps": self.sweeps}
        return IsingSamples(order.rows(coldest), info=info)

    def adapted(
        self,
        problem: IsingProblem,
        *,
        beta: float = 1.0,
        target: float = 0.3,
        most: int = 24,
        num_reads: int = 200,
        rounds: int = 4,
        seed: int = 0,
    ) -> ParallelTempering:
        """The sampler with a ladder on which all neighbours exchange with about the same chance.

        Between two laws whose energies are normal, with a standard deviation S, the chance of an exchange is
        erfc(S (b_j - b_i) / 2). So 2 erfcinv(chance) is a length that adds up along the ladder; it is divided
        into equal parts, as many as the target asks for.

        Parameters
        ----------
        problem : IsingProblem
        beta : float
        target : float
            Chance of an exchange.
        most : int
            Replicas at most.
        num_reads : int
            Ladders that are run to measure it.
        rounds : int
            Times that the ladder is improved.
        seed : int
        """
        found = self
        for turn in range(rounds):
            trial = ParallelTempering(max(20, self.sweeps), ladder=found.ladder)
            info = trial.sample_ising(problem, num_reads=num_reads, beta=beta, seed=seed + turn).info
            swap = torch.tensor(info["swap"], dtype=torch.float64).clamp(1e-4, 1 - 1e-4)
            length = 2 * torch.from_numpy(erfcinv(swap.numpy()))
            along = torch.cat([torch.zeros(1), length.cumsum(0)]).double()
            parts = int(torch.ceil(along[-1] / (2 * erfcinv(target)) - 0.05).clamp(1, most - 1))
            found = ParallelTempering(self.sweeps, ladder=_divided(along, found.ladder, parts))
        return found


def _divided(along: Tensor, ladder: Sequence[float], parts: int) -> list[float]:
    """Inverse temperatures at equal lengths, by linear interpolation; `along` (K,) rises from 0."""
    wanted = torch.linspace(0, float(along[-1]), parts + 1, dtype=along.dtype)[1:-1]
    right = torch.searchsorted(along, wanted).clamp(1, len(ladder) - 1)
    known = torch.tensor(ladder, dtype=along.dtype)
    share = (wanted - along[right - 1]) / (along[right] - along[right - 1])
    inner = torch.lerp(known[right - 1], known[right], share)
    return [0.0, *inner.tolist(), 1.0]
