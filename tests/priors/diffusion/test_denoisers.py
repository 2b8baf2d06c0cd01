import numpy as np
import pytest
import torch

from cryoscape.priors.diffusion.network import MovingAverage, ResidualNetwork
from cryoscape.priors.diffusion.noise import denoise
from tests.priors.diffusion.mixtures import denoised, draw, log_density, mixture_prior


@pytest.mark.parametrize("sigma", [0.002, 0.1, 0.7, 5.0, 80.0])
def test_denoiser_of_a_mixture(sigma):
    x = draw(40) + sigma * np.random.default_rng(1).normal(size=(40, 2))
    base = mixture_prior(torch.float64).base
    found = denoise(base, torch.as_tensor(x), torch.tensor(sigma, dtype=torch.float64))
    np.testing.assert_allclose(found, denoised(x, sigma), rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(base.log_prob(torch.as_tensor(x), sigma), log_density(x, sigma), atol=1e-8)


@pytest.mark.parametrize("sigma", [0.01, 0.5, 30.0])
@pytest.mark.parametrize("kind", ["mixture", "network"])
def test_trace_is_that_of_the_jacobian(kind, sigma):
    torch.manual_seed(3)
    network = ResidualNetwork(2, 3, 16).double()
    torch.nn.init.normal_(network.exit.weight)
    function = mixture_prior(torch.float64).base if kind == "mixture" else network
    y = torch.randn(6, 2, dtype=torch.float64)
    level = torch.tensor(sigma, dtype=torch.float64)
    value, trace = function.with_trace(y, level)
    jacobian = [torch.autograd.functional.jacobian(lambda r: function(r[None], level)[0], row) for row in y]
    torch.testing.assert_close(value, function(y, level))
    torch.testing.assert_close(trace, torch.stack([j.trace() for j in jacobian]), rtol=1e-9, atol=1e-10)


def test_a_level_for_every_point_is_that_level():
    torch.manual_seed(3)
    network = ResidualNetwork(2, 2, 16)
    torch.nn.init.normal_(network.exit.weight)
    y, sigma = torch.randn(5, 2), torch.tensor([0.01, 0.1, 1.0, 10.0, 50.0])
    for function in (network, mixture_prior().base):
        each = torch.cat([function(y[i : i + 1], sigma[i]) for i in range(5)])
        torch.testing.assert_close(function(y, sigma), each, rtol=1e-5, atol=1e-6)


def test_average_follows_the_weights_and_is_not_trained():
    torch.manual_seed(0)
    network = ResidualNetwork(2, 1, 4)
    average = MovingAverage(network, 0.9)
    assert list(average.parameters()) == []
    want, weight = network.exit.bias.detach().clone(), network.exit.bias
    for n in range(200):
        with torch.no_grad():
            weight.copy_(torch.tensor([1.0, float(n)]))
        average.update(network)
        keep = min(0.9, (1 + n) / (10 + n))
        want = keep * want + (1 - keep) * weight.detach()
    torch.testing.assert_close(average.network.exit.bias, want)
    average.copy(network)
    torch.testing.assert_close(average.network.exit.bias, weight.detach())
    assert int(average.updates) == 0
