"""The negative phase of a Boltzmann machine: persistent chains that follow the parameters.

The gradient of -log p has two parts, <dE>_data - <dE>_model. The second one is an average over samples of the
machine itself, which chains supply that are never started anew (persistent contrastive divergence: Tieleman
2008); a small share of them is set to data in every step, so that no mode of the data is without a chain.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cryoscape.priors.samplers.base import IsingProblem, IsingSampler, random_spins

_MEMORY = 0.05


def drawn_seed(generator: torch.Generator | None) -> int:
    """A seed for a sampler, taken from a generator."""
    return int(torch.randint(2**31, (), generator=generator))


def coins(probability: Tensor, generator: torch.Generator | None) -> Tensor:
    """Bits that are 1 with a probability; same shape and type. Drawn on the CPU."""
    uniform = torch.rand(probability.shape, generator=generator, dtype=probability.dtype)
    return (uniform.to(probability.device) < probability).to(probability)


class PersistentChains(nn.Module):
    """Samples of a machine that are carried from step to step.

    Parameters
    ----------
    chains : int
        C.
    units : int
        n.
    sampler : IsingSampler
        Moves the chains; one that takes no initial states is asked for C new reads in every step.
    refresh : float
        Chance of a chain to be set to data before a step.

    Attributes
    ----------
    spins : Tensor, shape (C, n), int8
        +-1.
    mixing : Tensor, shape ()
        Share of the spins that flip in a step, over the share that would flip between independent samples of
        the data; running mean of about 20 steps. 1 where every step forgets the last one.
    """

    spins: Tensor
    mixing: Tensor

    def __init__(self, chains: int, units: int, sampler: IsingSampler, refresh: float = 0.01) -> None:
        super().__init__()
        self.sampler = sampler
        self.refresh = refresh
        self.register_buffer("spins", random_spins(chains, units, torch.Generator().manual_seed(0)))
        self.register_buffer("mixing", torch.ones(()))

    @torch.no_grad()
    def start(self, data: Tensor, generator: torch.Generator | None = None) -> None:
        """Set all chains to data (N, n), bits or probabilities."""
        rows = torch.randint(len(data), (len(self.spins),), generator=generator)
        self.spins.copy_(2 * coins(data[rows.to(data.device)], generator) - 1)
        self.mixing.fill_(1.0)

    @torch.no_grad()
    def step(
        self,
        problem: IsingProblem,
        data: Tensor,
        weights: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Move the chains once.

        Parameters
        ----------
        problem : IsingProblem
            The machine as it is now.
        data : Tensor, shape (B, n)
            Bits or probabilities that chains are refreshed from.
        weights : Tensor, shape (B,), optional
            Of the data.
        generator : torch.Generator, optional

        Returns
        -------
        Tensor, shape (C, n)
            Bits.
        """
        self._set_some_to(data, weights, generator)
        before = self.spins.clone()
        carried = self.sampler.supports_initial_states
        samples = self.sampler.sample_ising(
            problem,
            num_reads=len(self.spins),
            initial_states=self.spins if carried else None,
            seed=drawn_seed(generator),
        )
        self.spins.copy_(samples.resampled(generator))
        share = weighted_rows(data, weights)
        expected = (2 * share * (1 - share)).mean().clamp_min(1e-6)
        flipped = (self.spins != before).to(share.dtype).mean()
        self.mixing.lerp_((flipped / expected).to(self.mixing), _MEMORY)
        return self.bits.to(data.dtype)

    def _set_some_to(self, data: Tensor, weights: Tensor | None, generator: torch.Generator | None) -> None:
        chosen = (torch.rand(len(self.spins), generator=generator) < self.refresh).nonzero()[:, 0]
        if len(chosen) == 0:
            return
        chance = torch.ones(len(data)) if weights is None else weights.float().cpu()
        rows = torch.multinomial(chance, len(chosen), replacement=True, generator=generator)
        bits = coins(data[rows.to(data.device)], generator)
        self.spins[chosen.to(self.spins.device)] = (2 * bits - 1).to(self.spins)

    @property
    def bits(self) -> Tensor:
        """The chains as bits, shape (C, n), int8."""
        return (self.spins + 1) // 2


def weighted_rows(data: Tensor, weights: Tensor | None) -> Tensor:
    """Mean over rows (B, n) -> (n,), with weights (B,) where given."""
    if weights is None:
        return data.mean(0)
    weights = weights.to(data)
    return (weights @ data) / weights.sum().clamp_min(1e-30)
