import itertools
import math

import numpy as np
import pytest
import torch

from cryoscape.errors import InputError
from cryoscape.priors.samplers.base import IsingProblem
from cryoscape.priors.samplers.calibration import reference_problem
from cryoscape.priors.samplers.colouring import degeneracy, greedy_colours, independent_set
from cryoscape.priors.samplers.exact import (
    ExactSampler,
    enumerated_spins,
    exact_moments,
    spin_states,
    state_numbers,
    state_probabilities,
)
from tests.priors.samplers.problems import LOG_Z, by_loops, complete, grid


def test_the_known_machine():
    problem = reference_problem()
    found = exact_moments(problem)
    assert abs(found.log_z - LOG_Z) < 1e-9
    assert abs(found.energy + 5.858834) < 1e-6
    assert abs(float(state_probabilities(problem).max()) - 0.0420) < 5e-5
    assert enumerated_spins(problem) == 6


@pytest.mark.parametrize("beta", [1.0, 0.3])
@pytest.mark.parametrize(
    "problem",
    [
        complete(6, offset=1.3),
        grid(3),
        IsingProblem(torch.tensor([0.3, -1.0]), torch.zeros(0, 2).long(), torch.zeros(0)),
    ],
    ids=["complete", "grid", "no couplings"],
)
def test_moments_by_plain_loops(problem, beta):
    found = exact_moments(problem, beta)
    log_z, mean, pairs, energy = by_loops(problem, beta)
    assert abs(found.log_z - log_z) < 1e-6 * abs(log_z)
    np.testing.assert_allclose(found.mean, mean, atol=1e-6)
    np.testing.assert_allclose(found.pairs, pairs, atol=1e-6)
    assert abs(found.energy - energy) < 1e-6


def test_a_machine_on_bits_is_the_same_on_spins():
    rng = np.random.default_rng(0)
    a, w = rng.normal(size=4), rng.normal(size=4)
    edges = [(0, 1), (0, 2), (2, 3), (3, 1)]
    total = 0.0
    for b in itertools.product((0, 1), repeat=4):
        total += math.exp(np.dot(a, b) + sum(x * b[u] * b[v] for x, (u, v) in zip(w, edges)))
    problem = IsingProblem.of_bits(torch.from_numpy(a), torch.tensor(edges), torch.from_numpy(w))
    assert abs(exact_moments(problem).log_z - math.log(total)) < 1e-12


def test_one_side_of_twenty_is_enough():
    """A side of 14 and one of 60: log Z against a sum over the small side by numpy."""
    rng = np.random.default_rng(1)
    j, h = rng.normal(0, 0.2, (60, 14)), rng.normal(0, 0.3, 74)
    edges = torch.cartesian_prod(torch.arange(60), torch.arange(60, 74))
    problem = IsingProblem(torch.from_numpy(h), edges, torch.from_numpy(j.ravel()))
    assert enumerated_spins(problem) == 14
    small = np.array(list(itertools.product((-1, 1), repeat=14)))
    terms = -(small @ h[60:]) + np.log(2 * np.cosh(h[:60] + small @ j.T)).sum(1)
    want = terms.max() + math.log(np.exp(terms - terms.max()).sum())
    assert abs(exact_moments(problem).log_z - want) < 1e-9


def test_samples_are_independent_and_from_the_law():
    problem = complete(5)
    samples = ExactSampler().sample_ising(problem, num_reads=50_000, beta=0.7, seed=0)
    law = state_probabilities(problem, 0.7).numpy()
    seen = np.bincount(state_numbers(samples.spins).numpy(), minlength=32)
    chi_square = ((seen - 50_000 * law) ** 2 / (50_000 * law)).sum()
    assert chi_square < 31 + 4 * math.sqrt(62)
    assert samples.spins.dtype == torch.int8
    assert abs(samples.info["log_z"] - exact_moments(problem, 0.7).log_z) < 1e-12
    numbers = state_numbers(samples.spins).double()
    neighbours = torch.stack([numbers[:-1], numbers[1:]])
    assert abs(float(torch.corrcoef(neighbours)[0, 1])) < 4 / math.sqrt(50_000)


def test_a_seed_gives_the_same_samples():
    draw = [ExactSampler().sample_ising(complete(4), num_reads=9, seed=s).spins for s in (1, 1, 2)]
    assert torch.equal(draw[0], draw[1])
    assert not torch.equal(draw[0], draw[2])


def test_what_cannot_be_enumerated_is_refused():
    with pytest.raises(InputError, match="22 of 23 spins would be enumerated"):
        ExactSampler().sample_ising(complete(23), num_reads=1)
    with pytest.raises(InputError, match="cannot go on from initial states"):
        ExactSampler().sample_ising(complete(3), num_reads=1, initial_states=torch.ones(1, 3))
    with pytest.raises(InputError, match="too large"):
        state_probabilities(complete(21))


def test_states_and_their_numbers():
    states = spin_states(5)
    assert len(states.unique(dim=0)) == 32
    assert torch.equal(state_numbers(states), torch.arange(32))
    assert torch.equal(spin_states(5, 7, 9), states[7:9])


@pytest.mark.parametrize(
    "problem", [reference_problem(), complete(5), grid(4)], ids=["two sides", "all", "grid"]
)
def test_no_edge_is_inside_a_colour(problem):
    n = len(problem)
    assert sorted(torch.cat(problem.colours).tolist()) == list(range(n))
    colour = torch.empty(n, dtype=torch.long)
    for c, members in enumerate(problem.colours):
        colour[members] = c
    assert bool((colour[problem.edges[:, 0]] != colour[problem.edges[:, 1]]).all())
    assert len(problem.colours) == (n if n == 5 else 2)


def test_two_sides_have_two_colours_however_they_are_numbered():
    shuffled = torch.randperm(12, generator=torch.Generator().manual_seed(3))
    colours = greedy_colours(12, shuffled[reference_problem().edges])
    assert sorted(map(len, colours)) == [6, 6]


def test_a_star_is_enumerated_by_its_centre_alone():
    edges = torch.tensor([(0, k) for k in range(1, 7)])
    assert independent_set(8, edges, greedy_colours(8, edges)).tolist() == [1, 2, 3, 4, 5, 6, 7]


def test_degeneracy_of_known_graphs():
    assert degeneracy(6, torch.combinations(torch.arange(6), 2)) == 5
    assert degeneracy(12, reference_problem().edges) == 6
    assert degeneracy(16, grid(4).edges) == 2


def test_another_problem_on_the_graph_keeps_its_colours():
    problem = reference_problem()
    other = problem.with_parameters(2 * problem.fields, problem.couplings, 3.0)
    assert other.colours is problem.colours
    spins = spin_states(12, 5, 9)
    torch.testing.assert_close(other.energy(spins), problem.energy(spins) + spins @ problem.fields + 3.0)
    torch.testing.assert_close(problem.scaled(0.5).energy(spins), 0.5 * problem.energy(spins))
