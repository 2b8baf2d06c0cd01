"""A ladder of noise levels, from the data up to N(0, I), each of them one blur away from the next.

    u_(t+1) = sqrt(1 - s_(t+1)^2) u_t + s_(t+1) noise,        t = 0 ... T - 1

The variance of whitened data stays that of the data on the way (Gao et al. 2021, equation 1).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cryoscape.priors.gaussians import normal_noise

LOWEST, HIGHEST = 0.1, 10.0
"""Noise over signal at the lowest and the highest level, in whitened units."""


class NoiseLadder(nn.Module):
    """T levels, whose noise over signal grows by equal factors.

    Parameters
    ----------
    levels : int
        T, at least 2.
    lowest, highest : float
        Noise over signal of the first blur, and of all blurs together. The first should be about the size of
        the finest feature of the data; after the last, nothing of the data should be left.

    Attributes
    ----------
    sd : Tensor, shape (T,)
        s_1 ... s_T, the noise of every blur.
    shrink : Tensor, shape (T,)
        sqrt(1 - s^2) of every blur.
    signal : Tensor, shape (T,)
        What is left of the data at the foot of every blur, t = 0 ... T - 1: the product of all factors
        before; 1 at first.
    """

    sd: Tensor
    shrink: Tensor
    signal: Tensor

    def __init__(self, levels: int = 6, lowest: float = LOWEST, highest: float = HIGHEST) -> None:
        super().__init__()
        ratio = lowest * (highest / lowest) ** torch.linspace(0, 1, levels, dtype=torch.float64)
        signal = torch.cat([torch.ones(1, dtype=torch.float64), (1 + ratio.square()).rsqrt()])
        shrink = signal[1:] / signal[:-1]
        self.register_buffer("sd", (1 - shrink.square()).sqrt().float(), persistent=False)
        self.register_buffer("shrink", shrink.float(), persistent=False)
        self.register_buffer("signal", signal[:-1].float(), persistent=False)

    def __len__(self) -> int:
        return len(self.sd)

    def climb(
        self, u: Tensor, level: Tensor, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Pairs on the two sides of a blur, from data.

        Parameters
        ----------
        u : Tensor, shape (n, d)
            Data, whitened.
        level : Tensor, shape (n,), int64
            t of every point.
        generator : torch.Generator, optional

        Returns
        -------
        below : Tensor, shape (n, d)
            sqrt(1 - s_(t+1)^2) u_t, already shrunk.
        above : Tensor, shape (n, d)
            u_(t+1) = below + s_(t+1) noise.
        """
        signal = self.signal[level][:, None]
        at = signal * u + (1 - signal.square()).clamp_min(0).sqrt() * normal_noise(u, generator)
        below = self.shrink[level][:, None] * at
        return below, below + self.sd[level][:, None] * normal_noise(u, generator)
