"""Energy-based priors as the contract of all priors takes them: small, and not what they start as."""

import torch

from cryoscape.priors.energies.drawing import MetropolisLangevin, ShortRun
from cryoscape.priors.energies.negative import LearnedSampler, PersistentLangevin, ShortRunChains
from cryoscape.priors.energies.prior import EnergyPrior
from cryoscape.priors.energies.recovery import RecoveryPrior
from cryoscape.priors.flow import FlowPrior
from cryoscape.priors.mixture import MixturePrior
from cryoscape.priors.normal import NormalPrior


def moved(prior, by):
    """All parameters moved at random, in whitened units that are not those of z."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter.add_(by * torch.randn(parameter.shape, generator=generator))
    prior.shift.copy_(torch.tensor([0.4, -0.3]))
    prior.scale.fill_(1.2)
    return prior


def energy(base=None, by=0.25, **settings):
    """A small network over a base; no penalty, so that the gradient is that of the likelihood alone."""
    settings = {"hidden": (8, 8), "penalty": 0.0, "proposals": 40_000} | settings
    return moved(EnergyPrior(2, base=base or MixturePrior(2, 3), **settings), by)


def recovery(by=0.2, **settings):
    settings = {"hidden": (8, 8), "components": 3, "proposals": 40_000} | settings
    return moved(RecoveryPrior(2, **settings), by)


def persistent():
    chains = PersistentLangevin(2, buffer=2000, moved=1000, steps=20)
    return energy(negative=chains, sampler=MetropolisLangevin(50))


# Levels that are moved each by itself do not lead to the density: only a new ladder, or resampling, does.
ENERGIES = {
    "energy": energy,
    "energy of a normal base": lambda: energy(NormalPrior(2), negative=ShortRunChains(ShortRun())),
    "energy of a flow": lambda: energy(FlowPrior(2, transforms=1, hidden=(8,), bins=3), 0.1),
    "energy by persistent chains": persistent,
    "energy by a sampler network": lambda: energy(negative=LearnedSampler(2, hidden=(8,), bins=3)),
    "recovery by its ladder": lambda: recovery(0.0),
    "recovery by resampling": lambda: recovery(sampling="resampling"),
}
NEW_ENERGIES = {"energy": EnergyPrior, "recovery": RecoveryPrior}
