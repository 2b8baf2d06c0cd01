"""Priors that are a bijection to a standard normal base."""

from __future__ import annotations

from abc import abstractmethod
from typing import Literal

import torch
from torch import Tensor

from cryoscape.priors.base import LatentPrior


class TransportPrior(LatentPrior):
    """A prior that is a bijection to a standard normal base."""

    @abstractmethod
    def unit_encode(self, u: Tensor) -> Tensor:
        """Whitened points (..., d) to the base."""

    @abstractmethod
    def unit_decode(self, base: Tensor) -> Tensor:
        """Base (..., d) to whitened points."""

    def encode(self, z: Tensor) -> Tensor:
        """Points (..., d) to the standard normal base."""
        return self.unit_encode(self.whitened(z))

    def decode(self, base: Tensor) -> Tensor:
        """Base (..., d) to points, in the units of z."""
        return self.shift + self.scale * self.unit_decode(base)

    def interpolate(
        self, start: Tensor, end: Tensor, n: int, kind: Literal["linear", "slerp"] = "slerp"
    ) -> Tensor:
        """N points from one z to another, along a line or a great circle of the base.

        Parameters
        ----------
        start, end : Tensor, shape (d,)
        n : int
            Points, the two ends among them.
        kind : {"linear", "slerp"}
            A straight line passes nearer to the origin than samples of the base ever are; a great circle,
            with the norm interpolated, does not.

        Returns
        -------
        Tensor, shape (n, d)
        """
        a, b = self.encode(torch.stack([start, end]))
        t = torch.linspace(0, 1, n, dtype=a.dtype, device=a.device)[:, None]
        if kind == "linear":
            return self.decode(a + t * (b - a))
        angle = torch.arccos((a @ b / (a.norm() * b.norm())).clamp(-1, 1))
        if float(angle) < 1e-4:
            return self.decode(a + t * (b - a))
        norm = a.norm() + t * (b.norm() - a.norm())
        arc = (torch.sin((1 - t) * angle) * a / a.norm() + torch.sin(t * angle) * b / b.norm()) / angle.sin()
        return self.decode(norm * arc)
