"""Ways to draw samples of a tilted law. A new one derives from `LawSampler`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import final

import torch
from torch import Tensor

from cryoscape.priors.energies.resampling import WeightedPoints, resampled, weighted
from cryoscape.priors.energies.tilt import TiltedLaw
from cryoscape.priors.langevin import langevin, metropolis_langevin, tuned_step

PROPOSALS = 200_000
"""Points of the base behind a sample, and behind log Z."""

_TRIED = 256
_PER_CHAIN = 10


class LawSampler(ABC):
    """Draws points of a tilted law."""

    @abstractmethod
    def draw(self, law: TiltedLaw, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw n points, shape (n, d)."""


def pool(law: TiltedLaw, proposals: int, generator: torch.Generator | None = None) -> WeightedPoints:
    """Points of the base with their weights exp(f)."""
    return weighted(lambda n, g: _proposed(law, n, g), proposals, generator)


def _proposed(law: TiltedLaw, n: int, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
    points = law.draw_base(n, generator)
    return points, law.tilts(points)


@final
class Resampling(LawSampler):
    """Points of the base, drawn again in proportion to exp(f).

    Parameters
    ----------
    proposals : int
        Points of the base in a pool, of which at most a tenth is drawn.
    """

    def __init__(self, proposals: int = PROPOSALS) -> None:
        self.proposals = proposals

    def draw(self, law: TiltedLaw, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw n points, shape (n, d)."""
        return resampled(lambda m, g: _proposed(law, m, g), self.proposals, n, generator)


@final
class MetropolisLangevin(LawSampler):
    """Chains of MALA from resampled points of the base: exact where they are long, whatever the base.

    Parameters
    ----------
    steps : int
        Of every chain, after the size of the steps has been found.
    """

    def __init__(self, steps: int = 100) -> None:
        self.steps = steps

    def draw(self, law: TiltedLaw, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw n points, shape (n, d), each the end of a chain of its own."""
        start = resampled(lambda m, g: _proposed(law, m, g), _PER_CHAIN * max(n, _TRIED), n, generator)
        step, _ = tuned_step(law.log_density, start[:_TRIED], generator=generator)
        chains = metropolis_langevin(law.log_density, start, step=step, steps=self.steps, generator=generator)
        return chains.points


@final
class ShortRun(LawSampler):
    """Short chains of large Langevin steps without correction, started from N(0, I) every time.

    They are a generator of their own, not a sampler of p (Nijkamp et al. 2019); the defaults are those of
    Pang et al. 2020.

    Parameters
    ----------
    steps : int
        K.
    step : float
        Standard deviation of the noise of a step, in whitened units.
    """

    def __init__(self, steps: int = 60, step: float = 0.4) -> None:
        self.steps, self.step = steps, step

    @torch.no_grad()
    def draw(self, law: TiltedLaw, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw n points, shape (n, d)."""
        like = law.base.shift
        start = torch.randn(n, law.z_dim, generator=generator, dtype=like.dtype).to(like.device)
        return langevin(law.log_density, start, step=self.step, steps=self.steps, generator=generator)
