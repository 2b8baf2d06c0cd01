import math
import re

import numpy as np
import pytest
import torch
from scipy.stats import binom

from cryoscape.priors.samplers.annealed import AnnealedImportance
from cryoscape.priors.samplers.base import IsingSampler, IsingSamples
from cryoscape.priors.samplers.calibration import calibrate, reference_problem, sampling_floor
from cryoscape.priors.samplers.exact import ExactSampler, state_probabilities
from cryoscape.priors.samplers.gibbs import BlockGibbs
from cryoscape.priors.samplers.health import integrated_autocorrelation, sample_faults, split_r_hat, watch
from cryoscape.priors.samplers.population import PopulationAnnealing
from cryoscape.priors.samplers.tempering import ParallelTempering
from tests.priors.samplers.problems import complete, two_wells


class AtAnotherTemperature(IsingSampler):
    def __init__(self, beta):
        self.beta = beta

    def sample_ising(self, problem, *, num_reads, beta=1.0, initial_states=None, seed=None):
        return ExactSampler().sample_ising(problem, num_reads=num_reads, beta=beta * self.beta, seed=seed)


class Frozen(IsingSampler):
    """Returns the states it is given, or some of the lowest energy."""

    supports_initial_states = True

    def sample_ising(self, problem, *, num_reads, beta=1.0, initial_states=None, seed=None):
        if initial_states is None:
            few = ExactSampler().sample_ising(problem, num_reads=8, beta=3.0, seed=seed).spins
            initial_states = few[torch.arange(num_reads) % 8]
        return IsingSamples(initial_states)


@pytest.mark.parametrize(
    ("sampler", "reads"),
    [
        (ExactSampler(), 20_000),
        (BlockGibbs(50), 20_000),
        (ParallelTempering(30, replicas=6), 8_000),
        (PopulationAnnealing(30), 20_000),
        (AnnealedImportance(50), 20_000),
    ],
    ids=lambda value: type(value).__name__,
)
def test_good_samplers_are_at_the_floor(sampler, reads):
    found = calibrate(sampler, num_reads=reads)
    assert found.tvd - found.floor < 0.01
    assert abs(found.beta_eff - 1) < 0.03
    assert found.passed
    assert found.faults == ()
    assert found.seconds > 0


def test_the_floor_is_that_of_independent_samples():
    """Mean absolute deviation of binomial counts (de Moivre 1730), and the known 0.083 at 20,000 reads."""
    law = state_probabilities(reference_problem())
    p = law.numpy()
    for reads in (2_000, 20_000):
        k = np.floor(reads * p)
        want = ((k + 1) * (1 - p) / reads * binom.pmf(k + 1, reads, p)).sum()
        floor, spread = sampling_floor(law, reads)
        assert abs(floor - want) < 4 * spread / math.sqrt(20)
        assert spread < 0.01
    assert abs(floor - 0.083) < 0.001


def test_a_wrong_temperature_is_named():
    cold = calibrate(AtAnotherTemperature(1.5), num_reads=5000)
    assert not cold.passed
    assert "too cold: their inverse temperature is 1.5" in cold.faults[0] or "1.4" in cold.faults[0]
    hot = calibrate(AtAnotherTemperature(0.8), num_reads=5000)
    assert not hot.passed
    assert "too hot" in hot.faults[0]


def test_a_frozen_sampler_is_named():
    found = calibrate(Frozen(), num_reads=5000)
    assert not found.passed
    assert re.match(r"the sampler is frozen: it visited [1-8] states, .* would visit 8\d\d", found.faults[0])


def test_few_sweeps_do_not_pass():
    found = calibrate(BlockGibbs(1), num_reads=20_000)
    assert not found.passed
    assert found.tvd - found.floor > 0.1
    assert found.faults


def test_autocorrelation_of_a_known_series():
    """x' = a x + noise has an autocorrelation time of (1 + a) / (1 - a)."""
    generator = torch.Generator().manual_seed(0)
    for a in (0.0, 0.5, 0.9):
        x = torch.randn(200, generator=generator)
        rows = []
        for _ in range(1000):
            x = a * x + math.sqrt(1 - a * a) * torch.randn(200, generator=generator)
            rows.append(x)
        assert integrated_autocorrelation(torch.stack(rows)) == pytest.approx((1 + a) / (1 - a), rel=0.06)
    assert integrated_autocorrelation(torch.ones(10, 3)) == math.inf


def test_r_hat_of_known_series():
    generator = torch.Generator().manual_seed(0)
    same = torch.randn(500, 8, generator=generator)
    assert abs(split_r_hat(same) - 1) < 0.01
    # Chains N(m, 1) with a spread of 1 between the m: variance 2 over all, 1 within.
    apart = same + torch.linspace(-1, 1, 8) / torch.linspace(-1, 1, 8).std()
    assert split_r_hat(apart) == pytest.approx(math.sqrt(2), rel=0.03)
    # A drift splits every chain from itself.
    assert split_r_hat(same + torch.linspace(-3, 3, 500)[:, None]) > 1.5


def test_healthy_chains_have_no_faults():
    found = watch(BlockGibbs(5), complete(8, strength=0.2), chains=50, rounds=60)
    assert found.faults == ()
    assert found.frozen == 0
    assert found.flipped > 0.95
    assert found.r_hat < 1.05
    assert found.autocorrelation < 1.5


def test_chains_that_stay_in_their_wells_are_named():
    found = watch(BlockGibbs(1), two_wells(field=0.05), chains=50, rounds=40)
    assert any("do not agree on the energy" in fault for fault in found.faults)
    assert found.r_hat > 1.1


def test_frozen_chains_are_named():
    found = watch(Frozen(), complete(8), chains=30, rounds=20)
    assert found.frozen == 1.0
    assert found.flipped == 0.0
    assert any("100% of the chains are frozen" in fault for fault in found.faults)


def test_chains_in_the_only_state_there_is_are_healthy():
    """Strong fields: nothing flips, and rightly so."""
    strong = complete(6).scaled(60.0)
    found = watch(BlockGibbs(5), strong, chains=20, rounds=20)
    assert not any("frozen" in fault for fault in found.faults)


def test_few_effective_samples_are_named():
    problem = two_wells(n=20, coupling=-0.4)
    samples = AnnealedImportance(2).sample_ising(problem, num_reads=500, seed=0)
    assert samples.info["ess"] < 25
    assert "weighted samples count" in sample_faults(samples)[0]
    assert sample_faults(AnnealedImportance(50).sample_ising(complete(5), num_reads=100, seed=0)) == ()


def test_a_broken_ladder_is_named():
    samples = ParallelTempering(20, replicas=2).sample_ising(
        two_wells(n=20, coupling=-0.4), num_reads=50, seed=0
    )
    assert "hardly exchange" in sample_faults(samples)[0]
