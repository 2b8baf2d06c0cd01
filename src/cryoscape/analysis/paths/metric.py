"""Lengths and volumes in the space of what is decoded: the pull-back metric of the decoder.

A step dz moves the decoded structure by |J dz| A rms, J = d coords / dz / sqrt(N), so lengths are measured
with G = J^T J (Arvanitidis et al. 2018). A direction in which nothing moves has no length and a density over
structures no finite value; with the covariance S of the population of z,

    G' = G + floor^2 S^-1,

so that a standard deviation of the population along such a direction counts as a step of `floor`. S changes
with z as G does, so G' is the same metric however z is parametrised (exactly for linear changes of z).

J is a central difference over a tenth of a standard deviation to either side: what networks of rectifiers
decode is piecewise linear, and its derivative says nothing of how it changes.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

FLOOR = 0.05
"""A step that is nothing, A rms over all residues."""

MAP_FLOOR = 0.005
"""The same for maps: the norm of the difference, as a share of that of the mean map."""

_STEP = 0.1
_CHUNK = 512

Places = Callable[[Tensor], Tensor]
"""Codes z (n, d) -> points (n, P) whose Euclidean distances are those of what is decoded; differentiable."""


class DecoderMetric:
    """The metric in whitened codes u, z = centre + u root^T, where the population has the covariance I.

    Parameters
    ----------
    places : callable
        Codes to points whose distances count.
    codes : Tensor, shape (n, d)
        Draws of the population.
    floor : float
        What a standard deviation of the population counts where nothing moves, in the unit of the places.
    """

    def __init__(self, places: Places, codes: Tensor, floor: float = FLOOR) -> None:
        self.places, self.floor = places, floor
        self._centre = codes.mean(0)
        spread = torch.cov(codes.T.double()).reshape(codes.shape[1], codes.shape[1])
        tiny = 1e-9 * spread.diagonal().mean().clamp_min(1e-30)
        self._root = torch.linalg.cholesky(spread + tiny * torch.eye(len(spread))).to(codes)

    def whitened(self, z: Tensor) -> Tensor:
        """Codes z (n, d) to u."""
        return torch.linalg.solve_triangular(self._root, (z - self._centre).T, upper=False).T

    def codes(self, u: Tensor) -> Tensor:
        """Whitened codes u (n, d) to z."""
        return self._centre + u @ self._root.T

    def slope_in_u(self, slope: Tensor) -> Tensor:
        """Gradients in z (n, d) as gradients in u."""
        return slope @ self._root

    def __call__(self, u: Tensor) -> Tensor:
        """G' at whitened codes (n, d), shape (n, d, d); differentiable."""
        d = u.shape[1]
        steps = _STEP * torch.eye(d, dtype=u.dtype)
        around = torch.cat([u[:, None] + steps, u[:, None] - steps], dim=1)
        # All of it is on the graph of the gradient: few at a time.
        parts = max(1, _CHUNK // (2 * d))
        found = []
        for part in around.split(parts):
            places = self.places(self.codes(part.reshape(-1, d))).view(len(part), 2, d, -1)
            slopes = (places[:, 0] - places[:, 1]) / (2 * _STEP)
            found.append(slopes @ slopes.mT)
        return torch.cat(found) + self.floor**2 * torch.eye(d, dtype=u.dtype)

    @torch.no_grad()
    def travelled(self, u: Tensor) -> Tensor:
        """Length of the polyline through u (n, d) up to each point, shape (n,), float64.

        Chords of what is decoded, with the floor where it does not move.
        """
        places = torch.cat([self.places(self.codes(part)) for part in u.split(_CHUNK)])
        squared = (places[1:] - places[:-1]).double().square().sum(1)
        squared = squared + self.floor**2 * (u[1:] - u[:-1]).double().square().sum(1)
        return torch.cat([squared.new_zeros(1), squared.sqrt().cumsum(0)])
