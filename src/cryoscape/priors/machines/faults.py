"""What can go wrong with a Boltzmann machine on bits, in words a user understands."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from cryoscape.priors.fitting import LOW_ESS
from cryoscape.priors.samplers.annealed import CHAINS

if TYPE_CHECKING:
    from cryoscape.priors.machines.machine import BoltzmannMachine

DEAD = 0.01
"""A unit with a mean below this, or above one less this, in data and model, is called dead."""

FROZEN = 0.01
"""Share of the spins that flip in a step, over that of independent samples, below which chains are frozen."""

_NAMED = 8


@torch.no_grad()
def machine_faults(machine: BoltzmannMachine) -> tuple[str, ...]:
    """Faults of the chains, the units and the last estimate of log Z."""
    return tuple(filter(None, (_frozen(machine), _dead(machine), _unreliable(machine))))


def _frozen(machine: BoltzmannMachine) -> str:
    mixing = float(machine.chains.mixing)
    if machine.normalized or mixing >= FROZEN:
        return ""
    return (
        f"the chains of the prior are frozen: in a step, {100 * mixing:.2g} % as many spins flip as between "
        "independent samples, so that the prior learns from the wrong law; give more sweeps, a smaller "
        "learning rate or another sampler"
    )


def _dead(machine: BoltzmannMachine) -> str:
    model = machine.model_mean()
    dead = _constant(machine.pairs.data_mean) & _constant(model)
    d = machine.z_dim
    parts = []
    for name, first, flags in (("bits", 1, dead[:d]), ("hidden units", 1, dead[d:])):
        found = [str(int(i) + first) for i in flags.nonzero()[:, 0]]
        if found:
            more = ", ..." if len(found) > _NAMED else ""
            parts.append(f"{len(found)} of {len(flags)} {name} ({', '.join(found[:_NAMED])}{more})")
    if not parts:
        return ""
    return f"{' and '.join(parts)} have one value in all of the data and of the prior: they carry nothing"


def _constant(mean: Tensor) -> Tensor:
    return (mean < DEAD) | (mean > 1 - DEAD)


def _unreliable(machine: BoltzmannMachine) -> str:
    found = machine.last_partition
    if found is None or found.ess >= LOW_ESS * CHAINS:
        return ""
    return (
        f"log Z of the prior rests on {found.ess:.1f} of {CHAINS} annealing runs: its log probabilities are "
        "off by an unknown constant, the same for all particles"
    )
