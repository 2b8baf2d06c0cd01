"""Summing many switches out of a density by annealed importance sampling.

Given z, the switches of an additive emission are spins with couplings of their own and fields that depend on
z, so that p(z) is the partition function of an Ising model for every z. Annealing estimates it; the weighted
ends of its chains are samples of the posterior p(s|z), and

    d(-log sum_s exp(-E(z, s))) = E_{p(s|z)}[dE(z, s)]

in z and in all parameters.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cryoscape.priors.samplers.annealed import annealed_log_partition
from cryoscape.priors.switches.emission import AdditiveEmission
from cryoscape.priors.switches.spins import PairwiseSpins

_ROWS = 2048


@dataclass(frozen=True)
class Annealing:
    """Effort of the estimates.

    Parameters
    ----------
    chains : int
        R, for every point.
    temperatures : int
        Steps from independent spins to the posterior of the switches.
    seed : int
        Always the same, so that the energy of a point is always the same.
    """

    chains: int = 16
    temperatures: int = 64
    seed: int = 0


@dataclass(frozen=True)
class SwitchPosterior:
    """Weighted samples of p(s|z) of n points.

    Attributes
    ----------
    log_sum : Tensor, shape (n,)
        Estimate of log sum_s exp(-E(z, s)), nats.
    error : Tensor, shape (n,)
        Its standard error as the chains tell it; beyond 0.3 nats they miss what they should find.
    spins : Tensor, shape (n, R, m)
    weight : Tensor, shape (n, R)
        Sum to 1 over the samples of a point.
    """

    log_sum: Tensor
    error: Tensor
    spins: Tensor
    weight: Tensor

    @property
    def mean(self) -> Tensor:
        """Mean spins, shape (n, m)."""
        return (self.weight[..., None] * self.spins).sum(1)

    def draw(self, generator: torch.Generator | None = None) -> Tensor:
        """A configuration for every point, shape (n, m)."""
        which = torch.multinomial(self.weight.cpu(), 1, generator=generator).to(self.spins.device)
        return self.spins.gather(1, which[..., None].expand(-1, -1, self.spins.shape[2]))[:, 0]


@torch.no_grad()
def switch_posterior(
    u: Tensor, spins: PairwiseSpins, emission: AdditiveEmission, effort: Annealing
) -> SwitchPosterior:
    """Sample the switches given points u (n, d)."""
    constant, fields, gram = emission.spin_terms(u)
    own = spins.problem()
    problem = own.with_parameters(own.fields, own.couplings + gram[spins.rows, spins.columns])
    parts = [
        annealed_log_partition(
            problem, part, chains=effort.chains, temperatures=effort.temperatures, seed=effort.seed + i
        )
        for i, part in enumerate((own.fields - fields).split(_ROWS))
    ]
    log_z = torch.cat([part.log_z for part in parts]).to(u)
    return SwitchPosterior(
        constant + log_z,
        torch.cat([part.err for part in parts]).to(u),
        torch.cat([part.spins for part in parts]).to(u),
        torch.cat([part.log_weight for part in parts]).softmax(1).to(u),
    )


def annealed_energy(
    u: Tensor, spins: PairwiseSpins, emission: AdditiveEmission, posterior: SwitchPosterior
) -> Tensor:
    """-log sum_s exp(-E(u, s)) with the gradient above, (n, d) -> (n,), nats."""
    joint = spins.log_unnormalised(posterior.spins) + emission.log_prob_given(u[:, None, :], posterior.spins)
    mean = -(posterior.weight * joint).sum(1)
    # The value is the estimate by annealing, the gradient that of the mean energy of the samples.
    return mean + (-posterior.log_sum - mean).detach()
