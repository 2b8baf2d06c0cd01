"""What can be wrong with a Boltzmann mixture, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from cryoscape.priors.boltzmann import BoltzmannPrior

_FROZEN = 0.999
_IDLE = 0.1
_UNRELIABLE = 0.3


@torch.no_grad()
def boltzmann_faults(prior: BoltzmannPrior) -> tuple[str, ...]:
    """Switches that never change or move nothing, sums that cannot be annealed, too narrow Gaussians.

    Parameters
    ----------
    prior : BoltzmannPrior
        With finite parameters.
    """
    found: tuple[str, ...] = ()
    frozen = prior.switch_means().abs() > _FROZEN
    if bool(frozen.any()):
        found += (f"switches that never change: {_listed(frozen)}",)
    idle = prior.emission.reach(prior.switches) < _IDLE
    if bool(idle.any()):
        found += (f"switches that move nothing: {_listed(idle)}",)
    if prior.annealing_error() > _UNRELIABLE:
        found += (
            "the sum over the switches cannot be annealed reliably: they move points by many times the width "
            "of a state",
        )
    narrow = prior.emission.covariance.narrow()
    if bool(narrow.any()):
        found += (
            f"{int(narrow.sum())} of the {len(narrow)} covariances are as narrow as the floor in some "
            "direction: the points lie on fewer dimensions than the latent space has",
        )
    return found


def _listed(which: Tensor) -> str:
    """Numbers from 1 of what is true."""
    return ", ".join(str(int(i) + 1) for i in which.nonzero()[:, 0])
