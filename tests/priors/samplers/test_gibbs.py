import itertools
import math

import numpy as np
import pytest
import torch

from cryoscape.priors.samplers.base import IsingProblem
from cryoscape.priors.samplers.exact import exact_moments
from cryoscape.priors.samplers.gibbs import BlockGibbs, sweep
from cryoscape.priors.samplers.ordered import ColourOrder, log_two_cosh
from tests.priors.samplers.problems import complete, grid, two_wells

DOWN = 1 - 2**-53
STATES = np.array(list(itertools.product((-1.0, 1.0), repeat=3)))


def transition_matrix(problem, beta, backwards=False):
    """Exact probabilities of a sweep of three spins, read off the code through its random numbers.

    For every pair of states, spin after spin: the uniform number below which it goes up, by bisection, while
    the numbers of the spins before it make those go where they went.
    """
    order = ColourOrder.of(problem)
    ordered = order.problem(problem, beta)
    start, end = (torch.tensor(STATES)[list(i)] for i in zip(*itertools.product(range(8), range(8))))

    def move(uniform):
        if not backwards:
            return sweep(start.clone(), problem, beta, uniform)
        noise = -0.5 * torch.logit(order.columns(uniform, problem.fields))
        return order.rows(ordered.sweep(order.columns(start, problem.fields), noise, backwards=True))

    turns = order.order.tolist()
    turns[1:] = turns[:0:-1] if backwards else turns[1:]
    uniform, matrix = torch.full((64, 3), 0.5).double(), torch.ones(64).double()
    for spin in turns:
        low, high = torch.zeros(64).double(), torch.ones(64).double()
        for _ in range(50):
            uniform[:, spin] = 0.5 * (low + high)
            up = move(uniform)[:, spin] > 0
            low, high = torch.where(up, uniform[:, spin], low), torch.where(up, high, uniform[:, spin])
        goes_up = end[:, spin] > 0
        matrix *= torch.where(goes_up, low, 1 - low)
        uniform[:, spin] = torch.where(goes_up, 0.0, DOWN)
    return matrix.view(8, 8).numpy()


def law_of(problem, beta):
    energy = problem.energy(torch.from_numpy(STATES)).numpy()
    p = np.exp(-beta * energy)
    return p / p.sum()


CHAIN = IsingProblem(
    torch.tensor([0.2, -0.5, 0.4]).double(),
    torch.tensor([(0, 1), (1, 2)]),
    torch.tensor([0.7, -0.3]).double(),
)


@pytest.mark.parametrize("problem", [complete(3, strength=0.8), CHAIN], ids=["triangle", "chain"])
def test_a_sweep_leaves_the_law_as_it_is(problem):
    beta = 0.9
    forwards, p = transition_matrix(problem, beta), law_of(problem, beta)
    np.testing.assert_allclose(forwards.sum(1), 1, atol=1e-12)
    np.testing.assert_allclose(p @ forwards, p, atol=1e-12)
    assert np.abs(np.full(8, 1 / 8) @ forwards - 1 / 8).max() > 0.01
    assert forwards.min() > 0


def test_the_spins_of_the_annealing_weights_move_reversibly():
    """On the spins that are not summed out, the sweep backwards is the reversal of the sweep forwards."""
    problem, beta = complete(3, strength=0.8), 0.9
    first = int(ColourOrder.of(problem).order[0])
    rest = [u for u in range(3) if u != first]
    code = [2 * int(s[rest[0]] > 0) + int(s[rest[1]] > 0) for s in STATES]
    p, ways = law_of(problem, beta), []
    for backwards in (False, True):
        full, small = transition_matrix(problem, beta, backwards), np.zeros((4, 4))
        for i, j in itertools.product(range(8), range(8)):
            # The start of the first spin does not matter: it is drawn anew.
            small[code[i], code[j]] += full[i, j] / 2
        ways.append(small)
    marginal = np.bincount(code, p)
    np.testing.assert_allclose(marginal[:, None] * ways[0], (marginal[:, None] * ways[1]).T, atol=1e-12)
    assert np.abs(marginal[:, None] * ways[0] - (marginal[:, None] * ways[0]).T).max() > 1e-4


@pytest.mark.parametrize("problem", [complete(6), grid(3)], ids=["complete", "grid"])
def test_a_sweep_by_plain_loops(problem):
    """Every spin in turn, colour by colour, with a temperature and fields for every chain."""
    n, rng = len(problem), np.random.default_rng(1)
    spins = torch.from_numpy(rng.choice([-1.0, 1.0], (2, 5, n)))
    beta = torch.tensor([[[0.5]], [[2.0]]], dtype=torch.float64)
    uniform = torch.from_numpy(rng.uniform(size=(2, 5, n)))
    fields = torch.from_numpy(rng.normal(size=(2, 5, n)))
    want, dense = spins.numpy().copy(), np.zeros((n, n))
    for (u, v), j in zip(problem.edges.tolist(), problem.couplings.tolist()):
        dense[u, v] = dense[v, u] = j
    for members in sorted(problem.colours, key=len, reverse=True):
        for u in members.tolist():
            field = fields[..., u].numpy() + want @ dense[u]
            p = 1 / (1 + np.exp(2 * beta[..., 0].numpy() * field))
            want[..., u] = np.where(uniform[..., u].numpy() < p, 1, -1)
    got = sweep(spins, problem, beta, uniform, fields)
    assert got is spins
    np.testing.assert_array_equal(got, want)


def test_energies_and_marginals_in_the_order_of_colours():
    problem = grid(3)
    order = ColourOrder.of(problem)
    fields = torch.randn(7, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    ordered = order.problem(problem, 0.6, fields)
    spins = torch.sign(torch.randn(7, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(1)))
    columns = order.columns(spins, problem.fields)
    assert torch.equal(order.rows(columns).double(), spins)
    want = torch.stack(
        [problem.with_parameters(h, problem.couplings).energy(s) for h, s in zip(fields, spins)]
    )
    torch.testing.assert_close(ordered.energy(columns), 0.6 * want)
    total = torch.zeros(7, dtype=torch.float64)
    for values in itertools.product((-1.0, 1.0), repeat=ordered.first):
        columns[: ordered.first] = torch.tensor(values).double()[:, None]
        total += torch.exp(-ordered.energy(columns))
    torch.testing.assert_close(ordered.log_marginal(columns), total.log())


def test_log_two_cosh_far_out():
    x = torch.tensor([0.0, 1.0, -800.0], dtype=torch.float64)
    torch.testing.assert_close(
        log_two_cosh(x), torch.tensor([math.log(2), math.log(2 * math.cosh(1)), 800.0]).double()
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_means_at_another_temperature(dtype):
    problem = complete(8)
    cast = IsingProblem(problem.fields.to(dtype), problem.edges, problem.couplings.to(dtype))
    spins = BlockGibbs(40).sample_ising(cast, num_reads=20_000, beta=0.6, seed=1).spins
    exact = exact_moments(problem, 0.6)
    error = torch.sqrt((1 - exact.mean.square()) / 20_000)
    assert spins.dtype == torch.int8
    assert float(((spins.double().mean(0) - exact.mean) / error).abs().max()) < 4


def test_chains_go_on_from_where_they_are():
    """In two wells few sweeps keep the well; without initial states both are found."""
    problem, up = two_wells(), torch.ones(100, 16, dtype=torch.int8)
    kept = BlockGibbs(3).sample_ising(problem, num_reads=100, initial_states=up, seed=0).spins
    assert bool((kept.double().mean(1) > 0).all())
    assert torch.equal(up, torch.ones_like(up))
    fresh = BlockGibbs(3).sample_ising(problem, num_reads=100, seed=0).spins.double().mean(1)
    assert 20 < int((fresh > 0).sum()) < 80
    with pytest.raises(ValueError, match="initial states have shape"):
        BlockGibbs(3).sample_ising(problem, num_reads=99, initial_states=up)


def test_a_seed_gives_the_same_chains():
    runs = [BlockGibbs(2).sample_ising(complete(9), num_reads=20, seed=s).spins for s in (4, 4, 5)]
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])
