"""The prior of a decoder's Fourier voxels: normal, with a power spectrum that is learned from the data.

Each voxel theta of difference j in shell s has the prior N(0, power[s, j]). Its gradient is added to that of
the likelihood, and the power is re-estimated as automatic relevance determination does it (MacKay 1992): the
sum of theta^2 over the number of voxels that the images determine, sum of 1 - (variance left / power). That
variance comes for nothing: Adam's second moment of a gradient that is dominated by noise is the Fisher
information of a batch.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.optim import Optimizer

from cryoscape.models.decoders.voxels import VoxelDecoder

EVERY = 20
"""Steps between two estimates of the power."""

ROWS = 2**18
"""Rows that the spectrum is summed over at a time, so that it needs no second table."""

SHARE = 4
"""The gradient is added in one step of so many, so many times as strong: it is a pass over all voxels."""


class SpectralPrior:
    """Adds the prior's gradient in every step and keeps its power up to date.

    Parameters
    ----------
    decoder : VoxelDecoder
        Its buffer `power` is changed, and is saved with it.
    n_particles, batch : int
        Images of the training, and of a step.
    strength : float
        Factor of the prior's gradient; 1 is Bayes' rule.
    """

    def __init__(self, decoder: VoxelDecoder, n_particles: int, batch: int, strength: float = 1.0) -> None:
        self.decoder, self.n, self.batch, self.strength = decoder, n_particles, batch, strength
        self._shells = decoder.row_shells()
        self._count = torch.bincount(self._shells, minlength=len(decoder.power)).clamp_min(1)
        self._stiffness = self._spread()

    def _spread(self) -> Tensor:
        """Prior precision of every row, per image, shape (R, 1, 1 + J)."""
        return (self.strength / (self.n * self.decoder.power))[self._shells][:, None]

    def add_gradient(self, step: int) -> None:
        """Add the gradient of minus the log prior, per image, to that of the voxels."""
        table = self.decoder.table
        if table.grad is not None and step % SHARE == 0:
            table.grad.addcmul_(table.detach(), self._stiffness, value=SHARE)

    @torch.no_grad()
    def update(self, optimizer: Optimizer, rate: float = 0.5) -> None:
        """Move the power towards what the voxels and their uncertainty say.

        Parameters
        ----------
        optimizer : Optimizer
            Adam, after a step.
        rate : float
            How far to move.
        """
        table, power = self.decoder.table, self.decoder.power
        second = optimizer.state[table]["exp_avg_sq"]
        found, determined = torch.zeros_like(power), torch.zeros_like(power)
        for rows in torch.arange(len(table), device=table.device).split(ROWS):
            part = slice(int(rows[0]), int(rows[-1]) + 1)
            shells = self._shells[part]
            # A batch of B images has B times one image's information, a mean over it 1 / B of the variance.
            information = second[part].mul(self.n * self.batch * power[shells][:, None])
            found.index_add_(0, shells, table[part].square().mean(1))
            determined.index_add_(0, shells, information.div_(information + 1.0).mean(1))
        power.lerp_((found / determined.clamp_min(1e-6 * self._count[:, None])).clamp_min(1e-8), rate)
        self._stiffness = self._spread()
