import numpy as np
import pytest
import torch

from cryoscape.errors import InputError
from cryoscape.priors.samplers.annealed import AnnealedImportance
from cryoscape.priors.samplers.annealers import (
    DimodSampler,
    as_dimod_sampler,
    path_integral,
    simulated_annealing,
)
from cryoscape.priors.samplers.bqm import bqm_of, problem_of, spins_of
from cryoscape.priors.samplers.calibration import calibrate, reference_problem
from cryoscape.priors.samplers.exact import ExactSampler, exact_moments, spin_states
from cryoscape.priors.samplers.gibbs import BlockGibbs
from tests.priors.samplers.problems import LOG_Z, complete, tvd, two_wells

dimod = pytest.importorskip("dimod")
dwave = pytest.importorskip("dwave.samplers")


@pytest.fixture
def annealing():
    return dwave.SimulatedAnnealingSampler()


@pytest.fixture
def quantum():
    return dwave.PathIntegralAnnealingSampler()


def test_scheduled_annealing_is_at_the_floor():
    found = calibrate(simulated_annealing(), num_reads=20_000)
    assert found.tvd - found.floor < 0.01
    assert abs(found.beta_eff - 1) < 0.03
    assert found.passed
    assert found.faults == ()


def test_scheduled_path_integrals_are_at_the_floor():
    found = calibrate(path_integral(150), num_reads=3000)
    assert found.tvd - found.floor < 0.01
    assert abs(found.beta_eff - 1) < 0.03
    assert found.passed


def test_annealing_ends_at_the_temperature_that_is_asked_for():
    problem = complete(8)
    exact = exact_moments(problem, 0.5)
    spins = simulated_annealing().sample_ising(problem, num_reads=10_000, beta=0.5, seed=0).spins
    error = torch.sqrt((1 - exact.mean.square()) / 10_000)
    assert float(((spins.double().mean(0) - exact.mean) / error).abs().max()) < 4


def test_default_schedules_are_refused(annealing, quantum):
    for sampler in (annealing, quantum):
        with pytest.raises(InputError, match="looks for the lowest energy") as caught:
            DimodSampler(sampler)
        assert type(sampler).__name__ in caught.value.message
        assert "not samples" in caught.value.message
        assert "simulated_annealing()" in caught.value.remedy
    with pytest.raises(InputError, match="looks for the lowest energy"):
        DimodSampler(annealing, num_sweeps=500, beta_schedule_type="geometric")


def test_schedules_that_end_elsewhere_are_refused(annealing, quantum):
    with pytest.raises(InputError, match=r"ends at 5 times the inverse temperature"):
        DimodSampler(annealing, beta_range=(0.1, 5.0))
    with pytest.raises(InputError, match=r"ends at 0\.9 times"):
        DimodSampler(annealing, beta_schedule_type="custom", beta_schedule=[0.1, 1.0, 0.9])
    with pytest.raises(InputError, match=r"transverse field of 0\.5"):
        DimodSampler(quantum, beta_schedule_type="custom", Hp_field=[0, 1], Hd_field=[1, 0.5])
    DimodSampler(annealing, beta_schedule_type="custom", beta_schedule=[0.1, 0.5, 1.0])
    DimodSampler(annealing, beta_range=[0.1, 1.0])


@pytest.mark.parametrize(
    "name",
    ["SteepestDescentSolver", "TabuSampler", "PlanarGraphSolver", "TreeDecompositionSolver", "RandomSampler"],
)
def test_optimisers_are_refused(name):
    with pytest.raises(InputError, match=f"{name} .* does not sample a Boltzmann law"):
        DimodSampler(getattr(dwave, name)())


def test_inside_a_composite_it_is_seen_as_well(annealing):
    from tests.priors.samplers.devices import FakeEmbedding

    with pytest.raises(InputError, match="SimulatedAnnealingSampler looks for"):
        DimodSampler(FakeEmbedding(annealing))


def test_the_tree_sampler_of_dimod_needs_nothing():
    samples = DimodSampler(dwave.TreeDecompositionSampler()).sample_ising(
        reference_problem(), num_reads=5000, beta=0.5, seed=0
    )
    assert abs(samples.info["log_z"] - exact_moments(reference_problem(), 0.5).log_z) < 1e-9
    assert tvd(samples, beta=0.5) < 0.3
    with pytest.raises(InputError, match="beta=2"):
        DimodSampler(dwave.TreeDecompositionSampler(), beta=2)


def test_chains_go_on_where_the_schedule_is_constant(annealing):
    problem, up = two_wells(), torch.ones(50, 16, dtype=torch.int8)
    held = DimodSampler(annealing, beta_range=(1.0, 1.0), beta_schedule_type="linear", num_sweeps=3)
    assert held.supports_initial_states
    spins = held.sample_ising(problem, num_reads=50, initial_states=up, seed=1).spins
    assert bool((spins.double().mean(1) > 0).all())
    assert not simulated_annealing().supports_initial_states
    with pytest.raises(InputError, match="cannot go on from initial states"):
        simulated_annealing().sample_ising(problem, num_reads=50, initial_states=up)


def test_a_seed_gives_the_same_samples():
    draw = [simulated_annealing(10).sample_ising(complete(9), num_reads=30, seed=s).spins for s in (1, 1, 2)]
    assert torch.equal(draw[0], draw[1])
    assert not torch.equal(draw[0], draw[2])


def test_there_and_back_again_is_the_same_law():
    there_and_back = DimodSampler(as_dimod_sampler(BlockGibbs(50)))
    assert there_and_back.supports_initial_states
    found = calibrate(there_and_back, num_reads=20_000)
    assert found.tvd - found.floor < 0.01
    exact = DimodSampler(as_dimod_sampler(ExactSampler())).sample_ising(reference_problem(), num_reads=5)
    assert abs(exact.info["log_z"] - LOG_Z) < 1e-9


def test_weights_survive_the_round_trip():
    there_and_back = DimodSampler(as_dimod_sampler(AnnealedImportance(5)))
    problem = complete(6)
    samples = there_and_back.sample_ising(problem, num_reads=20_000, seed=1)
    assert tvd(samples, problem) < 0.05
    assert samples.info["ess"] < 20_000


def test_the_face_of_dimod():
    """Labels, bits and energies as dimod has them, and the law of the model in its own words."""
    bqm = dimod.BinaryQuadraticModel(
        {"a": 0.5, "b": -1.0, 7: 0.2}, {("a", "b"): 0.8, ("b", 7): -0.6}, 0.3, "BINARY"
    )
    answer = as_dimod_sampler(ExactSampler()).sample(bqm, num_reads=20_000, beta=1.5, seed=0)
    assert answer.vartype is dimod.BINARY
    np.testing.assert_allclose(answer.record.energy, bqm.energies(answer), atol=1e-9)
    states = dimod.ExactSolver().sample(bqm)
    p = np.exp(-1.5 * states.record.energy)
    shares = {tuple(sorted(s.items(), key=str)): 0 for s in states.samples()}
    for s in answer.samples():
        shares[tuple(sorted(s.items(), key=str))] += 1 / 20_000
    want = {tuple(sorted(s.items(), key=str)): x for s, x in zip(states.samples(sorted_by=None), p / p.sum())}
    assert sum(abs(shares[k] - want[k]) for k in want) / 2 < 0.015
    assert abs(answer.info["log_z"] - np.log(p.sum())) < 1e-9
    with pytest.warns(dimod.exceptions.SamplerUnknownArgWarning):
        as_dimod_sampler(ExactSampler()).sample(bqm, chain_strength=2)


def test_initial_states_of_dimod():
    bqm = dimod.BinaryQuadraticModel({0: 9.0, 1: 0.0}, {}, 0.0, "SPIN")
    sampler = as_dimod_sampler(BlockGibbs(1))
    start = [{1: 1, 0: 1}, {1: -1, 0: 1}]
    answer = sampler.sample(bqm, num_reads=2, initial_states=start, seed=0)
    assert answer.record.sample[:, list(answer.variables).index(0)].tolist() == [-1, -1]
    assert "initial_states" not in as_dimod_sampler(ExactSampler()).parameters


def test_problems_there_and_back():
    problem = complete(5, offset=0.7)
    back, labels = problem_of(bqm_of(problem))
    assert labels == [0, 1, 2, 3, 4]
    torch.testing.assert_close(back.energy(spin_states(5)), problem.energy(spin_states(5)))


def test_counts_are_expanded_and_spins_reordered():
    answer = dimod.SampleSet.from_samples(
        (np.array([[1, 0, 1], [0, 0, 1]]), ["c", "a", "b"]), "BINARY", energy=[0, 0], num_occurrences=[2, 1]
    )
    assert spins_of(answer, ["a", "b", "c"]).tolist() == [[-1, 1, 1], [-1, 1, 1], [-1, 1, -1]]
    with pytest.raises(InputError, match="no value for 1 of 2 spins, 'd' first"):
        spins_of(answer, ["a", "d"])
