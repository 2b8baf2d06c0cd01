"""The voxels decoder: a consensus map and a learned basis of differences, mixed by a network of z.

Generative process: z ~ p(z); V(k; z) = tau(|k|) [ theta_0(k) + sum_j a_j(z) theta_j(k) ], with theta learned
Fourier voxels and a(z) a small perceptron: non-linear in z, of rank J in the volume. A slice is a trilinear
gather, which makes an image some hundred times cheaper than a neural field does.

tau is the amplitude of the signal in each shell, found from the half maps of the consensus. In units of tau
the spectrum of the map is flat, so one learning rate serves all resolutions. The voxels have a prior,
theta_j(k) ~ N(0, power_j(|k|)), whose power is learned with them (`training.spectral_prior`): it is what
keeps thousands of voxels that few images have seen from describing noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from cryoscape.models.decoders.base import VolumeDecoder
from cryoscape.models.networks import Activation, mlp
from cryoscape.physics.fourier_voxels import SliceSampler, from_rows, rows_shape, to_rows
from cryoscape.physics.slices import interpolation_envelope, invert_volume, transform_volume

DIFFERENCE_POWER = 0.02
"""Prior variance of the real part of a difference's voxel at the start; that of the signal is 0.5."""


class _Mix(torch.autograd.Function):
    """sum_j a_bj S_bmj, as products whose long axis is the last: the others take ten times as long."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, mixing: Tensor) -> Tensor:
        ctx.save_for_backward(values, mixing)
        return torch.bmm(mixing[:, None], values.transpose(1, 2))[:, 0]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        values, mixing = ctx.saved_tensors
        return grad[:, :, None] * mixing[:, None], torch.bmm(grad[:, None], values)[:, 0]


@dataclass(frozen=True)
class VoxelScene:
    """Maps that are mixtures of one basis.

    Parameters
    ----------
    sampler : SliceSampler
    table : Tensor, shape (R, 2, 1 + J)
        Rows of the basis, in units of the amplitude.
    mixing : Tensor, shape (B, 1 + J) or (1, 1 + J)
    amplitude : Tensor, shape (P,)
        tau at the coefficients of an image.
    """

    sampler: SliceSampler
    table: Tensor
    mixing: Tensor
    amplitude: Tensor

    def project(self, rotations: Tensor, box: int, pixel_size: float) -> Tensor:
        """Central slices (B, box, box // 2 + 1)."""
        # The sums of a mixture are short, and the map itself is at stake: no rounding to 16 bits.
        with torch.autocast(rotations.device.type, enabled=False):
            values, sign = self.sampler.gather(self.table, rotations)
            mixing = self.mixing.expand(len(rotations), -1)
            mixed = _Mix.apply(values.flatten(1, 2), mixing).view(values.shape[:3])
            amplitude = self.amplitude.expand_as(sign)
            return self.sampler.image(mixed * torch.stack([amplitude, amplitude * sign], dim=-1))


class VoxelDecoder(VolumeDecoder):
    """z -> mixing coefficients -> a sum of learned Fourier-voxel volumes.

    Parameters
    ----------
    z_dim, sampler, pixel_size, scale, reference
        As in `VolumeDecoder`.
    amplitude : Tensor, shape (box // 2 + 1,)
        Signal amplitude tau of each shell, unitary image units, positive.
    mask : Tensor, optional, shape (box, box, box)
        Where there may be density, 0 to 1, soft.
    n_volumes : int
        Rank J of the differences.
    hidden : sequence of int
        Widths of the network that mixes them.
    activation : str
        Of its hidden layers.
    """

    tau: Tensor
    tau_image: Tensor
    power: Tensor
    mask: Tensor

    def __init__(
        self,
        z_dim: int,
        sampler: SliceSampler,
        pixel_size: float,
        scale: float,
        reference: Tensor,
        amplitude: Tensor,
        *,
        mask: Tensor | None = None,
        n_volumes: int = 16,
        hidden: Sequence[int] = (64, 64),
        activation: Activation = "relu",
    ) -> None:
        super().__init__(z_dim, sampler, pixel_size, scale, reference)
        self.n_volumes = n_volumes
        self.network = mlp(z_dim, hidden, n_volumes, activation)
        self.register_buffer("tau", amplitude.float())
        self.register_buffer("tau_image", radial(amplitude.float(), sampler.radius))
        table = torch.zeros(sampler.n_rows, 2, 1 + n_volumes)
        tau_rows, inside = self._row_amplitude()
        table[..., 0] = self.reference * (inside / tau_rows)[:, None]
        self.table = nn.Parameter(table)
        start = torch.full((sampler.box // 2 + 1, 1 + n_volumes), DIFFERENCE_POWER)
        start[:, 0] = 0.5
        self.register_buffer("power", start)
        mask = torch.ones(0) if mask is None else mask.float()
        self.register_buffer("mask", mask, persistent=False)

    def _row_radius(self) -> Tensor:
        axes = [torch.arange(n, dtype=torch.float32, device=self.tau.device) for n in rows_shape(self.box)]
        axes[0], axes[1] = axes[0] - self.box // 2, axes[1] - self.box // 2
        squares = [axis.square() for axis in axes]
        return (squares[0][:, None, None] + squares[1][:, None] + squares[2]).sqrt().flatten()

    def _row_amplitude(self) -> tuple[Tensor, Tensor]:
        """Tau at every row, and 1 where the row is inside the band."""
        radius = self._row_radius()
        # One shell beyond the band is interpolated from.
        return radial(self.tau, radius), (radius <= float(self.sampler.radius.max()) + 1.75).float()

    def mixing(self, z: Tensor) -> Tensor:
        """Coefficients of consensus and differences, (B, z_dim) -> (B, 1 + J)."""
        a = self.network(z)
        # The first differences follow z itself, so that a latent that means something shows at once.
        along = min(self.z_dim, self.n_volumes)
        a = torch.cat([a[:, :along] + z[:, :along], a[:, along:]], dim=1)
        return torch.cat([torch.ones_like(a[:, :1]), a], dim=1)

    def forward(self, z: Tensor) -> VoxelScene:
        """Decode a batch of latents."""
        return VoxelScene(self.sampler, self.table, self.mixing(z), self.tau_image)

    def volumes(self, z: Tensor) -> Tensor:
        """Density maps (n, box, box, box) of latents."""
        return self._maps(self.mixing(z))

    def mean_object(self, z: Tensor) -> Tensor:
        """Voxels of the mean map: the mean of the mixtures is the mixture of the mean."""
        return self.rows_of(self._maps(self.mixing(z).mean(0, keepdim=True)))[0]

    def _maps(self, mixing: Tensor) -> Tensor:
        tau, inside = self._row_amplitude()
        envelope = interpolation_envelope(self.box, device=mixing.device)
        band = from_rows(torch.stack([tau * inside * self.scale, torch.zeros_like(tau)], -1), self.box)
        out = []
        for weights in mixing:
            rows = torch.matmul(self.table, weights)
            whitened = invert_volume(from_rows(rows, self.box), self.pixel_size) * envelope
            transform = torch.fft.rfftn(torch.fft.ifftshift(whitened)) * band.real
            out.append(torch.fft.fftshift(torch.fft.irfftn(transform, s=whitened.shape)))
        return torch.stack(out)

    def fast_parameters(self) -> list[nn.Parameter]:
        """The table of Fourier voxels."""
        return [cast(nn.Parameter, self.table)]

    @torch.no_grad()
    def constrain(self) -> None:
        """Take out of the volumes what lies outside the mask: solvent that only noise can have put there."""
        if not len(self.mask):
            return
        for j in range(self.table.shape[-1]):
            volume = invert_volume(from_rows(self.table[..., j], self.box), self.pixel_size)
            self.table[..., j] = to_rows(transform_volume(volume * self.mask, self.pixel_size))

    def row_shells(self) -> Tensor:
        """Shell of every row, those in the corners in the last one; shape (R,)."""
        return self._row_radius().round().long().clamp(max=self.box // 2)


def radial(values: Tensor, radius: Tensor) -> Tensor:
    """A radial function, given at whole shells, at any radii; constant beyond its last shell."""
    low = radius.floor().long().clamp(max=len(values) - 1)
    high = (low + 1).clamp(max=len(values) - 1)
    part = radius - radius.floor()
    return values[low] * (1 - part) + values[high] * part
