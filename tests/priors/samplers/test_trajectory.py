import math

import numpy as np
import pytest
import torch

from cryoscape.priors.samplers.annealed import annealed_importance
from cryoscape.priors.samplers.exact import exact_moments
from cryoscape.priors.samplers.trajectory import TrajectoryTempering, trajectory_annealing
from tests.priors.samplers.problems import complete, trained_path


@pytest.fixture(scope="module")
def path():
    return trained_path()


@pytest.fixture(scope="module")
def exact(path):
    return torch.tensor([exact_moments(problem).log_z for problem in path]).double()


def test_the_path_is_a_trained_one(path):
    """Couplings grow, and in the end the 14 patterns have most of the probability."""
    first, last = (float(p.couplings.abs().max()) for p in (path[0], path[-1]))
    assert first < 0.02 < 1 < last
    assert len(path) == 10


def test_annealing_is_within_its_error_at_every_checkpoint(path, exact):
    runs = [trajectory_annealing(path, chains=200, steps=100, seed=s) for s in range(8)]
    scores = torch.stack([(r.log_z - exact) / r.std_err for r in runs])
    assert float(scores.abs().max()) < 4.5
    assert float(scores.mean(0).abs().max()) < 4 / math.sqrt(8)
    assert float(scores[:, -1].std()) < 1.7
    assert float(runs[0].std_err[-1]) < 0.15
    assert bool((runs[0].ess[-1] > 50) & (runs[0].ess[-1] < 200))


def test_annealing_is_no_worse_than_a_change_of_temperature(path, exact):
    """At the same number of sweeps: root mean square error of 8 runs."""
    along = [trajectory_annealing(path, chains=100, steps=100, seed=s).log_z[-1] for s in range(8)]
    across = [annealed_importance(path[-1], chains=100, temperatures=100, seed=s).log_z for s in range(8)]
    errors = [np.sqrt(np.mean((np.array(x, float) - float(exact[-1])) ** 2)) for x in (along, across)]
    assert errors[0] < 2 * errors[1]


def test_the_weighted_ends_have_the_means_of_the_law(path):
    found = trajectory_annealing(path, chains=4000, steps=100)
    weight = torch.softmax(found.log_weight, 0)
    difference = weight @ found.spins.double() - exact_moments(path[-1]).mean
    assert float(difference.abs().max()) < 4 / math.sqrt(float(found.ess[-1]))


def test_tempering_along_checkpoints(path, exact):
    sampler = TrajectoryTempering(path[:-1], sweeps=40)
    runs = [sampler.estimate(path[-1], num_reads=100, seed=s) for s in range(5)]
    scores = torch.stack([(r.log_z - exact) / r.std_err for r in runs])
    assert float(scores.abs().max()) < 7  # Errors from ten blocks have heavy tails (Student's t).
    assert float(scores.mean(0).abs().max()) < 4 * 1.3 / math.sqrt(5)
    assert len(runs[0].swap) == 10
    assert min(runs[0].swap) > 0.1
    mean = torch.cat([r.spins for r in runs]).double().mean(0)
    assert float((mean - exact_moments(path[-1]).mean).abs().max()) < 4 / math.sqrt(500)


def test_as_a_sampler_it_takes_chains(path):
    sampler = TrajectoryTempering(path[:-1], sweeps=5)
    samples = sampler.sample_ising(path[-1], num_reads=20, initial_states=torch.ones(20, 18), seed=1)
    assert samples.spins.shape == (20, 18)
    assert set(samples.info) == {"log_z", "log_z_err", "swap", "sweeps"}


def test_checkpoints_share_a_graph(path):
    with pytest.raises(ValueError, match="same edges"):
        trajectory_annealing([path[0], complete(18)])
    with pytest.raises(ValueError, match="at least one"):
        trajectory_annealing([])
