"""Switches: spins with fields and couplings.

    p(s) proportional to exp(sum_i b_i s_i + sum_(i<j) J_ij s_i s_j),

with m spins s = +-1, in kT. Up to fourteen of them all 2^m configurations are summed over; beyond, samplers
stand in for the sum.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cryoscape.priors.base import LogPartition
from cryoscape.priors.gaussians import draw_components
from cryoscape.priors.machines.negative_phase import PersistentChains
from cryoscape.priors.machines.sampling import draw_bits
from cryoscape.priors.samplers.base import IsingProblem, IsingSampler
from cryoscape.priors.samplers.gibbs import BlockGibbs
from cryoscape.priors.samplers.partition import log_partition
from cryoscape.priors.switches.start import configurations, pairs, pairwise_features

MOST_ENUMERATED = 14
"""Spins up to which all configurations are summed over."""

CHAINS = 512
"""Persistent chains of the negative phase, where there is one."""


class PairwiseSpins(nn.Module):
    """m spins, each coupled to each.

    Parameters
    ----------
    spins : int
        m.
    sampler : IsingSampler, optional
        Moves the chains of more than fourteen spins; five sweeps of block Gibbs by default.

    Attributes
    ----------
    fields : Parameter, shape (m,)
        b.
    couplings : Parameter, shape (m (m - 1) / 2,)
        J of the pairs i < j, row by row.
    enumerated : bool
        Whether all configurations are summed over.
    codes : Tensor, shape (2^m, m)
        The configurations, +-1, where they are.
    chains : PersistentChains
        Samples that follow the parameters, where they are not.
    """

    codes: Tensor
    features: Tensor
    rows: Tensor
    columns: Tensor

    def __init__(self, spins: int, sampler: IsingSampler | None = None) -> None:
        super().__init__()
        rows, columns = (torch.as_tensor(side) for side in pairs(spins))
        self.fields = nn.Parameter(torch.zeros(spins))
        self.couplings = nn.Parameter(torch.zeros(len(rows)))
        self.register_buffer("rows", rows, persistent=False)
        self.register_buffer("columns", columns, persistent=False)
        self.enumerated = spins <= MOST_ENUMERATED
        if self.enumerated:
            codes = configurations(spins)
            self.register_buffer("codes", torch.as_tensor(codes).float(), persistent=False)
            features = torch.as_tensor(pairwise_features(codes)).float()
            self.register_buffer("features", features, persistent=False)
        else:
            self.chains = PersistentChains(CHAINS, spins, sampler or BlockGibbs(5))

    def __len__(self) -> int:
        return len(self.fields)

    def coupling_matrix(self) -> Tensor:
        """J as a symmetric matrix (m, m), diagonal 0."""
        out = self.couplings.new_zeros(len(self), len(self))
        out = out.index_put((self.rows, self.columns), self.couplings)
        return out + out.T

    def log_unnormalised(self, s: Tensor) -> Tensor:
        """b.s + sum J s s, (..., m) -> (...)."""
        return s @ self.fields + 0.5 * ((s @ self.coupling_matrix()) * s).sum(-1)

    def log_weights(self) -> Tensor:
        """Log probabilities of all configurations, shape (2^m,)."""
        return (self.features @ torch.cat([self.fields, self.couplings])).log_softmax(0)

    def problem(self) -> IsingProblem:
        """The law in the convention of samplers, p(s) proportional to exp(-h.s - sum J' s s)."""
        edges = torch.stack([self.rows, self.columns], 1)
        return IsingProblem(-self.fields.detach(), edges, -self.couplings.detach())

    def log_partition(self) -> LogPartition:
        """Log of the sum of exp(log_unnormalised), by the best way there is."""
        return log_partition(self.problem())

    @torch.no_grad()
    def set(self, theta: Tensor) -> None:
        """Take fields and couplings, side by side, shape (m + m (m - 1) / 2,)."""
        fields, couplings = theta.to(self.fields).split([len(self), len(self.couplings)])
        self.fields.copy_(fields)
        self.couplings.copy_(couplings)

    @torch.no_grad()
    def draw(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw n configurations, shape (n, m), +-1."""
        if self.enumerated:
            return self.codes[draw_components(self.log_weights().exp(), n, generator).to(self.codes.device)]
        return 2 * draw_bits(self.problem(), self.chains.spins, n, generator) - 1

    @torch.no_grad()
    def mean(self) -> Tensor:
        """Mean of every spin, shape (m,): exact, or as the chains have it."""
        if self.enumerated:
            return self.log_weights().exp() @ self.codes
        return self.chains.spins.to(self.fields).mean(0)
