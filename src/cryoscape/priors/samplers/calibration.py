"""A test of any sampler on twelve spins whose law is known."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cryoscape.priors.samplers.base import IsingProblem, IsingSampler, IsingSamples
from cryoscape.priors.samplers.effective_temperature import EffectiveBeta, effective_beta
from cryoscape.priors.samplers.exact import state_numbers, state_probabilities
from cryoscape.priors.samplers.health import sample_faults

EXCESS = 0.01
"""Total variation above the floor that a sampler passes with."""

BETA_ERROR = 0.03
"""Error of the inverse temperature that it passes with."""

_FLOORS = 20


@dataclass(frozen=True)
class Calibration:
    """How far the samples of a sampler are from a known law.

    Attributes
    ----------
    tvd : float
        Total variation distance between the samples and the law, 0 to 1.
    floor : float
        The same of as many independent samples, on average.
    floor_sd : float
        Its standard deviation.
    beta_eff : float
        Inverse temperature of the samples; 1 was asked for.
    seconds : float
        Time that the samples took.
    passed : bool
        Whether `tvd` is within 0.01 of the floor and `beta_eff` within 0.03 of 1.
    faults : tuple of str
        What is wrong, in words.
    """

    tvd: float
    floor: float
    floor_sd: float
    beta_eff: float
    seconds: float
    passed: bool
    faults: tuple[str, ...]


def reference_problem() -> IsingProblem:
    """A restricted machine of 6 and 6 spins, J ~ 0.6 N(0, 1), h ~ 0.2 N(0, 1), in double precision.

    Its log Z is 11.785533195992425, its mean energy -5.858834.
    """
    rng = np.random.default_rng(0)
    couplings = torch.from_numpy(rng.normal(0, 0.6, (6, 6)))
    fields = torch.from_numpy(rng.normal(0, 0.2, 12))
    edges = torch.cartesian_prod(torch.arange(6), torch.arange(6, 12))
    return IsingProblem(fields, edges, couplings.flatten())


def state_shares(samples: IsingSamples) -> Tensor:
    """Weighted share of every state of few spins, shape (2^n,), double, in the order of `spin_states`."""
    spins = samples.spins.cpu()
    weight = torch.full((len(spins),), 1 / len(spins), dtype=torch.float64)
    if samples.log_weight is not None:
        weight = torch.softmax(samples.log_weight.double().cpu(), 0)
    return torch.zeros(2 ** spins.shape[1]).double().index_add_(0, state_numbers(spins), weight)


def sampling_floor(probabilities: Tensor, num_reads: int, seed: int = 0) -> tuple[float, float]:
    """Mean and standard deviation of the total variation of independent samples of a law (S,)."""
    rng = np.random.default_rng(seed)
    p = probabilities.numpy() / float(probabilities.sum())
    shares = rng.multinomial(num_reads, p, size=_FLOORS) / num_reads
    distances = 0.5 * np.abs(shares - p).sum(1)
    return float(distances.mean()), float(distances.std(ddof=1))


def calibrate(sampler: IsingSampler, num_reads: int = 20000, seed: int = 0) -> Calibration:
    """Compare a sampler with the exact law of `reference_problem`.

    Weighted samples have the floor of their effective number.

    Parameters
    ----------
    sampler : IsingSampler
    num_reads : int
    seed : int
    """
    problem = reference_problem()
    law = state_probabilities(problem)
    start = time.perf_counter()
    samples = sampler.sample_ising(problem, num_reads=num_reads, seed=seed)
    seconds = time.perf_counter() - start
    shares = state_shares(samples)
    effective = num_reads
    if samples.log_weight is not None:
        weight = torch.softmax(samples.log_weight.double(), 0)
        effective = max(1, round(1 / float(weight.square().sum())))
    floor, floor_sd = sampling_floor(law, effective, seed)
    tvd = float(0.5 * (shares - law).abs().sum())
    beta = effective_beta(problem, samples.spins, samples.log_weight)
    faults = _faults(shares, law, effective, tvd - floor, beta) + sample_faults(samples)
    passed = tvd - floor <= EXCESS and abs(beta.value - 1) <= BETA_ERROR
    return Calibration(tvd, floor, floor_sd, beta.value, seconds, passed, faults)


def _faults(
    shares: Tensor, law: Tensor, effective: int, excess: float, beta: EffectiveBeta
) -> tuple[str, ...]:
    """Words for a frozen sampler, a wrong temperature and any other law."""
    seen = int((shares > 0).sum())
    expected = float((1 - (1 - law) ** effective).sum())
    out = []
    if seen < expected / 4:
        out.append(
            f"the sampler is frozen: it visited {seen} states, "
            f"and independent samples would visit {expected:.0f}"
        )
    if not abs(beta.value - 1) <= BETA_ERROR:
        side = "cold" if beta.value > 1 else "hot"
        value = f"{beta.value:.2f}" if math.isfinite(beta.value) else "infinite"
        out.append(f"the samples are too {side}: their inverse temperature is {value}, and 1 was asked for")
    elif excess > EXCESS:
        out.append(
            f"the temperature is right and the law is not: {excess:.3f} above the floor in total variation; "
            "run more sweeps"
        )
    return tuple(out)
