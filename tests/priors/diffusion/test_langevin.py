import numpy as np
import pytest
import torch

from cryoscape.priors.diffusion.langevin import adjusted_langevin, ornstein_uhlenbeck
from cryoscape.priors.flow import FlowPrior
from cryoscape.priors.mixture import MixturePrior
from tests.priors.diffusion.mixtures import draw, mixture_prior, moments


def standard():
    """The base itself: a flow that has learned nothing is N(0, I)."""
    return FlowPrior(2, transforms=1, hidden=(4,))


@pytest.mark.parametrize("dt", [0.1, 1.0])
def test_the_step_is_exact(dt):
    """Stationary at variance 1 and correlated as exp(-t / 2), however long the step."""
    g = torch.Generator().manual_seed(0)
    path = ornstein_uhlenbeck(standard(), torch.randn(4000, 2, generator=g), 60, dt=dt, generator=g)
    x = path.points.double()
    assert path.accepted == 1.0
    assert abs(float(x[-1].var()) - 1) < 0.06
    lag = float((x[:-1] * x[1:]).mean() / x.square().mean())
    assert abs(lag - np.exp(-dt / 2)) < 0.01


def test_autocorrelation_time_is_that_of_the_process():
    g = torch.Generator().manual_seed(0)
    path = ornstein_uhlenbeck(standard(), torch.randn(200, 2, generator=g), 2000, dt=0.1, generator=g)
    a = np.exp(-0.05)
    assert abs(path.autocorrelation() / ((1 + a) / (1 - a)) - 1) < 0.1


def test_it_stays_at_a_mixture():
    prior = mixture_prior()
    start = torch.as_tensor(draw(2000), dtype=torch.float32)
    path = ornstein_uhlenbeck(prior, start, 4, dt=1.0, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(path.points[0], start)
    mean, covariance = moments()
    for z in path.points[1:].double().numpy():
        assert np.abs(z.mean(0) - mean).max() < 0.1
        np.testing.assert_allclose(np.cov(z.T), covariance, atol=0.1)


def pull(z):
    """Towards (1, -0.5), as if seen there with errors of 0.5."""
    return 2.0 * (z - torch.tensor([1.0, -0.5])).square().sum(-1)


@pytest.mark.parametrize("kind", ["pcn", "mala"])
def test_with_a_potential_it_samples_the_product(kind):
    """N(0, I) seen with errors of 0.5: mean 0.8 of what was seen, variance 0.2."""
    g = torch.Generator().manual_seed(0)
    start = torch.randn(500, 2, generator=g)
    if kind == "pcn":
        path = ornstein_uhlenbeck(standard(), start, 300, dt=0.5, potential=pull, generator=g)
    else:
        path = adjusted_langevin(standard(), start, 300, step_size=0.6, potential=pull, generator=g)
    late = path.points[100:].double().reshape(-1, 2)
    assert 0.3 < path.accepted < 0.95
    np.testing.assert_allclose(late.mean(0), [0.8, -0.4], atol=0.02)
    np.testing.assert_allclose(late.var(0), [0.2, 0.2], atol=0.01)


def test_langevin_in_z_needs_no_base():
    torch.manual_seed(0)
    prior = MixturePrior(2, 2)
    g = torch.Generator().manual_seed(0)
    start = prior.sample(2000, g)
    path = adjusted_langevin(prior, start, 50, step_size=0.5, generator=g)
    states = prior.states()
    mean = states.weight @ states.mean
    np.testing.assert_allclose(path.points[-1].double().mean(0), mean, atol=0.1)
    assert path.accepted > 0.8


def test_a_wall_is_never_passed():
    def wall(z):
        return torch.where(z[:, 0] > 0, 0.0, torch.inf)

    g = torch.Generator().manual_seed(0)
    path = ornstein_uhlenbeck(standard(), torch.ones(100, 2), 100, dt=0.5, potential=wall, generator=g)
    assert bool((path.points[..., 0] > 0).all())
    # Half a normal: mean sqrt(2 / pi).
    assert abs(float(path.points[30:, :, 0].mean()) - np.sqrt(2 / np.pi)) < 0.05
