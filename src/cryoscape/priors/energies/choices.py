"""The energy-based prior that settings ask for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryoscape.priors.base import LatentPrior
from cryoscape.priors.energies.drawing import LawSampler, MetropolisLangevin, Resampling, ShortRun
from cryoscape.priors.energies.negative import (
    LearnedSampler,
    NegativePhase,
    NoiseContrast,
    PersistentLangevin,
    ShortRunChains,
)
from cryoscape.priors.energies.prior import EnergyPrior
from cryoscape.priors.normal import NormalPrior

if TYPE_CHECKING:
    from cryoscape.priors.config import EnergyConfig


def energy_prior(z_dim: int, settings: EnergyConfig) -> EnergyPrior:
    """Return a new prior of d dimensions with such settings."""
    return EnergyPrior(
        z_dim,
        base=_base(z_dim, settings),
        hidden=settings.hidden,
        negative=_negative(z_dim, settings),
        penalty=settings.penalty,
        sampler=_sampler(settings),
        proposals=settings.proposals,
    )


def _base(z_dim: int, settings: EnergyConfig) -> LatentPrior:
    if settings.base == "normal":
        return NormalPrior(z_dim)
    if settings.base == "flow":
        from cryoscape.priors.flow import FlowPrior

        return FlowPrior(z_dim)
    from cryoscape.priors.mixture import MixturePrior

    return MixturePrior(z_dim, settings.components)


def _negative(z_dim: int, settings: EnergyConfig) -> NegativePhase:
    if settings.learning == "short-run":
        return ShortRunChains(_short_run(settings))
    if settings.learning == "persistent":
        return PersistentLangevin(z_dim, buffer=settings.buffer, refresh=settings.refresh)
    if settings.learning == "sampler":
        return LearnedSampler(z_dim)
    return NoiseContrast()


def _sampler(settings: EnergyConfig) -> LawSampler:
    if settings.sampling == "short-run":
        return _short_run(settings)
    return MetropolisLangevin() if settings.sampling == "mala" else Resampling(settings.proposals)


def _short_run(settings: EnergyConfig) -> ShortRun:
    return ShortRun(settings.chain_steps, settings.step_size)
