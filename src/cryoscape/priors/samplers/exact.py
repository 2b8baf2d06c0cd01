"""Exact laws by enumeration.

Spins without couplings among them are independent given all others: they are summed out in closed form, and
only the rest is enumerated: of a restricted machine the smaller side.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from cryoscape.errors import InputError
from cryoscape.priors.samplers.base import IsingProblem, IsingSampler, IsingSamples, seeded
from cryoscape.priors.samplers.colouring import independent_set
from cryoscape.priors.samplers.ordered import log_two_cosh

MAX_ENUMERATED = 20
"""Spins whose states are enumerated at most, 2^20 of them."""

_CHUNK = 2**21


@dataclass(frozen=True)
class ExactMoments:
    """What is known of a law without error.

    Attributes
    ----------
    log_z : float
        Log of the sum of exp(-beta E), nats.
    mean : Tensor, shape (n,)
        Mean spins.
    pairs : Tensor, shape (E,)
        Mean products over the edges.
    energy : float
        Mean energy, the offset included.
    """

    log_z: float
    mean: Tensor
    pairs: Tensor
    energy: float


def spin_states(n: int, start: int = 0, stop: int | None = None) -> Tensor:
    """States start to stop of n spins, shape (stop - start, n), double; bit k of the number is spin k."""
    numbers = torch.arange(start, 2**n if stop is None else stop)[:, None]
    return (2 * ((numbers >> torch.arange(n)) & 1) - 1).double()


def state_numbers(spins: Tensor) -> Tensor:
    """Numbers of states (..., n) -> (...), as in `spin_states`."""
    n = spins.shape[-1]
    return ((spins > 0).long() << torch.arange(n, device=spins.device)).sum(-1)


@dataclass(frozen=True, eq=False)
class Enumeration:
    """All states of the spins that have to be enumerated, in double precision on the CPU.

    Parameters
    ----------
    problem : IsingProblem
    beta : float
        Inverse temperature.
    limit : int
        Spins that may be enumerated.

    Raises
    ------
    InputError
        If there are more.
    """

    problem: IsingProblem
    beta: float = 1.0
    limit: int = MAX_ENUMERATED

    def __post_init__(self) -> None:
        r = len(self.rest)
        if r > self.limit:
            raise InputError(
                f"{r} of {len(self.problem)} spins would be enumerated, and the limit is {self.limit}",
                remedy="Use a sampler of chains (gibbs, tempering), or tree for a graph like a tree.",
            )

    @cached_property
    def summed(self) -> Tensor:
        """Indices of the spins that are summed out."""
        return independent_set(len(self.problem), self.problem.edges.cpu(), self._colours)

    @cached_property
    def rest(self) -> Tensor:
        """Indices of the r spins that are enumerated."""
        kept = torch.ones(len(self.problem), dtype=torch.bool)
        kept[self.summed] = False
        return kept.nonzero()[:, 0]

    @cached_property
    def _colours(self) -> tuple[Tensor, ...]:
        return tuple(members.cpu() for members in self.problem.colours)

    @cached_property
    def _parts(self) -> tuple[Tensor, Tensor]:
        return self.beta * self.problem.fields.detach().double().cpu(), (
            self.beta * self.problem.dense.double().cpu()
        )

    def _chunks(self) -> Iterator[tuple[slice, Tensor]]:
        """States of the rest, shape (rows, r), with where they stand among the 2^r."""
        count, rows = 2 ** len(self.rest), max(1, _CHUNK // max(1, len(self.problem)))
        for start in range(0, count, rows):
            stop = min(count, start + rows)
            yield slice(start, stop), spin_states(len(self.rest), start, stop)

    def summed_fields(self, rest: Tensor) -> Tensor:
        """Fields on every summed spin times beta, given states of the rest, (..., r) -> (..., n - r)."""
        fields, couplings = self._parts
        return fields[self.summed] + rest @ couplings[self.rest][:, self.summed]

    @cached_property
    def log_weights(self) -> Tensor:
        """Log of exp(-beta E) summed over the summed spins, for all states of the rest, shape (2^r,)."""
        fields, couplings = self._parts
        h, j = fields[self.rest], couplings[self.rest][:, self.rest]
        out = torch.empty(2 ** len(self.rest), dtype=torch.float64)
        for where, states in self._chunks():
            energy = (states * (h + 0.5 * (states @ j))).sum(1)
            out[where] = log_two_cosh(self.summed_fields(states)).sum(1) - energy
        return out - self.beta * self.problem.offset

    @cached_property
    def log_z(self) -> float:
        """Log of the sum of exp(-beta E) over all states, nats."""
        return float(torch.logsumexp(self.log_weights, 0))

    def moments(self) -> ExactMoments:
        """Means of spins, of products over edges and of the energy."""
        n, problem = len(self.problem), self.problem
        products = torch.zeros(n, n, dtype=torch.float64)
        mean = torch.zeros(n, dtype=torch.float64)
        for where, states in self._chunks():
            probability = torch.exp(self.log_weights[where] - self.log_z)
            given = torch.empty(len(states), n, dtype=torch.float64)
            given[:, self.rest], given[:, self.summed] = states, -torch.tanh(self.summed_fields(states))
            mean += probability @ given
            products += (probability[:, None] * given).T @ given
        # No edge has both ends among the summed spins, so that means given the rest are all it takes.
        edges = problem.edges.cpu()
        pairs = products[edges[:, 0], edges[:, 1]]
        energy = (
            problem.fields.detach().double().cpu() @ mean + problem.couplings.detach().double().cpu() @ pairs
        )
        return ExactMoments(self.log_z, mean, pairs, float(energy) + problem.offset)

    def draw(self, num_reads: int, generator: torch.Generator) -> Tensor:
        """Independent samples, shape (num_reads, n), int8."""
        cumulative = torch.cumsum(torch.exp(self.log_weights - self.log_z), 0)
        uniform = torch.rand(num_reads, generator=generator, dtype=torch.float64) * cumulative[-1]
        number = torch.searchsorted(cumulative, uniform, right=True).clamp_max(len(cumulative) - 1)
        rest = (2 * ((number[:, None] >> torch.arange(len(self.rest))) & 1) - 1).double()
        field = self.summed_fields(rest)
        up = torch.rand(field.shape, generator=generator, dtype=torch.float64) < torch.sigmoid(-2 * field)
        spins = torch.empty(num_reads, len(self.problem), dtype=torch.int8)
        spins[:, self.rest], spins[:, self.summed] = rest.to(torch.int8), (2 * up - 1).to(torch.int8)
        return spins


def enumerated_spins(problem: IsingProblem) -> int:
    """How many spins have to be enumerated for exact results."""
    return len(problem) - len(independent_set(len(problem), problem.edges, problem.colours))


def exact_moments(problem: IsingProblem, beta: float = 1.0) -> ExactMoments:
    """Log Z, mean spins, pairs and energy by enumeration.

    Raises
    ------
    InputError
        If more than `MAX_ENUMERATED` spins would have to be enumerated.
    """
    return Enumeration(problem, beta).moments()


def state_probabilities(problem: IsingProblem, beta: float = 1.0) -> Tensor:
    """Probability of all 2^n states, double, in the order of `spin_states`.

    Raises
    ------
    InputError
        If there are more than `MAX_ENUMERATED` spins.
    """
    n = len(problem)
    if n > MAX_ENUMERATED:
        raise InputError(f"a table of 2^{n} probabilities is too large", remedy="Compare moments instead.")
    double, chunk = problem.double(), 2**16
    states = (spin_states(n, start, min(2**n, start + chunk)) for start in range(0, 2**n, chunk))
    energy = [double.energy(rows.to(double.fields)).cpu() for rows in states]
    return torch.softmax(-beta * torch.cat(energy), 0)


class ExactSampler(IsingSampler):
    """Independent samples from the very law, by enumeration.

    Parameters
    ----------
    limit : int
        Spins that may be enumerated: all but a largest set without couplings among them.
    """

    exact = True

    def __init__(self, limit: int = MAX_ENUMERATED) -> None:
        self.limit = limit

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
        """Draw independent samples; `info` has the exact `log_z`.

        Raises
        ------
        InputError
            If too many spins would have to be enumerated, or chains are handed over.
        """
        self.refuse_initial_states(initial_states)
        table = Enumeration(problem, beta, self.limit)
        spins = table.draw(num_reads, seeded(seed)).to(problem.fields.device)
        return IsingSamples(spins, info={"log_z": table.log_z, "log_z_err": 0.0})
