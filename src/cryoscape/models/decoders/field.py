"""The field decoder: a neural field in Fourier space, as in cryoDRGN (Zhong et al. 2021).

Generative process: z ~ p(z); V(k; z) = V_0(k) + tau(|k|) f(k, z), with V_0 the consensus map (or zero), tau
its amplitude in each shell (or one) and f a residual perceptron on plane waves of k.

A density is real, so V(-k) = V(k)*: of each conjugate pair f is only asked for the member with kx >= 0,
and a slice only for half of its points, inside the band.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from cryoscape.models.decoders.base import VolumeDecoder
from cryoscape.models.decoders.voxels import radial
from cryoscape.models.frequency_network import FrequencyActivation, FrequencyNetwork
from cryoscape.models.positional import Encoding, gaussian_positions, geometric_positions
from cryoscape.physics.fourier_voxels import SliceSampler, from_rows
from cryoscape.physics.resolution import soft_sphere
from cryoscape.physics.slices import interpolation_envelope, invert_volume

Domain = Literal["fourier", "hartley"]
CHUNK = 16384
"""Points of a volume that are evaluated at once."""


@dataclass(frozen=True)
class FieldScene:
    """Fields of a batch of latents.

    Parameters
    ----------
    decoder : FieldDecoder
    conditions : Tensor, shape (B, C) or (1, C)
        The latents as biases of the network.
    sampler : SliceSampler
        The coefficients that are evaluated; others stay zero.
    """

    decoder: FieldDecoder
    conditions: Tensor
    sampler: SliceSampler

    def project(self, rotations: Tensor, box: int, pixel_size: float) -> Tensor:
        """Central slices (B, box, box // 2 + 1)."""
        decoder, device = self.decoder, rotations.device.type
        with torch.autocast(device, enabled=False):
            frequencies = self.sampler.frequencies(rotations).permute(1, 2, 0)
        raw = decoder.field(frequencies, self.conditions.expand(len(rotations), -1))
        with torch.autocast(device, enabled=False):
            values = raw * radial(decoder.tau, self.sampler.radius)[:, None]
            if decoder.consensus:
                values = values + self.sampler.sample(decoder.reference.unsqueeze(-1), rotations)[..., 0]
            image = self.sampler.image(values)
            # Column kx = 0 holds both members of its pairs.
            half = box // 2
            image[:, half + 1 :, 0] = image[:, 1:half, 0].flip(1).conj()
        return image


class FieldDecoder(VolumeDecoder):
    """z and k -> Fourier coefficient, by a perceptron.

    Parameters
    ----------
    z_dim, sampler, pixel_size, scale, reference
        As in `VolumeDecoder`.
    amplitude : Tensor, shape (box // 2 + 1,)
        Signal amplitude tau of each shell, unitary image units, positive.
    consensus : bool
        Learn the difference from the reference in units of tau; otherwise the whole map in those of an image.
    hidden, activation
        As in `FrequencyNetwork`.
    encoding : "gaussian" or "geometric"
        Positions of the plane waves: random, or on the axes in geometric progression.
    n_frequencies : int, optional
        Number of plane waves; default 3 box / 2.
    sigma : float
        Gaussian: standard deviation of the positions, in sides of the box. Geometric: the largest distance.
    domain : "fourier" or "hartley"
        Whether the network gives real and imaginary part, or the Hartley coefficient, at both members of a
        pair and twice the cost.
    subset : float
        Share of the coefficients that are evaluated in training, a new random one for each batch. The rest is
        zero: see `coverage`.
    window : float
        Radius beyond which decoded maps are zero, in half sides of the box; the soft edge is the last tenth.
    """

    tau: Tensor

    def __init__(
        self,
        z_dim: int,
        sampler: SliceSampler,
        pixel_size: float,
        scale: float,
        reference: Tensor,
        amplitude: Tensor,
        *,
        consensus: bool = True,
        hidden: Sequence[int] = (256, 256, 256),
        activation: FrequencyActivation = "relu",
        encoding: Encoding = "gaussian",
        n_frequencies: int | None = None,
        sigma: float = 0.05,
        domain: Domain = "fourier",
        subset: float = 1.0,
        window: float = 0.85,
    ) -> None:
        super().__init__(z_dim, sampler, pixel_size, scale, reference)
        n = n_frequencies or 3 * self.box // 2
        positions = (
            gaussian_positions(n, sigma)
            if encoding == "gaussian"
            else geometric_positions(n, 1 / self.box, sigma)
        )
        self.consensus, self.domain, self.subset, self.window = consensus, domain, subset, window
        n_out = 2 if domain == "fourier" else 1
        self.network = FrequencyNetwork(z_dim, positions, hidden, n_out, activation)
        self.register_buffer("tau", amplitude.float() if consensus else torch.ones(self.box // 2 + 1))
        if consensus:
            with torch.no_grad():
                self.network.last.mul_(0.1)
        self._half = sampler.restricted(sampler.independent())

    def forward(self, z: Tensor) -> FieldScene:
        """Decode a batch of latents."""
        sampler = self._half
        if self.training and self.subset < 1:
            # On the CPU, so that runs on all devices draw the same.
            chosen = torch.randperm(len(sampler.index))[: self._n_chosen()]
            sampler = sampler.restricted(chosen.to(z.device))
        return FieldScene(self, self.network.conditions(z), sampler)

    def fast_parameters(self) -> list[nn.Parameter]:
        """All of the field."""
        return list(self.network.parameters())

    @property
    def coverage(self) -> float:
        """Share of the coefficients that projections hold now: `subset` in training, else 1."""
        return self._n_chosen() / len(self._half.index) if self.training else 1.0

    def _n_chosen(self) -> int:
        return max(1, round(self.subset * len(self._half.index)))

    def field(self, frequencies: Tensor, conditions: Tensor) -> Tensor:
        """Values of f, (B, P, 3) -> (B, P, 2): real and imaginary part, at frequencies in 1 / box side."""
        x, y, z = (v.detach() for v in frequencies.unbind(-1))
        behind = (x < 0) | ((x == 0) & ((y < 0) | ((y == 0) & (z < 0))))
        sign = 1.0 - 2.0 * behind.to(frequencies.dtype).unsqueeze(-1)
        k = frequencies * sign
        if self.domain == "fourier":
            out = self.network(k, conditions)
            return torch.cat([out[..., :1], out[..., 1:] * sign], dim=-1)
        # H(k) = Re - Im, H(-k) = Re + Im.
        here, there = self.network(torch.cat([k, -k], dim=1), conditions).chunk(2, dim=1)
        return torch.cat([here + there, (there - here) * sign], dim=-1) / 2

    def volumes(self, z: Tensor) -> Tensor:
        """Density maps (n, box, box, box) of latents."""
        device, box = z.device, self.box
        axis = torch.fft.fftfreq(box, 1 / box, device=device)
        half = torch.arange(box // 2 + 1, dtype=torch.float32, device=device)
        kz, ky, kx = torch.meshgrid(axis, axis, half, indexing="ij")
        grid = torch.stack([kx, ky, kz], dim=-1).view(-1, 3)
        radius = grid.norm(dim=1)
        index = (radius <= float(self.sampler.radius.max())).nonzero()[:, 0]
        tau = radial(self.tau, radius[index])[:, None] * self.scale
        window = soft_sphere(box, (self.window - 0.1) * box / 2, 0.1 * box / 2, device=device)
        start = self._start_map() if self.consensus else torch.zeros_like(window)
        out = []
        for conditions in self.network.conditions(z):
            parts = [self.field(grid[i][None], conditions[None])[0] for i in index.split(CHUNK)]
            flat = grid.new_zeros(len(grid), 2).index_copy(0, index, torch.cat(parts) * tau)
            transform = torch.view_as_complex(flat).view(box, box, box // 2 + 1)
            out.append((invert_volume(transform, self.pixel_size) + start) * window)
        return torch.stack(out) if out else window.new_zeros(0, box, box, box)

    def _start_map(self) -> Tensor:
        """The consensus as its slices see it."""
        whole = invert_volume(from_rows(self.reference * self.scale, self.box), self.pixel_size)
        return whole * interpolation_envelope(self.box, device=whole.device)

    def mean_object(self, z: Tensor) -> Tensor:
        """Voxels of the mean map of eight of the latents: decoding a map takes a part of a second."""
        return super().mean_object(z[:: max(1, len(z) // 8)][:8])

    def _apply(self, fn: Any, recurse: bool = True) -> FieldDecoder:
        super()._apply(fn, recurse)
        self._half.to(self.reference.device)
        return self
