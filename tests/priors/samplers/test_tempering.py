import pytest
import torch

from cryoscape.errors import InputError
from cryoscape.priors.samplers.exact import exact_moments
from cryoscape.priors.samplers.gibbs import BlockGibbs
from cryoscape.priors.samplers.tempering import ParallelTempering, exchange
from tests.priors.samplers.problems import complete, grid, two_wells


def test_both_wells_are_found_from_one():
    """All chains start in the well of less weight, which Gibbs sweeps do not leave."""
    problem = two_wells(field=0.02)
    start = torch.ones(600, 16, dtype=torch.int8)
    caught = BlockGibbs(150).sample_ising(problem, num_reads=600, initial_states=start, seed=0).spins
    free = ParallelTempering(150).sample_ising(problem, num_reads=600, initial_states=start, seed=0).spins
    mean = float(exact_moments(problem).mean[0])
    assert -0.4 < mean < -0.2
    assert float(caught.double().mean()) > 0.5
    assert abs(float(free.double().mean()) - mean) < 0.1


def test_means_of_every_spin():
    problem = complete(10, strength=0.6)
    samples = ParallelTempering(60, replicas=6).sample_ising(problem, num_reads=5000, beta=1.3, seed=2)
    exact = exact_moments(problem, 1.3)
    error = torch.sqrt((1 - exact.mean.square()) / 5000)
    assert float(((samples.spins.double().mean(0) - exact.mean) / error).abs().max()) < 4
    assert len(samples.info["swap"]) == 5
    assert all(0 < s < 1 for s in samples.info["swap"])


def test_an_adapted_ladder_exchanges_as_asked():
    problem = grid(12)
    even = ParallelTempering(60)
    before = even.sample_ising(problem, num_reads=100, beta=2.0, seed=9).info["swap"]
    adapted = even.adapted(problem, beta=2.0, target=0.3, num_reads=50, rounds=3)
    after = adapted.sample_ising(problem, num_reads=100, beta=2.0, seed=9).info["swap"]
    assert max(before) - min(before) > 0.15
    assert all(0.25 < s < 0.5 for s in after)
    assert max(after) - min(after) < 0.1
    assert len(adapted.ladder) < 12
    assert (adapted.ladder[0], adapted.ladder[-1]) == (0.0, 1.0)


def test_exchanges_swap_pairs_and_nothing_else():
    log_ratio = torch.tensor([[9.0, -900.0], [9.0, 9.0], [-900.0, 9.0]])
    generator = torch.Generator().manual_seed(0)
    source, chance = exchange(log_ratio, 0, generator)
    assert source.T.tolist() == [[1, 0, 2, 3], [0, 1, 3, 2]]
    torch.testing.assert_close(chance, torch.tensor([0.5, 0.5]))
    source, chance = exchange(log_ratio, 1, generator)
    assert source.T.tolist() == [[0, 2, 1, 3], [0, 2, 1, 3]]
    assert chance.tolist() == [1.0]


def test_chance_of_an_exchange():
    log_ratio = torch.full((1, 20_000), -1.2)
    source, chance = exchange(log_ratio, 0, torch.Generator().manual_seed(0))
    assert abs(float(chance[0]) - 0.30119) < 1e-4
    assert abs(float((source[0] == 1).double().mean()) - 0.30119) < 0.013


@pytest.mark.parametrize("ladder", [(0.0,), (0.0, 0.5), (0.0, 0.6, 0.5, 1.0), (0.1, 1.0)])
def test_a_ladder_goes_from_0_to_1(ladder):
    with pytest.raises(InputError, match="rises from 0 to 1"):
        ParallelTempering(ladder=ladder)
