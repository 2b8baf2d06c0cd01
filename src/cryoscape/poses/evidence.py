"""The likelihood of poses, in nats, from sums over the coefficients of an image.

With X the recentred image, T its transfer function (CTF times gain), s2 the noise and w the weights of the
half-plane, a particle in rotation R, moved by t from where its table puts it, has over pure noise

    log p(x | R, t) = Re sum_k conj(L_k) exp(-2 pi i k.t) P_k(R) - 1/2 sum_k Q_k |P_k(R)|^2,
    L = w T X / s2,    Q = w T^2 / s2,

P(R) the projection of its map. The second term does not depend on t, so many shifts of many rotations are one
matrix product.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from cryoscape.data.images import ImageBatch
from cryoscape.models.likelihoods import Likelihood
from cryoscape.poses.templates import Band


@dataclass(frozen=True)
class Evidence:
    """What some images say about their projections.

    Attributes
    ----------
    linear : Tensor, shape (B, 2, K)
        Real and imaginary parts of L.
    quadratic : Tensor, shape (B, K)
        Q.
    frequency : Tensor, shape (K, 2)
        (kx, ky), 1/Angstrom.
    """

    linear: Tensor
    quadratic: Tensor
    frequency: Tensor

    @classmethod
    def of(cls, batch: ImageBatch, likelihood: Likelihood, band: Band, *, gain: bool = True) -> Evidence:
        """Evidence of a batch under a gaussian likelihood.

        Parameters
        ----------
        batch : ImageBatch
        likelihood : Likelihood
            Its noise, and its gain.
        band : Band
        gain : bool
            False where the projections hold the gain already.
        """
        transfer = likelihood.transfer(batch.ctf, batch.group) if gain else batch.ctf
        weighted = transfer * (likelihood.weights / likelihood.noise[:, likelihood.shells])[batch.group]
        linear = (batch.images * weighted).flatten(1)[:, band.index]
        quadratic = (transfer * weighted).flatten(1)[:, band.index]
        return cls(torch.stack([linear.real, linear.imag], dim=1), quadratic, band.frequency)

    def __len__(self) -> int:
        return len(self.linear)

    def select(self, rows: Tensor) -> Evidence:
        """Evidence of some of the images, repeats allowed."""
        return Evidence(self.linear[rows], self.quadratic[rows], self.frequency)

    def below(self, n: int) -> Evidence:
        """Only the first n coefficients: a lower resolution."""
        return Evidence(self.linear[..., :n], self.quadratic[:, :n], self.frequency[:n])

    def moved(self, shifts: Tensor) -> Tensor:
        """conj(L) exp(-2 pi i k.t) for shifts.

        Parameters
        ----------
        shifts : Tensor, shape (B, S, 2)
            Angstrom, of every image; or (1, S, 2), the same for all.

        Returns
        -------
        Tensor, shape (B, S, 2, K)
            (a, -b) of a + i b, so that the sum over the last two axes with a projection's parts is the real
            part of the product.
        """
        angle = (2 * math.pi) * (shifts.to(self.frequency.dtype) @ self.frequency.T)
        cos, sin = angle.cos(), angle.sin()
        x, y = self.linear[:, None, 0], self.linear[:, None, 1]
        return torch.stack([x * cos - y * sin, x * sin + y * cos], dim=2)

    def norms(self, projections: Tensor) -> Tensor:
        """1/2 sum Q |P|^2 of projections (B, C, 2, K) of every image, or (C, 2, K) shared; shape (B, C)."""
        power = projections.square().sum(-2)
        if power.ndim == 2:
            return 0.5 * (self.quadratic @ power.T)
        return 0.5 * torch.einsum("bk,bck->bc", self.quadratic, power)

    def log_prob(self, projections: Tensor, shifts: Tensor) -> Tensor:
        """Nats over pure noise of one pose of every image.

        Parameters
        ----------
        projections : Tensor, shape (B, 2, K)
        shifts : Tensor, shape (B, 2)
            Angstrom, beyond those taken out of the images.

        Returns
        -------
        Tensor, shape (B,)
        """
        moved = self.moved(shifts[:, None])[:, 0]
        return (moved * projections).sum((1, 2)) - self.norms(projections[:, None])[:, 0]
