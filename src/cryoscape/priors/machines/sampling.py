"""Samples and log Z of a Boltzmann machine, exact wherever its graph allows."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from cryoscape.priors.base import LogPartition
from cryoscape.priors.machines.negative_phase import coins, drawn_seed
from cryoscape.priors.samplers.annealed import CHAINS, TEMPERATURES, annealed_importance
from cryoscape.priors.samplers.base import IsingProblem, IsingSampler
from cryoscape.priors.samplers.exact import ExactSampler, spin_states
from cryoscape.priors.samplers.gibbs import sweep
from cryoscape.priors.samplers.partition import log_partition, quickest_method
from cryoscape.priors.samplers.tempering import ParallelTempering
from cryoscape.priors.samplers.trajectory import trajectory_annealing
from cryoscape.priors.samplers.tree import TreeSampler

SWEEPS = 100
"""Sweeps of parallel tempering between the persistent chains and samples of the law."""

POSTERIOR_SWEEPS = 50
"""Gibbs sweeps to the posterior of a particle."""

FEW_UNITS = 10
"""Units of which all configurations are weighed for every particle."""

_READS = 2048


def draw_bits(
    problem: IsingProblem, chains: Tensor, n: int, generator: torch.Generator | None = None
) -> Tensor:
    """Draw samples of all units.

    Independent ones by enumeration or a tree decomposition where one of them is quick; else by parallel
    tempering from persistent chains.

    Parameters
    ----------
    problem : IsingProblem
    chains : Tensor, shape (C, units), int8
        Persistent chains, +-1.
    n : int
    generator : torch.Generator, optional

    Returns
    -------
    Tensor, shape (n, units)
        Bits, in the precision of the problem.
    """
    method = quickest_method(problem)
    sampler: IsingSampler
    if method == "ais":
        sampler, parts = ParallelTempering(SWEEPS), [min(_READS, n - i) for i in range(0, n, _READS)]
    else:
        sampler, parts = (ExactSampler() if method == "enumeration" else TreeSampler()), [n]
    drawn = []
    for reads in parts:
        rows = torch.randint(len(chains), (reads,), generator=generator) if method == "ais" else None
        start = None if rows is None else chains[rows.to(chains.device)]
        seed = drawn_seed(generator)
        drawn.append(sampler.sample_ising(problem, num_reads=reads, initial_states=start, seed=seed).spins)
    return ((torch.cat(drawn) + 1) // 2).to(problem.fields)


@torch.no_grad()
def posterior_bits(
    problem: IsingProblem, log_odds: Tensor, generator: torch.Generator | None = None
) -> Tensor:
    """Draw the latents of particles whose images say something of every bit by itself.

    p(b|x) is proportional to exp(-E(b) + l.b), so that every particle has a machine of its own with the same
    couplings: all configurations are weighed where there are few, otherwise Gibbs sweeps start from what the
    image says alone.

    Parameters
    ----------
    problem : IsingProblem
        The prior; units beyond the latents are hidden.
    log_odds : Tensor, shape (B, d)
        l, log p(x | b_i = 1) - log p(x | b_i = 0) of every bit.
    generator : torch.Generator, optional

    Returns
    -------
    Tensor, shape (B, d)
        Bits.
    """
    n, d = len(problem), log_odds.shape[1]
    if n <= FEW_UNITS:
        states = spin_states(n).to(problem.fields)
        gain = log_odds.to(states) @ (states[:, :d].T + 1) / 2
        chance = torch.softmax(gain - problem.energy(states), 1)
        number = torch.multinomial(chance.cpu(), 1, generator=generator)[:, 0]
        return (states[number.to(states.device), :d] + 1) / 2
    clamped = torch.cat([log_odds, log_odds.new_zeros(len(log_odds), n - d)], 1).to(problem.fields)
    fields = problem.fields - clamped / 2
    spins = 2 * coins(torch.sigmoid(-2 * fields), generator) - 1
    for _ in range(POSTERIOR_SWEEPS):
        uniform = torch.rand(spins.shape, generator=generator).to(spins)
        spins = sweep(spins, problem, 1.0, uniform, fields)
    return (spins[:, :d] + 1) / 2


def partition_estimates(
    problem: IsingProblem,
    mean: Tensor,
    snapshots: Sequence[IsingProblem] = (),
    *,
    chains: int = CHAINS,
    temperatures: int = TEMPERATURES,
    seed: int = 0,
) -> dict[str, LogPartition]:
    """Log Z by all ways there are, side by side.

    Parameters
    ----------
    problem : IsingProblem
    mean : Tensor, shape (units,)
        Means of independent bits from which annealing starts (Salakhutdinov and Murray 2008).
    snapshots : sequence of IsingProblem
        The machine along its training, for annealing along that.
    chains, temperatures : int
        Of annealing; along a trajectory the temperatures are divided among its parts.
    seed : int

    Returns
    -------
    dict
        "enumeration" or "tree" where the graph allows it, "ais", and "trajectory" where there is one.
    """
    found: dict[str, LogPartition] = {}
    exact = quickest_method(problem)
    if exact != "ais":
        found[exact] = log_partition(problem, method=exact)
    fields = -0.5 * torch.logit(mean.clamp(1e-3, 1 - 1e-3))
    ais = annealed_importance(
        problem, chains=chains, temperatures=temperatures, base_fields=fields.to(problem.fields), seed=seed
    )
    found["ais"] = LogPartition(ais.log_z, ais.std_err, ais.ess, "ais")
    if snapshots:
        path = [*snapshots, problem]
        along = trajectory_annealing(path, chains=chains, steps=temperatures, seed=seed)
        last = float(along.log_z[-1]), float(along.std_err[-1]), float(along.ess[-1])
        found["trajectory"] = LogPartition(*last, "trajectory")
    return found
