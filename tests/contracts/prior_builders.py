"""Small priors that are not what they start as, and new ones. A new family adds its lines here."""

import torch

from cryoscape.priors.boltzmann import BoltzmannPrior
from cryoscape.priors.diffusion.hierarchy import HierarchyPrior
from cryoscape.priors.diffusion.prior import DiffusionPrior
from cryoscape.priors.flow import FlowPrior
from cryoscape.priors.grbm import GaussianRbmPrior
from cryoscape.priors.mixture import MixturePrior
from cryoscape.priors.normal import NormalPrior
from cryoscape.priors.samplers.exact import ExactSampler
from cryoscape.priors.vamp import VampPrior
from tests.priors.energies.contract import ENERGIES, NEW_ENERGIES

Z = 2


def moved(prior, by=0.3):
    """A prior that is not what it starts as: all parameters moved at random."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter.add_(by * torch.randn(parameter.shape, generator=generator))
    return prior


def scaled(prior):
    """A prior in whitened units that are not those of z."""
    prior.shift.copy_(torch.tensor([0.4, -0.3]))
    prior.scale.fill_(1.2)
    return prior


def with_exemplars():
    generator = torch.Generator().manual_seed(6)
    prior = VampPrior(Z, 5)
    mean, log_var = torch.randn(2, 5, Z, generator=generator)
    prior.choose(torch.arange(5), mean, 0.3 * log_var - 1.0)
    return moved(prior)


def diffusion(**settings):
    """A small network that is not 0, judged by its own weights."""
    torch.manual_seed(8)
    settings = {"layers": 1, "width": 8, "tolerance": 1e-6} | settings
    prior = moved(DiffusionPrior(Z, **settings), 0.1)
    prior.averaged.copy(prior.network)
    return prior.eval()


def hierarchy():
    """Two clusters that differ, each a small network that is not 0."""
    torch.manual_seed(9)
    prior = moved(HierarchyPrior(Z, 2, components=1, layers=1, width=8), 0.1)
    for part in prior.parts:
        part.averaged.copy(part.network)
        part.tolerance = 1e-6
        part.shift.normal_(0.0, 0.5, generator=torch.Generator().manual_seed(len(prior.parts)))
    return prior.eval()


PRIORS = {
    "normal": lambda: NormalPrior(Z),
    "mixture": lambda: moved(MixturePrior(Z, 4)),
    "mixture of one": lambda: moved(MixturePrior(Z, 1)),
    "mixture in whitened units": lambda: scaled(moved(MixturePrior(Z, 3))),
    "vamp": with_exemplars,
    "flow": lambda: moved(FlowPrior(Z, transforms=2, hidden=(8, 8), bins=4), 0.1),
    "flow in whitened units": lambda: scaled(moved(FlowPrior(Z, transforms=1, hidden=(8,), bins=3), 0.1)),
    "diffusion": lambda: diffusion(base="mixture", components=2),
    "diffusion in whitened units": lambda: scaled(diffusion()),
    "hierarchy": hierarchy,
    **ENERGIES,
    "boltzmann table": lambda: moved(BoltzmannPrior(Z, 3)),
    "boltzmann additive": lambda: moved(BoltzmannPrior(Z, 3, emission="additive")),
    "boltzmann of one spin": lambda: moved(BoltzmannPrior(Z, 1)),
    "grbm": lambda: moved(GaussianRbmPrior(Z, 3)),
    "grbm in whitened units": lambda: scaled(moved(GaussianRbmPrior(Z, 2))),
    "grbm with log Z apart": lambda: moved(GaussianRbmPrior(Z, 17, sampler=ExactSampler()), 0.15),
}


NEW = {
    "mixture": lambda d: MixturePrior(d),
    "vamp": lambda d: VampPrior(d),
    "flow": lambda d: FlowPrior(d),
    "diffusion": lambda d: DiffusionPrior(d).eval(),
    "hierarchy": lambda d: HierarchyPrior(d).eval(),
    **NEW_ENERGIES,
    "boltzmann": lambda d: BoltzmannPrior(d),
    "boltzmann additive": lambda d: BoltzmannPrior(d, emission="additive"),
    "boltzmann of many spins": lambda d: BoltzmannPrior(d, 16),
    "grbm": lambda d: GaussianRbmPrior(d),
    "grbm of many units": lambda d: GaussianRbmPrior(d, 20),
}
