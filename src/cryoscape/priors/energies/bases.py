"""The base of an energy-based prior: fitted first, then left alone."""

from __future__ import annotations

import torch
from torch import Tensor

from cryoscape.priors.base import LatentPrior

STEPS = 400
"""Steps of Adam of a base that is not fitted by its warm start alone."""

_LR = 3e-3


def fit_base(base: LatentPrior, u: Tensor, generator: torch.Generator | None = None) -> None:
    """Fit a base to points, in whitened units.

    A mixture is fitted by expectation-maximisation; a flow, in units of its own, by a few hundred steps.

    Parameters
    ----------
    base : LatentPrior
    u : Tensor, shape (N, d)
    generator : torch.Generator, optional
    """
    from cryoscape.priors.mixture import MixturePrior

    u = u.detach().to(base.shift)
    base.warm_start(u, generator)
    parameters = list(base.parameters())
    if not parameters or isinstance(base, MixturePrior):
        return
    base.shift.copy_(u.mean(0))
    base.scale.copy_(u.var(0, correction=0).mean().sqrt().clamp_min(1e-6))
    base.requires_grad_(True)
    optimizer = torch.optim.Adam(parameters, lr=_LR)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    with torch.enable_grad():
        for _ in range(STEPS):
            rows = torch.randint(len(u), (min(base.schedule.batch, len(u)),), generator=generator)
            optimizer.zero_grad()
            base.loss(u[rows.to(u.device)], generator=generator).backward()
            torch.nn.utils.clip_grad_norm_(parameters, 10.0)
            optimizer.step()
            schedule.step()
    optimizer.zero_grad()
    base.requires_grad_(False)
