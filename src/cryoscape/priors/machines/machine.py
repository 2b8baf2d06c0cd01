"""Boltzmann machines on binary latents, over any graph.

    E(b) = -sum_u a_u b_u - sum_edges W_uv b_u b_v,      p(b) = exp(-E(b)) / Z,      b in {0, 1}^n

so that energies are in kT, and W_uv > 0 favours b_u = b_v = 1. A restricted machine has two sides, a deep one
layers, independent bits no edges. All units may be latents; or the last ones are hidden and summed over.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import softplus

from cryoscape.errors import InputError
from cryoscape.priors.base import (
    FitSchedule,
    LatentPrior,
    LogPartition,
    PosteriorLike,
    PriorStates,
    weighted_mean,
)
from cryoscape.priors.machines.faults import machine_faults
from cryoscape.priors.machines.graph import configurations, graph_colours
from cryoscape.priors.machines.hidden_units import hidden_free_energy, hidden_means
from cryoscape.priors.machines.negative_phase import PersistentChains, coins, weighted_rows
from cryoscape.priors.machines.pairwise_energy import PairwiseEnergy, pairwise_energy
from cryoscape.priors.machines.sampling import draw_bits, partition_estimates, posterior_bits
from cryoscape.priors.machines.trajectory import ParameterTrajectory
from cryoscape.priors.samplers.annealed import CHAINS, TEMPERATURES
from cryoscape.priors.samplers.base import IsingProblem, IsingSampler
from cryoscape.priors.samplers.gibbs import BlockGibbs
from cryoscape.priors.samplers.partition import log_partition

FEW_BITS = 10
"""Latents up to which every configuration is a state."""


class BoltzmannMachine(LatentPrior):
    """Bits coupled in pairs along the edges of a graph.

    Parameters
    ----------
    z_dim : int
        Latents d; units 0 to d - 1.
    edges : Tensor, shape (E, 2), int64
        Pairs of coupled units, each once.
    hidden : int
        Further units d to d + hidden - 1, which are summed over: exactly where no two of them are coupled,
        otherwise by the mean-field bound, and then `energy` is an upper bound (see `machines.hidden_units`).
    chains : int
        Persistent chains of the negative phase.
    sampler : IsingSampler, optional
        Moves them between two steps; five sweeps of block Gibbs by default.
    decay : float
        L2 penalty: decay / 2 times the squared weights is added to `loss`.
    centred : bool
        Whether the parameters are relative to the mean of the data; see `PairwiseEnergy`. The law and its
        likelihood are the same, the steps of an optimiser are not.
    snapshots : int
        Length of the trajectory that is kept during the training, even.
    pretrain : tuple of int
        Sizes of all layers, hidden ones included, of a machine that `warm_start` builds up layer by layer.

    Attributes
    ----------
    pairs : PairwiseEnergy
        Biases and weights of the n = d + hidden units.
    chains : PersistentChains
    trajectory : ParameterTrajectory
    """

    support = "binary"
    whitens = False
    schedule = FitSchedule(steps=3000, batch=1024, lr=1e-2)

    def __init__(
        self,
        z_dim: int,
        edges: Tensor,
        *,
        hidden: int = 0,
        chains: int = 512,
        sampler: IsingSampler | None = None,
        decay: float = 1e-4,
        centred: bool = True,
        snapshots: int = 20,
        pretrain: tuple[int, ...] = (),
    ) -> None:
        super().__init__(z_dim)
        units = z_dim + hidden
        self.hidden, self.decay, self.pretrain = hidden, decay, pretrain
        self.normalized = len(edges) == 0
        if self.normalized and hidden:
            raise ValueError("hidden units without edges say nothing of the latents")
        self.pairs = PairwiseEnergy(units, edges, centred)
        self.chains = PersistentChains(chains, units, sampler or BlockGibbs(5))
        self.trajectory = ParameterTrajectory(snapshots, units, len(edges))
        self._hidden_colours = graph_colours(hidden, edges[(edges >= z_dim).all(1)] - z_dim)

    # -- the law ---------------------------------------------------------------------------------

    def unit_energy(self, u: Tensor) -> Tensor:
        """Energy of latents, (..., d) -> (...), nats.

        All latent: E(b), multilinear, so that probabilities give the mean energy of independent bits exactly.
        With hidden units: the free energy F(v), of bits. Without edges log Z is included.
        """
        if self.hidden == 0:
            energy = self.pairs(u)
            return energy + softplus(self.pairs.centred_bias).sum() if self.normalized else energy
        d = self.z_dim
        bias, coupling = self.pairs.parts()
        field = bias[d:] + u @ coupling[:d, d:]
        free = hidden_free_energy(field, coupling[d:, d:], self._hidden_colours)
        return pairwise_energy(u, bias[:d], coupling[:d, :d]) + free

    def unit_sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw n configurations of the latents, shape (n, d): independent ones where the graph allows.

        That is where all but 20 units can be summed out, or its treewidth is at most 15; otherwise they come
        from parallel tempering that starts at the persistent chains.
        """
        if self.normalized:
            return coins(self.model_mean().expand(n, -1), generator)
        return draw_bits(self.problem(), self.chains.spins, n, generator)[:, : self.z_dim]

    def sample_given(self, log_odds: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Draw the bits of B particles from p(b|x), where images speak of every bit by itself.

        This is the E-step of an empirical-Bayes fit without importance weights: `loss` of these bits has the
        gradient of -log p(x).

        Parameters
        ----------
        log_odds : Tensor, shape (B, d)
            log p(x | b_i = 1) - log p(x | b_i = 0); of a Bernoulli posterior made under independent bits, its
            logits less theirs.
        generator : torch.Generator, optional

        Returns
        -------
        Tensor, shape (B, d)
        """
        return posterior_bits(self.problem(), log_odds, generator)

    def unit_log_partition(self) -> LogPartition:
        """Log Z, exact where the graph allows, otherwise by annealed importance sampling."""
        return LogPartition.exact() if self.normalized else log_partition(self.problem())

    @property
    def last_partition(self) -> LogPartition | None:
        """What `log_partition` found when it was last asked."""
        return None if self._known is None else self._known[1]

    def log_partition_estimates(
        self, *, chains: int = CHAINS, temperatures: int = TEMPERATURES, seed: int = 0
    ) -> dict[str, LogPartition]:
        """Log Z by all ways there are, side by side; see `machines.sampling.partition_estimates`."""
        return partition_estimates(
            self.problem(),
            self.pairs.data_mean,
            self.snapshots(),
            chains=chains,
            temperatures=temperatures,
            seed=seed,
        )

    def log_prob(self, z: Tensor | NDArray[np.floating[Any]]) -> Tensor:
        """Log probability of bits, shape (..., d) -> (...), nats.

        Raises
        ------
        InputError
            If a value is neither 0 nor 1: probabilities have an energy, but are not in the support.
        """
        z = z if isinstance(z, Tensor) else torch.as_tensor(z, dtype=self.shift.dtype)
        other = z[(z != 0) & (z != 1)]
        if len(other):
            raise InputError(
                f"a prior on bits has no probability for {float(other[0]):.4g}: bits are 0 or 1",
                remedy="Give bits, for example z_mean > 0.5, or samples of the posteriors.",
            )
        return super().log_prob(z)

    def kl_divergence(self, q: PosteriorLike, z: Tensor | None = None) -> Tensor:
        """KL(q || p) of independent bits, shape (B,), less log Z where the machine is not `normalized`.

        All latent: E(q.mean) - H(q), exactly and without samples. With hidden units: the mean of F over the
        samples z (K, B, d), less H(q).
        """
        if self.hidden == 0:
            return self.energy(q.mean) - q.entropy()
        samples = q.rsample(1) if z is None else z
        return self.energy(samples).mean(0) - q.entropy()

    # -- learning --------------------------------------------------------------------------------

    def loss(
        self, z: Tensor, weights: Tensor | None = None, generator: torch.Generator | None = None
    ) -> Tensor:
        """Surrogate E(data) - E(chains), plus the penalty: its gradient is that of -log p, its value nothing.

        The chains and the offset are moved first, in place. Without edges: the weighted mean of -log p.

        Parameters
        ----------
        z : Tensor, shape (B, d)
            Bits or probabilities.
        weights : Tensor, shape (B,), optional
        generator : torch.Generator, optional
        """
        z = z.detach()
        if self.normalized:
            self.pairs.follow(weighted_rows(z, weights))
            return weighted_mean(self.energy(z), weights)
        data = self.completed(z, generator)
        model = self.chains.step(self.problem(), data, weights, generator)
        if len(self._hidden_colours) == 1:
            # Means of the hidden units in place of bits: the same average with less noise.
            model = self.completed(model[:, : self.z_dim], generator)
        self.pairs.follow(weighted_rows(data, weights))
        if self.trajectory.next_step():
            self.remember()
        surrogate = weighted_mean(self.pairs(data), weights) - self.pairs(model).mean()
        return surrogate + 0.5 * self.decay * self.pairs.weight.square().sum()

    @torch.no_grad()
    def completed(self, z: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Latents (B, d), and behind them the means of the hidden units given their bits: (B, n)."""
        if self.hidden == 0:
            return z
        if bool(((z != 0) & (z != 1)).any()):
            # F is not linear in the latents: probabilities cannot stand for bits.
            z = coins(z, generator)
        d = self.z_dim
        bias, coupling = self.pairs.parts()
        field = bias[d:] + z @ coupling[:d, d:]
        return torch.cat([z, hidden_means(field, coupling[d:, d:], self._hidden_colours)], -1)

    @torch.no_grad()
    def warm_start(self, z: Tensor, generator: torch.Generator | None = None) -> None:
        """Start from independent bits with the means of z (N, d), hardly coupled, and chains at the data."""
        mean = torch.full((self.z_dim + self.hidden,), 0.5).to(z)
        mean[: self.z_dim] = (z.sum(0) + 0.5) / (len(z) + 1.0)
        self.pairs.start(mean.to(self.pairs.data_mean), generator)
        if self.pretrain:
            from cryoscape.priors.machines.pretraining import pretrain

            pretrain(self, self.pretrain, z, generator)
        if not self.normalized:
            self.chains.start(self.completed(z.to(mean), generator), generator)
        self.trajectory.clear()

    def problem(self) -> IsingProblem:
        """The machine on spins, as it is now, hidden units among them; with the constant of `energy`."""
        problem = self.pairs.problem()
        if not self.normalized:
            return problem
        constant = float(softplus(self.pairs.centred_bias.detach()).sum())
        return replace(problem, offset=problem.offset + constant)

    def remember(self) -> None:
        """Keep a snapshot of the parameters; `loss` does so by itself at growing distances."""
        self.trajectory.store(self.pairs.bias, self.pairs.weight)

    def snapshots(self) -> list[IsingProblem]:
        """The machine along its training, oldest first."""
        return [self.pairs.problem(bias, weight) for bias, weight in self.trajectory.snapshots()]

    # -- what it says of itself ------------------------------------------------------------------

    def couplings_kt(self) -> Tensor:
        """W of all units, symmetric (n, n), kT: positive where two bits favour being 1 together."""
        return self.pairs.coupling.detach()

    def fields_kt(self) -> Tensor:
        """Bias of every unit, shape (n,), kT: what a bit gains by being 1 where all others are 0."""
        return self.pairs.bias.detach()

    def model_mean(self) -> Tensor:
        """Mean of all units under the law, shape (n,), as the chains have it."""
        if self.normalized:
            return torch.sigmoid(self.pairs.centred_bias.detach())
        return self.chains.bits.to(self.shift.dtype).mean(0)

    @torch.no_grad()
    def states(self) -> PriorStates | None:
        """All configurations of up to ten latents, named by their signs; None where there are more.

        Also None where the energy is a bound, which has no populations.
        """
        if self.z_dim > FEW_BITS or len(self._hidden_colours) > 1:
            return None
        bits = configurations(self.z_dim)
        weight = torch.softmax(-self.energy(bits.to(self.shift)).double(), 0)
        return PriorStates(
            weight=weight.cpu().numpy(),
            mean=bits.double().numpy(),
            covariance=np.zeros((len(bits), self.z_dim, self.z_dim)),
            names=tuple("".join("+" if bit else "-" for bit in row) for row in bits.tolist()),
        )

    def responsibilities(self, z: Tensor) -> Tensor:
        """Probability of every configuration of independent bits of probability z, (..., d) -> (..., K)."""
        if self.z_dim > FEW_BITS:
            return super().responsibilities(z)
        out = torch.ones_like(z[..., :1])
        for i in range(self.z_dim):
            choice = torch.stack([1 - z[..., i], z[..., i]], -1)
            out = (out[..., :, None] * choice[..., None, :]).flatten(-2)
        return out

    def faults(self) -> tuple[str, ...]:
        """Parameters that are not finite, frozen chains, dead units, a log Z that rests on few runs."""
        return (*super().faults(), *machine_faults(self))
