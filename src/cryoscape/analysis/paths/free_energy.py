"""Free energy over structures: a density over z with the Jacobian of the decoder.

F = -ln p(z) + 1/2 ln det G(z): minus the log of the density over the surface of structures that z can make,
with G the decoder's metric. Unlike -ln p(z) it does not depend on how z is parametrised.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from cryoscape.analysis.paths.metric import DecoderMetric

_CHUNK = 64


class FreeEnergy:
    """F of whitened codes, kT up to a constant.

    Parameters
    ----------
    energy : callable
        Codes z (n, d) -> -ln p(z) up to a constant (n,); differentiable.
    score : callable
        Codes z (n, d) -> gradient of ln p(z) in z.
    metric : DecoderMetric
    """

    def __init__(
        self, energy: Callable[[Tensor], Tensor], score: Callable[[Tensor], Tensor], metric: DecoderMetric
    ) -> None:
        self._energy, self._score, self.metric = energy, score, metric

    @torch.no_grad()
    def __call__(self, u: Tensor) -> Tensor:
        """F at u (n, d), shape (n,), float64."""
        found = [
            self._energy(self.metric.codes(part)).double() + _log_volume(self.metric(part))
            for part in u.split(_CHUNK)
        ]
        return torch.cat(found)

    def slope(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Gradient in u (n, d), and the metric there (n, d, d); float64."""
        own = -self.metric.slope_in_u(self._score(self.metric.codes(u)).detach())
        slopes, metrics = [], []
        for part in u.split(_CHUNK):
            leaf = part.detach().requires_grad_()
            metric = self.metric(leaf)
            slopes.append(torch.autograd.grad(_log_volume(metric).sum(), leaf)[0])
            metrics.append(metric.detach())
        return own.double() + torch.cat(slopes).double(), torch.cat(metrics).double()


def _log_volume(metric: Tensor) -> Tensor:
    return 0.5 * torch.linalg.slogdet(metric.double())[1]
