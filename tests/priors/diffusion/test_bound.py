"""The bound of LSGM against densities that are known."""

import numpy as np
import pytest
import torch

from cryoscape.models.posteriors import DiagonalGaussian
from cryoscape.priors.diffusion.analytic import MixtureDenoiser
from cryoscape.priors.diffusion.bound import excess_over_base
from cryoscape.priors.diffusion.prior import DiffusionPrior
from cryoscape.priors.normal import NormalPrior
from tests.priors.diffusion.mixtures import draw, log_density, mixture_prior


def estimates(predict, base, u, times, seed=0):
    """Means and standard errors of the bound at points (n, d), over `times` noises each."""
    many = u.repeat_interleave(times, 0)
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        found = excess_over_base(predict, base, many, g).view(len(u), times).double()
        value = found.mean(1) - base.log_prob(u, 0.002)
    return value.numpy(), (found.std(1, correction=0) / np.sqrt(times)).numpy()


@pytest.mark.parametrize("where", ["everywhere", "at a point"])
def test_of_the_true_denoiser_it_is_the_density(where):
    """Constants and all: over N(0, I), the denoiser of a mixture gives -log p of the mixture."""
    prior, normal = mixture_prior(torch.float64), MixtureDenoiser(1, 2).double()
    if where == "everywhere":
        u = draw(200_000, 3)
        value, _ = estimates(prior.base, normal, torch.as_tensor(u), 1)
        gap = value + log_density(u, 0.002)
        assert abs(gap.mean()) < 4 * gap.std() / np.sqrt(len(gap))
        assert gap.std() / np.sqrt(len(gap)) < 0.01
        return
    u = np.array([[-1.0, 0.3], [0.0, 0.0], [2.0, 1.5]])
    value, error = estimates(prior.base, normal, torch.as_tensor(u), 100_000)
    assert (np.abs(value + log_density(u, 0.002)) < 4.5 * error).all()
    assert error.max() < 0.05


def test_of_a_wrong_denoiser_it_lies_above_the_density():
    """A network at random: no particle's mean bound may lie below -log p by the flow."""
    prior = mixture_prior()
    with torch.no_grad():
        torch.nn.init.normal_(prior.network.exit.weight, std=0.4)
    prior.averaged.copy(prior.network)
    u = torch.as_tensor(draw(60, 3), dtype=torch.float32)
    value, error = estimates(prior.predict, prior.base, u, 4000)
    gap = value + prior.log_prob(u).double().numpy()
    assert gap.mean() > 3 * np.sqrt((error**2).sum()) / len(u)
    assert gap.mean() < 20


def test_before_it_has_learned_the_kl_in_training_is_that_of_the_base():
    q = DiagonalGaussian(
        torch.randn(6, 3, generator=torch.Generator().manual_seed(0)), torch.full((6, 3), -1.0)
    )
    z = q.rsample(5, torch.Generator().manual_seed(1))
    found = DiffusionPrior(3, layers=1, width=8).train().kl_divergence(q, z)
    want = (q.log_prob(z) - NormalPrior(3).log_prob(z)).mean(0)
    torch.testing.assert_close(found, want, rtol=0, atol=1e-4)


def test_the_kl_in_training_is_unbiased_in_units_of_z():
    """Against the exact one, of a prior over a wide base whose denoiser is the true one."""
    prior = mixture_prior()
    prior.shift.copy_(torch.tensor([0.5, 0.2]))
    prior.scale.fill_(1.7)
    q = DiagonalGaussian(torch.tensor([[0.2, 0.1], [1.0, -1.0]]), torch.full((2, 2), -2.0))
    z = q.rsample(300, torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(
            prior.train().kl_divergence(q, z), prior.eval().kl_divergence(q, z), rtol=0, atol=0.01
        )


def test_gradients_reach_the_posterior_and_not_the_network():
    """In the mean of a posterior: against finite differences of the exact KL, in expectation."""
    prior = mixture_prior().train()
    with torch.no_grad():
        torch.nn.init.normal_(prior.network.exit.weight, std=0.2)
    prior.averaged.copy(prior.network)
    mean = torch.zeros(20_000, 2, requires_grad=True)
    torch.manual_seed(0)
    z = mean + 0.3 * torch.randn(20_000, 2)
    q = DiagonalGaussian(mean, torch.full((20_000, 2), 2 * float(np.log(0.3))))
    prior.kl_divergence(q, z[None]).sum().backward()
    assert all(p.grad is None for p in prior.parameters())
    assert int(prior.averaged.updates) == 0
    each = mean.grad.double()
    value = []
    for step in (0.05, -0.05):
        moved = z.detach() + torch.tensor([step, 0.0])
        with torch.no_grad():
            excess = torch.stack(
                [
                    excess_over_base(prior.predict, prior.base, moved, torch.Generator().manual_seed(s))
                    for s in range(20)
                ]
            ).mean(0)
            value.append((excess - prior.base.log_prob(moved, 0.002)).double())
    slope = (value[0] - value[1]) / 0.1
    error = float(torch.hypot(each[:, 0].std(), slope.std())) / np.sqrt(len(each))
    assert abs(float(each[:, 0].mean() - slope.mean())) < 4 * error
    assert error < 0.1
