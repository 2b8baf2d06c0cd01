"""A diffusion prior and posteriors that learn together, each with its own optimiser."""

import pytest
import torch

from cryoscape.models.posteriors import DiagonalGaussian
from cryoscape.priors.diffusion.prior import DiffusionPrior


@pytest.mark.parametrize("seed", range(20))
def test_nothing_stops_being_finite(seed):
    """Wide and narrow posteriors far from where the prior begins; short runs of many seeds."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    prior = DiffusionPrior(4, layers=2, width=32).train()
    mean = torch.nn.Parameter(3 * torch.randn(64, 4, generator=generator))
    log_var = torch.nn.Parameter(2 * torch.randn(64, 4, generator=generator) - 3)
    prior.warm_start(mean.detach())
    of_prior = torch.optim.Adam(prior.parameters(), lr=3e-3)
    of_posteriors = torch.optim.Adam([mean, log_var], lr=1e-2)
    for _ in range(25):
        q = DiagonalGaussian(mean, log_var)
        kl = prior.kl_divergence(q, q.rsample(1, generator)).mean()
        of_posteriors.zero_grad()
        kl.backward()
        of_posteriors.step()
        loss = prior.loss(q.rsample(1, generator)[0].detach(), None, generator)
        of_prior.zero_grad()
        loss.backward()
        of_prior.step()
        assert torch.isfinite(kl)
        assert torch.isfinite(loss)
    assert all(bool(torch.isfinite(p).all()) for p in (mean, log_var, *prior.parameters()))
