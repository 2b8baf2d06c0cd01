"""Chains, resampling and log Z against formulas and sums over grids."""

import math

import numpy as np
import pytest
import torch

from cryoscape.errors import InputError
from cryoscape.priors.energies.annealing import annealed_partition
from cryoscape.priors.energies.drawing import MetropolisLangevin, Resampling, pool
from cryoscape.priors.energies.resampling import WeightedPoints
from cryoscape.priors.langevin import langevin, metropolis_langevin, tuned_step
from tests.priors.energies.toys import Banana, banana, grid, log_integral


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(u):
    return -0.5 * u.square().sum(-1)


def test_langevin_without_correction_has_the_wrong_width_that_the_formula_says():
    """For N(0, 1) it is an autoregression: variance 1 / (1 - step^2 / 4)."""
    u = langevin(normal, torch.zeros(40_000, 1), step=1.0, steps=30, generator=seeded())
    assert float(u.var()) == pytest.approx(1 / (1 - 0.25), rel=0.03)


def test_the_correction_makes_chains_exact():
    """Mean and covariance of a Gaussian with correlated axes, at the same large step."""
    covariance = torch.tensor([[1.0, 0.6], [0.6, 0.8]])
    precision, mean = torch.linalg.inv(covariance), torch.tensor([0.5, -1.0])

    def log_density(u):
        return -0.5 * ((u - mean) @ precision * (u - mean)).sum(-1)

    chains = metropolis_langevin(log_density, torch.zeros(40_000, 2), step=0.9, steps=80, generator=seeded())
    assert 0.3 < chains.acceptance < 0.95
    np.testing.assert_allclose(chains.points.mean(0), mean, atol=0.02)
    np.testing.assert_allclose(torch.cov(chains.points.T), covariance, atol=0.03)
    loose = langevin(log_density, torch.zeros(40_000, 2), step=0.9, steps=80, generator=seeded())
    assert float(loose.var(0).max()) > 1.2


def test_proposals_that_are_not_finite_are_never_accepted():
    def wall(u):
        return torch.where(u[:, 0] > 0, -0.5 * u[:, 0].square(), torch.nan)

    start = torch.full((500, 1), 0.5)
    chains = metropolis_langevin(wall, start, step=1.0, steps=20, generator=seeded())
    assert bool((chains.points > 0).all())
    assert 0.1 < chains.acceptance < 0.9


def test_a_step_is_found():
    step, u = tuned_step(lambda x: normal(x / 0.05), 0.05 * torch.randn(500, 3), step=1.0, rounds=80)
    found = metropolis_langevin(lambda x: normal(x / 0.05), u, step=step, steps=20).acceptance
    assert 0.4 < found < 0.75


def test_resampling_takes_as_many_as_the_weights_say():
    weight = torch.tensor([0.5, 0.301, 0.199, 0.0], dtype=torch.float64)
    points = WeightedPoints(torch.arange(4.0)[:, None], weight.log())
    drawn = points.draw(1000, seeded())
    count = [int((drawn == k).sum()) for k in range(4)]
    assert count == [500, 301, 199, 0]
    # Even weights, fewer draws than points: no point twice.
    even = WeightedPoints(torch.arange(100.0)[:, None], torch.zeros(100, dtype=torch.float64))
    assert len(even.draw(50, seeded()).unique()) == 50
    assert even.share == pytest.approx(1.0)
    assert points.share == pytest.approx(1 / (weight**2).sum() / 4)


def test_weights_that_are_not_finite_are_refused():
    points = WeightedPoints(torch.zeros(3, 1), torch.tensor([0.0, math.nan, 1.0]).double())
    with pytest.raises(InputError, match="not finite"):
        points.draw(2)


def test_log_z_by_importance_and_by_annealing_is_that_of_the_grid():
    prior = banana(proposals=50_000)
    want = log_integral(lambda u: -prior.energy(u))
    estimates = prior.log_partition_estimates()
    for name, found in estimates.items():
        assert found.method == name
        assert 0 < found.std_err < 0.05
        assert abs(found.value - want) < 4 * found.std_err
    assert estimates["importance"].ess < 50_000


def test_annealing_knows_its_error():
    """Over 20 seeds the estimates scatter about the truth as their errors say."""
    law = banana().law
    want = log_integral(lambda u: Banana()(u) - 0.5 * u.square().sum(-1)) - math.log(2 * math.pi)
    found = [annealed_partition(law, chains=100, temperatures=30, seed=s) for s in range(20)]
    z = np.array([(f.value - want) / f.std_err for f in found])
    assert abs(z.mean()) < 1.0
    assert 0.5 < z.std() < 1.8


@pytest.mark.parametrize("sampler", [Resampling(50_000), MetropolisLangevin(60)], ids=["resampled", "mala"])
def test_samples_have_the_moments_of_the_grid(sampler):
    prior = banana()
    n = 20_000
    u = prior.sample_by(sampler, n, seeded()).double()
    points, _ = grid()
    p = (-prior.energy(points)).softmax(0)
    for moment in (lambda x: x[:, 0], lambda x: x[:, 1], lambda x: x[:, 0] ** 2, lambda x: x[:, 1] ** 2):
        want = float(p @ moment(points))
        spread = float((p @ moment(points) ** 2 - want**2).sqrt())
        assert abs(float(moment(u).mean()) - want) < 5 * spread / math.sqrt(n)


def test_weighted_means_have_their_error():
    law, z = banana().law, []
    points, _ = grid()
    f = Banana()(points)
    p = (f - 0.5 * points.square().sum(-1)).softmax(0)
    for seed in range(20):
        found = pool(law, 5000, seeded(seed))
        mean, error = found.mean(found.log_weight)
        z.append((mean - float(p @ f)) / error)
    assert abs(np.mean(z)) < 0.8
    assert 0.6 < np.std(z) < 1.5
