"""A problem with its spins sorted by colour and its chains as columns: the inner loop of all chain samplers.

In this order a colour is a block of rows, and a sweep one small matrix product a colour. A spin is up where
-(1/2) logit(uniform) - beta h_u exceeds beta sum_v J_uv s_v, the same as uniform < p(s_u = +1 | others).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cryoscape.priors.samplers.base import IsingProblem


def log_two_cosh(x: Tensor) -> Tensor:
    """log(2 cosh x), which is log sum_{s = +-1} exp(-x s), without overflow."""
    size = x.abs()
    return size + torch.log1p(torch.exp(-2 * size))


def logistic_noise(shape: Sequence[int], generator: torch.Generator, like: Tensor) -> Tensor:
    """-(1/2) logit of uniform numbers; drawn on the CPU, then moved."""
    return torch.rand(*shape, generator=generator).logit_().mul_(-0.5).to(like)


@dataclass(frozen=True)
class OrderedProblem:
    """beta times the energy, spins sorted by colour, the largest colour first.

    Attributes
    ----------
    fields : Tensor, shape (n, 1) or (n, C)
        beta h, the same in all C chains or one for each.
    couplings : Tensor, shape (n, n)
        beta J, symmetric.
    sizes : tuple of int
        Spins of every colour.
    """

    fields: Tensor
    couplings: Tensor
    sizes: tuple[int, ...]

    @property
    def first(self) -> int:
        """Size of the first colour, which the weights of annealing sum out."""
        return self.sizes[0]

    def energy(self, spins: Tensor) -> Tensor:
        """Energy beta (h.s + sum J s s) of the columns, (n, C) -> (C,)."""
        return (spins * (self.fields + 0.5 * (self.couplings @ spins))).sum(0)

    def log_marginal(self, spins: Tensor) -> Tensor:
        """Log of the sum of exp(-energy) over the spins of the first colour, (n, C) -> (C,).

        They are independent given the others: a sum of log(2 cosh field). The rows of `spins` that are summed
        over do not matter.
        """
        a, rest = self.first, spins[self.first :]
        field = self.couplings[:, a:] @ rest
        summed = log_two_cosh(self.fields[:a] + field[:a]).sum(0)
        return summed - (rest * (self.fields[a:] + 0.5 * field[a:])).sum(0)

    def independent(self) -> Tensor:
        """Log partition function of the fields alone, shape (1,) or (C,)."""
        return log_two_cosh(self.fields.double()).sum(0)

    def sweep(
        self, spins: Tensor, noise: Tensor, scale: Tensor | None = None, backwards: bool = False
    ) -> Tensor:
        """Draw all colours anew, each given the others.

        Parameters
        ----------
        spins : Tensor, shape (n, C)
            +-1; changed in place and returned.
        noise : Tensor, shape (n, C)
            See `logistic_noise`; its memory is used.
        scale : Tensor, shape (C,), optional
            Factor of the energy in every chain.
        backwards : bool
            All colours but the first in opposite order. Seen on those alone, it is the reversal of a sweep
            forwards.
        """
        fields = self.fields if scale is None else self.fields * scale
        threshold = noise.sub_(fields).split(self.sizes)
        rows, couplings = spins.split(self.sizes), self.couplings.split(self.sizes)
        turns = list(range(len(self.sizes)))
        if backwards:
            turns[1:] = turns[:0:-1]
        up = torch.ones((), dtype=spins.dtype, device=spins.device)
        for k in turns:
            block, others = couplings[k], spins
            # Spins of one colour are not coupled: where there are two, half of the product is zero.
            if len(turns) == 2:
                block, others = block.split(self.sizes, 1)[1 - k], rows[1 - k]
            if scale is None:
                above = torch.addmm(threshold[k], block, others, alpha=-1)
            else:
                above = torch.addcmul(threshold[k], block @ others, scale, value=-1)
            torch.copysign(up, above, out=rows[k])
        return spins

    def blend(self, other: OrderedProblem, share: float) -> OrderedProblem:
        """(1 - share) of this energy and `share` of another one's, on the same graph."""
        fields = self.fields
        if other.fields is not fields:
            fields = torch.lerp(fields, other.fields, share)
        return OrderedProblem(fields, torch.lerp(self.couplings, other.couplings, share), self.sizes)

    def decoupled(self) -> OrderedProblem:
        """Independent spins in the same fields."""
        return OrderedProblem(self.fields, torch.zeros_like(self.couplings), self.sizes)


@dataclass(frozen=True)
class ColourOrder:
    """The permutation that sorts spins by colour.

    Attributes
    ----------
    order : Tensor, shape (n,)
        Spin of every row.
    inverse : Tensor, shape (n,)
        Row of every spin.
    sizes : tuple of int
        Spins of every colour.
    """

    order: Tensor
    inverse: Tensor
    sizes: tuple[int, ...]

    @classmethod
    def of(cls, problem: IsingProblem) -> ColourOrder:
        """Of the colours of a problem, the largest first."""
        colours = sorted(problem.colours, key=len, reverse=True)
        order = torch.cat(colours) if colours else torch.zeros(0, dtype=torch.long)
        return cls(order, torch.argsort(order), tuple(len(members) for members in colours))

    def problem(
        self, problem: IsingProblem, beta: float = 1.0, fields: Tensor | None = None
    ) -> OrderedProblem:
        """Sort a problem with these colours; fields (C, n) of every chain may replace its own."""
        h = problem.fields.detach()[:, None] if fields is None else fields.detach().T
        couplings = problem.dense[self.order][:, self.order]
        return OrderedProblem(beta * h[self.order], beta * couplings, self.sizes)

    def columns(self, spins: Tensor, like: Tensor) -> Tensor:
        """Chains (C, n) to sorted columns (n, C) of their own."""
        return spins.to(like).T[self.order]

    def rows(self, columns: Tensor) -> Tensor:
        """Sorted columns (n, C) to chains (C, n), int8."""
        return columns[self.inverse].T.contiguous().to(torch.int8)


def swept(
    ordered: OrderedProblem,
    spins: Tensor,
    sweeps: int,
    generator: torch.Generator,
    scale: Tensor | None = None,
    after: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """Sweep columns (n, C) several times, and hand them to `after` each time."""
    for _ in range(sweeps):
        noise = logistic_noise(spins.shape, generator, spins)
        spins = ordered.sweep(spins, noise, scale)
        spins = spins if after is None else after(spins)
    return spins
