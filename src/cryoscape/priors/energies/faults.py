"""What can go wrong with an energy-based prior, in words a user understands."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from cryoscape.priors.energies.drawing import ShortRun, pool
from cryoscape.priors.energies.tilt import PART, TiltedLaw
from cryoscape.priors.fitting import LOW_ESS
from cryoscape.priors.langevin import metropolis_langevin, tuned_step

if TYPE_CHECKING:
    from cryoscape.priors.energies.prior import EnergyPrior
    from cryoscape.priors.energies.recovery import RecoveryPrior

ERRORS = 5.0
"""Standard errors by which the mean of f of two samplers must differ to be called different."""

LEAST_GAP = 0.1
"""Nats that it must differ by as well."""

FEWEST_ACCEPTED = 0.2
"""Share of accepted Langevin steps below which chains are said not to move."""

_CHAINS = 1000
_FOLLOWED = 200


@torch.no_grad()
def energy_faults(prior: EnergyPrior) -> tuple[str, ...]:
    """Faults of the energy, of log Z, of the chains, and of short chains that are not the model."""
    found = prior.log_partition()
    if not math.isfinite(found.value):
        return ("the energy of the prior is not finite at points of its base",)
    overlaps = found.ess >= LOW_ESS * prior.proposals
    faults = [*prior.negative.faults()]
    if not overlaps:
        faults.append(
            f"the base of the prior hardly overlaps with it: {found.ess:.0f} of {prior.proposals} points of "
            "the base count (effective sample size), so that log Z, log probabilities and resampled points "
            "are not to be trusted; use base = mixture with more components, or sampling = mala"
        )
    short = prior.short_run()
    if short is not None:
        faults += short_run_faults(prior.law, short, overlaps)
    return tuple(faults)


@torch.no_grad()
def recovery_faults(prior: RecoveryPrior) -> tuple[str, ...]:
    """Faults of the energy, of log Z, of the chains, and of a ladder that does not lead to the density."""
    found = prior.log_partition()
    if not math.isfinite(found.value):
        return ("the energy of the prior is not finite at points of its mixture",)
    faults = []
    accepted = float(prior.acceptance.min())
    if accepted < FEWEST_ACCEPTED:
        faults.append(
            f"the chains of a level of the prior hardly move: {100 * accepted:.2g} % of their steps are "
            "accepted; give a smaller learning rate"
        )
    if found.ess < LOW_ESS * prior.proposals:
        faults.append(
            f"the mixture behind log Z hardly overlaps with the prior: {found.ess:.0f} of {prior.proposals} "
            "of its points count (effective sample size), so that log probabilities are not to be trusted; "
            "give more components"
        )
    elif prior.sampling == "ladder":
        gap, error = ladder_gap(prior)
        if not math.isfinite(gap) or (abs(gap) >= LEAST_GAP and abs(gap) >= ERRORS * error):
            faults.append(
                "the samples of the prior, which come down its ladder, do not follow its density: their mean "
                f"log density is {abs(gap):.2f} nats {'above' if gap > 0 else 'below'} that of the density "
                f"(error {error:.2f})"
            )
    return tuple(faults)


@torch.no_grad()
def ladder_gap(prior: RecoveryPrior, seed: int = 0) -> tuple[float, float]:
    """Mean log density of points from the ladder less its mean under the density, and the standard error."""
    generator = torch.Generator().manual_seed(seed)
    value, own = _mean_and_error(-prior.unit_energy(prior.descend(_CHAINS, generator)).double())
    pool = prior.pool(generator)
    energies = torch.cat([prior.unit_energy(part).double() for part in pool.points.split(PART)])
    mean, error = pool.mean(-energies)
    return value - mean, math.hypot(own, error)


def short_run_faults(law: TiltedLaw, short: ShortRun, overlaps: bool) -> list[str]:
    """Whether short chains end where the density is, judged by the mean of f."""
    gap, error = short_run_gap(law, short, overlaps)
    if not math.isfinite(gap):
        return ["the short chains of the prior run away: give a smaller step"]
    if abs(gap) < LEAST_GAP or abs(gap) < ERRORS * error:
        return []
    return [
        f"the short chains of the prior are not samples of its density: their mean f is {abs(gap):.2f} nats "
        f"{'above' if gap > 0 else 'below'} that of the density (error {error:.2f}); chains and density "
        "are two different models, and only the one that is used should be believed"
    ]


@torch.no_grad()
def short_run_gap(law: TiltedLaw, short: ShortRun, overlaps: bool, seed: int = 0) -> tuple[float, float]:
    """Mean of f over ends of short chains less its mean under p, and the standard error.

    Parameters
    ----------
    law : TiltedLaw
    short : ShortRun
    overlaps : bool
        Whether the base overlaps with p: then the mean under p is one over resampled points of the base.
        Otherwise it is that of the same chains after 200 further steps of MALA, which would leave them where
        they are if they followed p.
    seed : int
    """
    generator = torch.Generator().manual_seed(seed)
    ends = short.draw(law, _CHAINS, generator)
    if not bool(torch.isfinite(ends).all()):
        return math.nan, math.nan
    short_f = law.tilts(ends)
    if overlaps:
        points = pool(law, 100 * _CHAINS, generator)
        mean, error = points.mean(points.log_weight)
    else:
        mean, error = _mean_and_error(law.tilts(_followed(law, ends, generator)))
    value, own = _mean_and_error(short_f)
    return value - mean, math.hypot(own, error)


def _followed(law: TiltedLaw, start: Tensor, generator: torch.Generator) -> Tensor:
    step, u = tuned_step(law.log_density, start, generator=generator)
    run = metropolis_langevin(law.log_density, u, step=step, steps=_FOLLOWED, generator=generator)
    return run.points


def _mean_and_error(values: Tensor) -> tuple[float, float]:
    return float(values.mean()), float(values.std()) / math.sqrt(len(values))
