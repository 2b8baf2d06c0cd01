"""Annealed importance sampling from the base to the law: an estimate of log Z by another route (Neal 2001).

    log w = sum_t (b_(t+1) - b_t) f(u_t),        u_t after a step of MALA that leaves p_b exp(b_t f) unchanged

from exact samples of the base at b = 0 to the law at b = 1. The mean of w is Z, however badly the chains
mix; their spread says how far to trust it.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from cryoscape.priors.base import LogPartition
from cryoscape.priors.energies.tilt import TiltedLaw
from cryoscape.priors.langevin import metropolis_langevin, tuned
from cryoscape.priors.samplers.bennett import log_mean_exp

_PILOT = 128


@torch.no_grad()
def annealed_partition(
    law: TiltedLaw, *, chains: int = 512, temperatures: int = 500, steps: int = 1, seed: int = 0
) -> LogPartition:
    """Log of E_b[exp f].

    Parameters
    ----------
    law : TiltedLaw
    chains : int
        Independent of each other.
    temperatures : int
        Steps from b = 0 to b = 1, all alike.
    steps : int
        Of MALA, at every temperature.
    seed : int

    Returns
    -------
    LogPartition
        Its method is "annealed".
    """
    generator = torch.Generator().manual_seed(seed)
    # Step sizes come from chains of their own: chosen by the same chains they would bias the weights.
    _, sizes = _anneal(law, _PILOT, temperatures, steps, [], generator)
    log_weight, _ = _anneal(law, chains, temperatures, steps, sizes, generator)
    value, error, ess = log_mean_exp(log_weight)
    return LogPartition(float(value), float(error), float(ess), "annealed")


def _anneal(
    law: TiltedLaw,
    chains: int,
    temperatures: int,
    steps: int,
    sizes: list[float],
    generator: torch.Generator,
) -> tuple[Tensor, list[float]]:
    """Log weights (chains,) and the step sizes of all temperatures, tuned on the way where none are given."""
    u, size, found = law.draw_base(chains, generator), 0.3, list(sizes)
    log_weight = torch.zeros(chains, dtype=torch.float64, device=u.device)
    for t in range(temperatures):
        log_weight += law.tilt(u).double() / temperatures
        size = sizes[t] if sizes else size
        stage = partial(law.annealed, share=(t + 1) / temperatures)
        moved = metropolis_langevin(stage, u, step=size, steps=steps, generator=generator)
        u = moved.points
        if not sizes:
            found.append(size)
            size = tuned(size, moved.acceptance)
    return log_weight, found
