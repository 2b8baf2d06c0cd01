"""What every sampler of a Boltzmann machine promises, and the problem it is given.

Spins s are +-1 and p(s) is proportional to exp(-beta (h.s + sum_edges J_uv s_u s_v)), the convention of
annealers. A machine on bits b = (1 + s) / 2 with energy -a.b - sum W_uv b_u b_v becomes one on spins by
`IsingProblem.of_bits`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from cryoscape.errors import InputError
from cryoscape.priors.samplers.colouring import greedy_colours


@dataclass(frozen=True, eq=False)
class IsingProblem:
    """Fields and couplings of n spins.

    Attributes
    ----------
    fields : Tensor, shape (n,)
        h.
    edges : Tensor, shape (E, 2), int64
        Pairs of coupled spins, each once.
    couplings : Tensor, shape (E,)
        J of the pairs.
    offset : float
        Constant of the energy.
    """

    fields: Tensor
    edges: Tensor
    couplings: Tensor
    offset: float = 0.0

    def __len__(self) -> int:
        return len(self.fields)

    @classmethod
    def of_bits(cls, bias: Tensor, edges: Tensor, weights: Tensor) -> IsingProblem:
        """The problem of the energy -a.b - sum_edges W_uv b_u b_v on bits b in {0, 1}.

        Parameters
        ----------
        bias : Tensor, shape (n,)
            a.
        edges : Tensor, shape (E, 2), int64
        weights : Tensor, shape (E,)
            W.
        """
        quarter = weights / 4
        fields = -bias / 2
        fields = fields.index_add(0, edges[:, 0], -quarter).index_add(0, edges[:, 1], -quarter)
        offset = -float((bias.sum() / 2 + quarter.sum()).detach())
        return cls(fields, edges, -quarter, offset)

    def energy(self, spins: Tensor) -> Tensor:
        """Return h.s + sum J s s + offset, (..., n) -> (...)."""
        s = spins.to(self.fields.dtype)
        pairs = s[..., self.edges[:, 0]] * s[..., self.edges[:, 1]]
        return s @ self.fields + pairs @ self.couplings + self.offset

    def with_parameters(self, fields: Tensor, couplings: Tensor, offset: float = 0.0) -> IsingProblem:
        """Another problem on the same graph, whose colours are not looked for again."""
        other = replace(self, fields=fields, couplings=couplings, offset=offset)
        vars(other)["colours"] = self.colours
        return other

    def scaled(self, factor: float) -> IsingProblem:
        """The problem of a multiple of the energy."""
        return self.with_parameters(factor * self.fields, factor * self.couplings, factor * self.offset)

    def double(self) -> IsingProblem:
        """In double precision, and without gradient."""
        fields, couplings = self.fields.detach().double(), self.couplings.detach().double()
        return self.with_parameters(fields, couplings, self.offset)

    @cached_property
    def dense(self) -> Tensor:
        """Symmetric matrix of the couplings, shape (n, n), diagonal 0; without gradient."""
        out = self.couplings.new_zeros(len(self), len(self))
        out[self.edges[:, 0], self.edges[:, 1]] = self.couplings.detach()
        return out + out.T

    @cached_property
    def colours(self) -> tuple[Tensor, ...]:
        """Sets of spins without edges among them, which can be drawn at once (greedy colouring).

        A restricted machine and a layered one have two.
        """
        return tuple(members.to(self.fields.device) for members in greedy_colours(len(self), self.edges))


@dataclass(frozen=True)
class IsingSamples:
    """What a sampler returns.

    Attributes
    ----------
    spins : Tensor, shape (R, n), int8
        +-1.
    log_weight : Tensor, shape (R,), optional
        Importance weights, where the samples are not from the law itself.
    info : dict
        What the sampler knows: `log_z` and `log_z_err` (nats, of sum exp(-beta E)), `ess`, `beta_eff`,
        `acceptance`, `swap`, `seconds`, ...
    """

    spins: Tensor
    log_weight: Tensor | None = None
    info: dict[str, Any] = field(default_factory=dict)

    def resampled(self, generator: torch.Generator | None = None) -> Tensor:
        """Spins (R, n) of equal weight: drawn anew with their weights where they have any."""
        if self.log_weight is None:
            return self.spins
        weight = torch.softmax(self.log_weight.double(), 0).cpu()
        picked = torch.multinomial(weight, len(self.spins), replacement=True, generator=generator)
        return self.spins[picked.to(self.spins.device)]


class IsingSampler(ABC):
    """Draws spins from p(s) proportional to exp(-beta E(s)).

    Attributes
    ----------
    exact : bool
        Whether the samples are independent and from the very law.
    supports_initial_states : bool
        Whether chains can be handed over, as persistent contrastive divergence does.
    """

    exact: bool = False
    supports_initial_states: bool = False

    @abstractmethod
    def sample_ising(
        self,
        problem: IsingProblem,
        *,
        num_reads: int,
        beta: float = 1.0,
        initial_states: Tensor | None = None,
        seed: int | None = None,
    ) -> IsingSamples:
        """Draw spins.

        Parameters
        ----------
        problem : IsingProblem
        num_reads : int
            R, how many.
        beta : float
            Inverse temperature.
        initial_states : Tensor, shape (R, n), optional
            Where chains start, +-1; refused by samplers without chains.
        seed : int, optional

        Returns
        -------
        IsingSamples
        """

    def refuse_initial_states(self, initial_states: Tensor | None) -> None:
        """Raise an InputError if chains are handed to a sampler that has none."""
        if initial_states is not None:
            raise InputError(
                f"{type(self).__name__} draws every sample anew and cannot go on from initial states",
                remedy="Leave initial_states out, or use a sampler of chains such as BlockGibbs.",
            )


def random_spins(num_reads: int, n: int, generator: torch.Generator) -> Tensor:
    """Fair coins, shape (num_reads, n), int8, +-1."""
    return (2 * torch.randint(0, 2, (num_reads, n), generator=generator) - 1).to(torch.int8)


def chain_starts(
    problem: IsingProblem, num_reads: int, initial_states: Tensor | None, generator: torch.Generator
) -> Tensor:
    """Initial states (num_reads, n) on the device of the problem: those handed over, or fair coins.

    Raises
    ------
    ValueError
        If the number of chains or of spins is another one.
    """
    wanted = (num_reads, len(problem))
    start = random_spins(*wanted, generator) if initial_states is None else initial_states
    if start.shape != wanted:
        raise ValueError(f"initial states have shape {tuple(start.shape)}, and {wanted} is needed")
    return start.to(problem.fields.device)


def seeded(seed: int | None) -> torch.Generator:
    """A generator of its own; without a seed, one that differs from call to call with the global one."""
    generator = torch.Generator()
    generator.manual_seed(int(torch.randint(2**31, ())) if seed is None else seed)
    return generator
