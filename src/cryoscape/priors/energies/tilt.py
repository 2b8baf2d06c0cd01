"""The learned part of an energy-based prior, and the law that it makes of its base.

    p(u) = p_b(u) exp(f(u)) / Z,        Z = E_b[exp f]

A positive f makes a place likelier than the base says: f is minus an energy (Pang et al. 2020, equation 2).
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from cryoscape.priors.base import LatentPrior

PART = 20_000
"""Points that are worked on at once where no gradient is asked for."""


class Tilt(nn.Module):
    """f, a network with one output.

    Parameters
    ----------
    inputs : int
        Its inputs: the d numbers of a point, and others where there are any.
    hidden : tuple of int
        Widths of its layers.

    Attributes
    ----------
    layers : Sequential
        The last one is 0 at first, so that a new prior is its base.
    """

    def __init__(self, inputs: int, hidden: tuple[int, ...]) -> None:
        super().__init__()
        widths = [inputs, *hidden]
        inner = [part for n, m in pairwise(widths) for part in (nn.Linear(n, m), nn.SiLU())]
        last = nn.Linear(widths[-1], 1)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.layers = nn.Sequential(*inner, last)

    def forward(self, u: Tensor) -> Tensor:
        """Points (..., inputs) -> f (...), nats."""
        return self.layers(u)[..., 0]

    def restart(self) -> None:
        """Set f to 0 again."""
        last = self.layers[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)


class TiltedLaw(nn.Module):
    """A base and its tilt, in whitened units.

    Parameters
    ----------
    base : LatentPrior
        A normalised prior that can be sampled; it is not learned together with the tilt.
    tilt : Tilt

    Attributes
    ----------
    base : LatentPrior
    tilt : Tilt
    """

    def __init__(self, base: LatentPrior, tilt: Tilt) -> None:
        super().__init__()
        self.base, self.tilt = base, tilt
        base.requires_grad_(False)

    @property
    def z_dim(self) -> int:
        """Dimension d of a point."""
        return self.base.z_dim

    def log_density(self, u: Tensor) -> Tensor:
        """Log p_b + f up to a constant, (..., d) -> (...), nats."""
        return self.tilt(u) - self.base.energy(u)

    def annealed(self, u: Tensor, share: float) -> Tensor:
        """Log p_b + share * f up to a constant, (..., d) -> (...), nats."""
        return share * self.tilt(u) - self.base.energy(u)

    @torch.no_grad()
    def draw_base(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw n points of the base, shape (n, d)."""
        return drawn_in_parts(self.base, n, generator)

    @torch.no_grad()
    def tilts(self, u: Tensor) -> Tensor:
        """F of many points without gradient, (n, d) -> (n,), double."""
        return torch.cat([self.tilt(part).double() for part in u.split(PART)])


def drawn_in_parts(prior: LatentPrior, n: int, generator: torch.Generator | None = None) -> Tensor:
    """Draw n points of a prior, shape (n, d), not too many at once."""
    sizes = [PART] * (n // PART) + [n % PART] * (n % PART > 0)
    return torch.cat([prior.sample(size, generator) for size in sizes])
