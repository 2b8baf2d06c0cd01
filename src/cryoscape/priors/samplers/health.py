"""Whether chains mix: numbers, and words for what is wrong."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cryoscape.priors.fitting import LOW_ESS
from cryoscape.priors.samplers.base import IsingProblem, IsingSampler, IsingSamples

LOW_SWAP = 0.05
"""Chance of an exchange below which a ladder of tempering is called broken."""

HIGH_R_HAT = 1.1
FROZEN_SHARE = 0.05


@dataclass(frozen=True)
class SamplerHealth:
    """How well a sampler mixes.

    Attributes
    ----------
    autocorrelation : float
        Integrated autocorrelation time of the energy, in calls of the sampler; 1 of independent samples.
    r_hat : float
        Split R-hat of the energy over the chains; 1 where they agree.
    flipped : float
        Share of the spins that differed from their start at some time.
    frozen : float
        Share of the chains in which no spin ever did.
    faults : tuple of str
        What is wrong, in words; empty where nothing is.
    """

    autocorrelation: float
    r_hat: float
    flipped: float
    frozen: float
    faults: tuple[str, ...]


def integrated_autocorrelation(series: Tensor) -> float:
    """1 + 2 sum of the autocorrelations, over the first window that is five times as long (Sokal 1997).

    Parameters
    ----------
    series : Tensor, shape (steps, chains)
        Deviations are from the mean of all chains, so that chains that stay apart count as correlated.

    Returns
    -------
    float
        In steps; at least 1, and infinite where nothing varies.
    """
    x = series.double() - series.double().mean()
    steps = len(x)
    spectrum = torch.fft.rfft(x, n=2 * steps, dim=0).abs().square()
    covariance = torch.fft.irfft(spectrum, n=2 * steps, dim=0)[:steps].mean(1)
    covariance /= torch.arange(steps, 0, -1).to(covariance)
    if float(covariance[0]) <= 0:
        return math.inf
    time = 2 * (covariance / covariance[0]).cumsum(0) - 1
    inside = torch.arange(steps).to(time) >= 5 * time
    window = int(inside.nonzero()[0]) if bool(inside.any()) else steps - 1
    return max(1.0, float(time[window]))


def split_r_hat(series: Tensor) -> float:
    """Potential scale reduction of series (steps, chains), every chain cut in two (Gelman et al. 2013)."""
    half = len(series) // 2
    parts = torch.cat([series[:half], series[-half:]], 1).double()
    within = parts.var(0).mean()
    between = half * parts.mean(0).var()
    if float(within) == 0:
        return 1.0 if float(between) == 0 else math.inf
    return math.sqrt(float((half - 1) / half + between / (half * within)))


def chain_health(energies: Tensor, ever_flipped: Tensor, ends: Tensor) -> SamplerHealth:
    """Judge chains by their record.

    Parameters
    ----------
    energies : Tensor, shape (steps, chains)
    ever_flipped : Tensor, shape (chains, n), bool
        Which spins differed from their start at some time.
    ends : Tensor, shape (chains, n)
        States at the end: chains that never move are no fault where all of them are in the same state.
    """
    time, r_hat = integrated_autocorrelation(energies), split_r_hat(energies)
    still = ~ever_flipped.any(1)
    frozen = float(still.double().mean())
    faults = []
    if frozen > FROZEN_SHARE and len(ends[still].unique(dim=0)) > 1:
        faults.append(
            f"{frozen:.0%} of the chains are frozen: no spin of theirs flipped in {len(energies)} steps"
        )
    if r_hat > HIGH_R_HAT:
        faults.append(
            f"the chains do not agree on the energy (R-hat {r_hat:.2f}): run more sweeps, or tempering"
        )
    if time > len(energies) / 10:
        faults.append(
            f"the energy is correlated over {time:.0f} of {len(energies)} steps: run more sweeps between them"
        )
    return SamplerHealth(time, r_hat, float(ever_flipped.double().mean()), frozen, tuple(faults))


def sample_faults(samples: IsingSamples) -> tuple[str, ...]:
    """What samples say of themselves: few effective ones, neighbours of a ladder that do not exchange."""
    faults = list(samples.info.get("faults", ()))
    share = samples.info.get("ess", math.inf) / max(1, len(samples.spins))
    if share < LOW_ESS:
        faults.append(
            f"only {share:.1%} of the weighted samples count (effective sample size): "
            "log Z is not to be trusted; use more temperatures"
        )
    swaps = [s for s in samples.info.get("swap", ()) if not math.isnan(s)]
    if swaps and min(swaps) < LOW_SWAP:
        faults.append(f"replicas of the ladder hardly exchange ({min(swaps):.1%}): use more of them")
    return tuple(faults)


@torch.no_grad()
def watch(
    sampler: IsingSampler,
    problem: IsingProblem,
    *,
    chains: int = 64,
    rounds: int = 100,
    beta: float = 1.0,
    seed: int = 0,
) -> SamplerHealth:
    """Call a sampler again and again, as a training does, and judge its chains.

    Parameters
    ----------
    sampler : IsingSampler
        One without chains is asked for new reads every time.
    problem : IsingProblem
    chains, rounds : int
        Reads of a call, and calls; the first fifth of the calls is not judged.
    beta : float
    seed : int
    """

    def called(turn: int, states: Tensor | None) -> IsingSamples:
        carried = states if sampler.supports_initial_states else None
        return sampler.sample_ising(
            problem, num_reads=chains, beta=beta, initial_states=carried, seed=seed + turn
        )

    samples = called(0, None)
    for turn in range(1, rounds // 5):
        samples = called(turn, samples.spins)
    start, energies = samples.spins.clone(), []
    ever_flipped = torch.zeros_like(start, dtype=torch.bool)
    for turn in range(rounds // 5, rounds):
        samples = called(turn, samples.spins)
        ever_flipped |= samples.spins != start
        energies.append(problem.energy(samples.spins))
    found = chain_health(torch.stack(energies), ever_flipped, samples.spins)
    return replace(found, faults=(*found.faults, *sample_faults(samples)))
