"""Biases and couplings of bits on a graph: the parameters of a Boltzmann machine, as a problem of spins."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cryoscape.priors.samplers.base import IsingProblem

START_SD = 0.01
"""Standard deviation of weights that have not been learned."""

FOLLOW = 0.01
"""Rate at which the offset follows the data."""


class PairwiseEnergy(nn.Module):
    """E(b) = -a.b - sum_edges W_uv b_u b_v, parametrised relative to the mean of the data.

    With an offset o, the same energy up to a constant is -c.(b - o) - sum_edges W_uv (b_u - o_u) (b_v - o_v),
    where c = a + W o. Near the mean of the data the gradients of c and W are nearly independent of each
    other, which those of a and W are not (Montavon and Mueller 2012).

    Parameters
    ----------
    units : int
        n.
    edges : Tensor, shape (E, 2), int64
        Pairs of coupled units, each once.
    centred : bool
        Whether the offset is the mean of the data; otherwise it is 0.

    Attributes
    ----------
    centred_bias : Parameter, shape (n,)
        c.
    weight : Parameter, shape (E,)
        W of the edges.
    data_mean : Tensor, shape (n,)
        Running mean of the data.
    """

    edges: Tensor
    data_mean: Tensor

    def __init__(self, units: int, edges: Tensor, centred: bool = True) -> None:
        super().__init__()
        self.centred = centred
        generator = torch.Generator().manual_seed(0)
        self.register_buffer("edges", edges)
        self.centred_bias = nn.Parameter(torch.zeros(units))
        self.weight = nn.Parameter(START_SD * torch.randn(len(edges), generator=generator))
        self.register_buffer("data_mean", torch.full((units,), 0.5))
        self._graph: IsingProblem | None = None

    @property
    def offset(self) -> Tensor:
        """What the bits are taken relative to, o, shape (n,)."""
        return self.data_mean if self.centred else torch.zeros_like(self.data_mean)

    @property
    def coupling(self) -> Tensor:
        """W as a symmetric matrix, shape (n, n), diagonal 0."""
        n = len(self.centred_bias)
        one_way = self.weight.new_zeros(n, n).index_put((self.edges[:, 0], self.edges[:, 1]), self.weight)
        return one_way + one_way.T

    def parts(self) -> tuple[Tensor, Tensor]:
        """Plain biases a (n,), and the coupling matrix (n, n)."""
        coupling = self.coupling
        return self.centred_bias - coupling @ self.offset, coupling

    @property
    def bias(self) -> Tensor:
        """Plain biases a, shape (n,)."""
        return self.parts()[0]

    def forward(self, bits: Tensor) -> Tensor:
        """E, (..., n) -> (...), kT; multilinear, so of means the mean energy of independent bits."""
        bias, coupling = self.parts()
        return pairwise_energy(bits, bias, coupling)

    @torch.no_grad()
    def follow(self, mean: Tensor) -> None:
        """Let the offset follow the mean (n,) of data; c is changed so that the law stays as it is."""
        before = self.offset.clone()
        self.data_mean.lerp_(mean.to(self.data_mean), FOLLOW)
        self.centred_bias.add_(self.coupling @ (self.offset - before))

    @torch.no_grad()
    def start(self, mean: Tensor, generator: torch.Generator | None = None) -> None:
        """Independent bits with these means (n,), inside (0, 1); hardly coupled."""
        self.centred_bias.copy_(torch.logit(mean))
        self.data_mean.copy_(mean)
        noise = torch.randn(len(self.weight), generator=generator, dtype=self.weight.dtype)
        self.weight.copy_(START_SD * noise)

    @torch.no_grad()
    def problem(self, bias: Tensor | None = None, weight: Tensor | None = None) -> IsingProblem:
        """The energy on spins, as it is or with other plain biases (n,) and weights (E,)."""
        bias = self.bias if bias is None else bias
        found = IsingProblem.of_bits(bias, self.edges, self.weight.detach() if weight is None else weight)
        # The graph is always the same: its colours are found once, not in every step.
        if self._graph is None or self._graph.edges.device != self.edges.device:
            self._graph = found
        return self._graph.with_parameters(found.fields, found.couplings, found.offset)


def pairwise_energy(bits: Tensor, bias: Tensor, coupling: Tensor) -> Tensor:
    """-a.b - b.W b / 2 of bits (..., n) -> (...), with a (n,) and a symmetric W (n, n) without diagonal."""
    return -(bits @ bias) - 0.5 * ((bits @ coupling) * bits).sum(-1)
