import math

import numpy as np
import pytest
import torch

from cryoscape.errors import InputError
from cryoscape.priors.samplers.annealed import (
    AnnealedImportance,
    annealed_importance,
    annealed_log_partition,
)
from cryoscape.priors.samplers.base import IsingProblem
from cryoscape.priors.samplers.bennett import bennett_log_ratio, log_mean_exp
from cryoscape.priors.samplers.bracket import annealed_bracket
from cryoscape.priors.samplers.calibration import reference_problem
from cryoscape.priors.samplers.exact import ExactSampler, exact_moments
from cryoscape.priors.samplers.population import PopulationAnnealing, systematic
from tests.priors.samplers.problems import LOG_Z, complete, two_wells


def test_defaults_are_within_a_twentieth():
    found = annealed_importance(reference_problem())
    assert abs(found.log_z - LOG_Z) < 0.05
    assert abs(found.log_z - LOG_Z) < 4 * found.std_err
    assert found.spins.shape == (500, 12)
    assert found.sd < 0.1


@pytest.mark.parametrize(
    "problem", [complete(9, strength=0.3, offset=2.0), reference_problem()], ids=["complete", "two sides"]
)
def test_errors_are_right(problem):
    """Of 40 short runs at another temperature, the deviations over their errors have a spread of one."""
    exact = exact_moments(problem, 0.8).log_z
    runs = [annealed_importance(problem, beta=0.8, chains=200, temperatures=8, seed=s) for s in range(40)]
    scores = np.array([(r.log_z - exact) / r.std_err for r in runs])
    assert abs(scores.mean()) < 4 / math.sqrt(40)
    assert 0.65 < scores.std() < 1.4
    # ESS is that of log-normal weights, R exp(-sd^2), as long as they are even.
    for r in runs:
        assert abs(r.ess / 200 - math.exp(-(r.sd**2))) < 0.15


def test_a_start_from_other_fields_gives_the_same():
    problem = reference_problem()
    base = torch.atanh(-exact_moments(problem).mean)
    found = annealed_importance(problem, chains=400, temperatures=30, base_fields=base)
    assert abs(found.log_z - LOG_Z) < 4 * found.std_err
    assert found.std_err < 0.03


def test_weighted_samples_have_the_means_of_the_law():
    problem = complete(8, strength=0.5)
    samples = AnnealedImportance(10).sample_ising(problem, num_reads=20_000, seed=1)
    weight = torch.softmax(samples.log_weight, 0)
    exact = exact_moments(problem).mean
    error = math.sqrt(1 / samples.info["ess"])
    assert float((weight @ samples.spins.double() - exact).abs().max()) < 4 * error
    assert 0.3 < samples.info["ess"] / 20_000 < 0.97
    with pytest.raises(InputError, match="cannot go on"):
        AnnealedImportance().sample_ising(problem, num_reads=1, initial_states=torch.ones(1, 8))


@pytest.mark.parametrize("temperatures", [3, 30])
def test_both_directions_bracket_log_z(temperatures):
    found = annealed_bracket(reference_problem(), temperatures=temperatures, sampler=ExactSampler())
    assert found.lower + 2 * found.lower_err < LOG_Z or temperatures == 30
    assert found.upper - 2 * found.upper_err > LOG_Z or temperatures == 30
    assert found.lower - 3 * found.lower_err < LOG_Z < found.upper + 3 * found.upper_err
    assert abs(found.log_z - LOG_Z) < 4 * found.log_z_err
    assert found.upper - found.lower < (0.6 if temperatures == 3 else 0.1)


def test_the_bracket_draws_its_own_samples():
    found = annealed_bracket(reference_problem(), chains=200, temperatures=10)
    assert found.lower - 3 * found.lower_err < LOG_Z < found.upper + 3 * found.upper_err
    assert abs(found.log_z - LOG_Z) < 4 * found.log_z_err


def test_bennett_on_normal_weights():
    """Work N(m, s^2) forwards and N(s^2 - m, s^2) backwards: the ratio is exp(s^2 / 2 - m) exactly."""
    rng = np.random.default_rng(0)
    scores, errors = [], []
    for _ in range(200):
        up = torch.from_numpy(rng.normal(-0.7, 1.5, 300))
        down = torch.from_numpy(rng.normal(0.7 - 1.5**2, 1.5, 150))
        value, error = bennett_log_ratio(up, down)
        scores.append((value - (1.5**2 / 2 - 0.7)) / error)
        errors.append(error)
    assert abs(np.mean(scores)) < 4 / math.sqrt(200)
    assert 0.8 < np.std(scores) < 1.25
    assert max(errors) < 0.12


def test_log_mean_exp_by_hand():
    log_weight = torch.log(torch.tensor([[1.0, 2.0, 3.0], [4.0, 4.0, 4.0]], dtype=torch.float64)) + 900
    value, error, ess = log_mean_exp(log_weight)
    torch.testing.assert_close(value, torch.tensor([math.log(2), math.log(4)]).double() + 900)
    torch.testing.assert_close(error, torch.tensor([1 / (2 * math.sqrt(3)), 0.0]).double(), atol=1e-7, rtol=0)
    torch.testing.assert_close(ess, torch.tensor([36 / 14, 3.0]).double())


def test_every_row_of_a_batch():
    """Twelve fully coupled spins and 64 sets of fields, against enumeration."""
    problem = complete(12, strength=0.25, offset=0.4)
    single = IsingProblem(problem.fields.float(), problem.edges, problem.couplings.float(), 0.4)
    fields = torch.randn(64, 12, generator=torch.Generator().manual_seed(1))
    exact = torch.tensor(
        [exact_moments(problem.with_parameters(h.double(), problem.couplings, 0.4)).log_z for h in fields]
    ).double()
    found = annealed_log_partition(single, fields, chains=100, temperatures=64, seed=0)
    assert found.spins.shape == (64, 100, 12)
    assert found.log_weight.shape == (64, 100)
    scores = (found.log_z - exact) / found.err
    assert float(scores.abs().max()) < 4.5
    assert 0.7 < float(scores.std()) < 1.4
    assert float((found.log_z - exact).abs().max()) < 0.1
    weight = torch.softmax(found.log_weight, 1)
    mean = (weight[:, :, None] * found.spins.double()).sum(1)
    want = exact_moments(problem.with_parameters(fields[5].double(), problem.couplings)).mean
    assert float((mean[5] - want).abs().max()) < 0.4


def test_a_batch_is_its_rows():
    """With a single set of fields the estimate is that of the plain function."""
    problem = complete(7)
    found = annealed_log_partition(problem, problem.fields[None], chains=50, temperatures=9, seed=3)
    alone = annealed_importance(problem, chains=50, temperatures=9, seed=3)
    assert abs(float(found.log_z[0]) - alone.log_z) < 1e-12
    assert torch.equal(found.spins[0], alone.spins)


@pytest.mark.parametrize("reads", [100, 1000])
def test_population_annealing_finds_log_z(reads):
    """Few temperatures, so that it has to resample; errors of 40 runs are right within a third."""
    problem = two_wells(n=12, coupling=-0.2, field=0.05)
    exact = exact_moments(problem).log_z
    sampler = PopulationAnnealing(12, threshold=0.9)
    runs = [sampler.sample_ising(problem, num_reads=reads, seed=s).info for s in range(40)]
    assert min(r["resamplings"] for r in runs) >= 2
    scores = np.array([(r["log_z"] - exact) / r["log_z_err"] for r in runs])
    assert abs(scores.mean()) < 4 / math.sqrt(40) + 0.2
    assert 0.5 < scores.std() < 1.5


def test_copies_are_as_many_as_weights_ask_for():
    log_weight = torch.log(torch.tensor([0.1, 0.25, 0.0, 0.65]) + 1e-30)
    counts = torch.zeros(4)
    for seed in range(400):
        picked = systematic(log_weight, torch.Generator().manual_seed(seed))
        count = torch.bincount(picked, minlength=4)
        assert bool(
            ((count == torch.floor(4 * log_weight.exp())) | (count == torch.ceil(4 * log_weight.exp()))).all()
        )
        counts += count
    torch.testing.assert_close(counts / 400, torch.tensor([0.4, 1.0, 0.0, 2.6]), atol=0.1, rtol=0)
