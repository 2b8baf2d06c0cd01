"""How Boltzmann machines on bits learn: gradients by finite differences, chains, offsets, what is kept."""

import itertools
import math

import pytest
import torch
from safetensors.torch import load_file, save_file

from cryoscape.priors.machines.graph import complete_edges
from cryoscape.priors.machines.kinds import (
    BoltzmannMachine,
    independent_bits,
    layered_machine,
    restricted_machine,
)
from cryoscape.priors.machines.negative_phase import PersistentChains
from cryoscape.priors.samplers.base import IsingSampler, IsingSamples
from cryoscape.priors.samplers.exact import spin_states, state_probabilities
from cryoscape.priors.samplers.gibbs import BlockGibbs
from tests.priors.machines.sets import all_bits, exact_log_prob, scrambled

READS = 100_000


class Apportioned(IsingSampler):
    """Every state as often as its probability says, to one in READS: a negative phase without noise."""

    exact = True

    def sample_ising(self, problem, *, num_reads, beta=1.0, initial_states=None, seed=None):
        assert initial_states is None
        share = state_probabilities(problem, beta) * num_reads
        counts = share.floor().long()
        missing = num_reads - int(counts.sum())
        counts[torch.topk(share - counts, missing).indices] += 1
        return IsingSamples(spin_states(len(problem)).repeat_interleave(counts, 0).to(torch.int8))


class Still(IsingSampler):
    """Chains that stay where they are."""

    supports_initial_states = True

    def sample_ising(self, problem, *, num_reads, beta=1.0, initial_states=None, seed=None):
        return IsingSamples(initial_states.clone())


class Weighted(IsingSampler):
    """All states once, with their log weights."""

    def sample_ising(self, problem, *, num_reads, beta=1.0, initial_states=None, seed=None):
        states = spin_states(len(problem)).repeat(num_reads // 2 ** len(problem), 1)
        return IsingSamples(states.to(torch.int8), -beta * problem.energy(states))


def exactly(build, **more):
    return scrambled(build(chains=READS, sampler=Apportioned(), **more), sd=0.8)


LEARNERS = {
    "rbm": lambda **more: restricted_machine(5, **more),
    "dbm": lambda **more: layered_machine(5, (2, 2, 1), **more),
    "complete": lambda **more: BoltzmannMachine(4, complete_edges(4), **more),
    "plain": lambda **more: BoltzmannMachine(4, complete_edges(4), centred=False, **more),
    "rbm with hidden units": lambda **more: restricted_machine(4, 3, **more),
    "dbm with hidden layers": lambda **more: layered_machine(3, hidden=(2, 2), **more),
}


def some_bits(n, d, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(n, d, generator=generator) < torch.linspace(0.3, 0.8, d)).double()


def exact_loss(machine, z, weights=None):
    """Weighted mean of -log p and the penalty, by enumeration; of a bound, with that in the place of F."""
    bits = all_bits(machine.z_dim)
    weights = torch.ones(len(z), dtype=torch.float64) if weights is None else weights
    if len(machine._hidden_colours) > 1:
        log_prob = -machine.energy(bits) - machine.log_partition().value
    else:
        log_prob = exact_log_prob(machine)
    # Probabilities stand for independent bits.
    law = torch.where(bits == 1, z[:, None], 1 - z[:, None]).prod(-1)
    value = -(weights @ (law @ log_prob)) / weights.sum()
    return float((value + 0.5 * machine.decay * machine.pairs.weight.square().sum()).detach())


def finite_differences(machine, parameter, z, weights=None, step=1e-5):
    flat, out = parameter.detach().view(-1), torch.zeros(parameter.numel(), dtype=torch.float64)
    for i in range(len(flat)):
        old, ends = float(flat[i]), []
        for value in (old + step, old - step):
            flat[i] = value
            ends.append(exact_loss(machine, z, weights))
        flat[i] = old
        out[i] = (ends[0] - ends[1]) / (2 * step)
    return out


# -- the gradient ---------------------------------------------------------------------------------


@pytest.mark.parametrize("weighted", [False, True], ids=["equal weights", "weights"])
@pytest.mark.parametrize("name", LEARNERS)
def test_the_surrogate_has_the_gradient_of_the_exact_likelihood(name, weighted):
    machine = exactly(LEARNERS[name], decay=0.3) if name != "dbm" else exactly(LEARNERS[name])
    z = some_bits(30, machine.z_dim)
    weights = torch.rand(30, generator=torch.Generator().manual_seed(1)).double() if weighted else None
    machine.loss(z, weights, torch.Generator().manual_seed(2)).backward()
    for parameter in machine.parameters():
        want = finite_differences(machine, parameter, z, weights)
        assert float(want.abs().max()) > 0.02
        torch.testing.assert_close(parameter.grad, want, rtol=0, atol=3e-4)


def test_probabilities_have_the_gradient_of_the_mean_likelihood():
    machine = exactly(LEARNERS["dbm"])
    z = torch.rand(20, 5, generator=torch.Generator().manual_seed(0)).double()
    machine.loss(z, generator=torch.Generator().manual_seed(2)).backward()
    for parameter in machine.parameters():
        want = finite_differences(machine, parameter, z)
        torch.testing.assert_close(parameter.grad, want, rtol=0, atol=3e-4)


def test_probabilities_are_drawn_where_there_are_hidden_units():
    """F is not linear: the gradient at probabilities is, on average, that of bits."""
    machine = exactly(LEARNERS["rbm with hidden units"])
    z = torch.rand(1, 4, generator=torch.Generator().manual_seed(0)).double().expand(20_000, 4)
    machine.loss(z, generator=torch.Generator().manual_seed(2)).backward()
    for parameter in machine.parameters():
        want = finite_differences(machine, parameter, z[:1])
        torch.testing.assert_close(parameter.grad, want, rtol=0, atol=0.015)


def test_independent_bits_have_an_exact_loss():
    machine = scrambled(independent_bits(4))
    z = some_bits(30, 4)
    weights = torch.rand(30).double()
    loss = machine.loss(z, weights)
    assert abs(loss.item() - exact_loss(machine, z, weights)) < 1e-12
    loss.backward()
    want = finite_differences(machine, machine.pairs.centred_bias, z, weights)
    torch.testing.assert_close(machine.pairs.centred_bias.grad, want, rtol=0, atol=1e-8)


def test_no_gradient_reaches_the_data():
    machine = restricted_machine(4, chains=20)
    z = some_bits(10, 4).float().requires_grad_()
    machine.loss(z).backward()
    assert z.grad is None


def test_centred_and_plain_gradients_are_the_same_slope():
    """In other coordinates: d/dW of a centred machine is d/dW - o_v d/da_u - o_u d/da_v of the plain one."""
    z = some_bits(40, 4)
    centred = exactly(LEARNERS["complete"], decay=0.0)
    plain = exactly(LEARNERS["plain"], decay=0.0)
    with torch.no_grad():
        plain.pairs.weight.copy_(centred.pairs.weight)
        plain.pairs.centred_bias.copy_(centred.fields_kt())
    for machine in (centred, plain):
        machine.loss(z, generator=torch.Generator().manual_seed(0)).backward()
    torch.testing.assert_close(centred.log_prob(all_bits(4)), plain.log_prob(all_bits(4)), rtol=0, atol=1e-12)
    slope, offset = plain.pairs.centred_bias.grad, centred.pairs.offset
    u, v = complete_edges(4).T
    want = plain.pairs.weight.grad - offset[v] * slope[u] - offset[u] * slope[v]
    torch.testing.assert_close(centred.pairs.centred_bias.grad, slope, rtol=0, atol=1e-12)
    torch.testing.assert_close(centred.pairs.weight.grad, want, rtol=0, atol=1e-12)
    assert float((centred.pairs.weight.grad - plain.pairs.weight.grad).abs().max()) > 0.01


def test_the_offset_follows_the_data_and_the_law_stays():
    machine = scrambled(restricted_machine(4, 3, chains=20))
    before, offset = machine.log_prob(all_bits(4)).detach(), machine.pairs.offset.clone()
    z = torch.tensor([[1.0, 1.0, 0.0, 0.0]], dtype=torch.float64).expand(8, 4)
    for _ in range(50):
        machine.loss(z, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(machine.log_prob(all_bits(4)).detach(), before, rtol=0, atol=1e-12)
    want = torch.lerp(offset[:4], z[0], 1 - 0.99**50)
    torch.testing.assert_close(machine.pairs.offset[:4], want, rtol=0, atol=1e-6)


# -- the chains -----------------------------------------------------------------------------------


def test_chains_go_on_where_they_were():
    machine = scrambled(restricted_machine(6, chains=30, sampler=Still()))
    machine.chains.refresh = 0.0
    before = machine.chains.spins.clone()
    machine.loss(some_bits(10, 6))
    assert torch.equal(machine.chains.spins, before)


def test_one_percent_of_the_chains_is_set_to_data_of_some_weight():
    machine = scrambled(restricted_machine(6, chains=20_000, sampler=Still()))
    machine.chains.spins.fill_(-1)
    z = torch.tensor([[1.0] * 6, [0.0, 1, 0, 1, 0, 1]], dtype=torch.float64)
    machine.loss(z, torch.tensor([1.0, 3.0]), torch.Generator().manual_seed(0))
    bits = machine.chains.bits.double()
    first, second = ((bits == row).all(1).double().mean() for row in z)
    assert abs(float(first + second) - 0.01) < 4 * math.sqrt(0.01 / 20_000)
    assert abs(float(second / (first + second)) - 0.75) < 4 * math.sqrt(0.19 / 200)


def test_hidden_units_of_refreshed_chains_are_drawn_given_the_data():
    machine = scrambled(restricted_machine(2, 2, chains=40_000, sampler=Still()))
    machine.chains.refresh = 1.0
    machine.loss(torch.ones(1, 2, dtype=torch.float64), generator=torch.Generator().manual_seed(0))
    couplings, fields = machine.couplings_kt(), machine.fields_kt()
    want = torch.sigmoid(fields[2:] + couplings[2:, :2].sum(1))
    seen = machine.chains.bits[:, 2:].double().mean(0)
    assert float((seen - want).abs().max()) < 4 * 0.5 / 200


def test_weighted_samples_are_drawn_with_their_weights():
    machine = scrambled(restricted_machine(5, chains=32_000, sampler=Weighted()))
    machine.loss(some_bits(10, 5), generator=torch.Generator().manual_seed(0))
    number = (machine.chains.bits.double() @ 2.0 ** torch.arange(4, -1, -1, dtype=torch.float64)).long()
    seen = torch.bincount(number, minlength=32) / 32_000
    want = exact_log_prob(machine).exp()
    assert float(((seen - want).abs() / torch.sqrt(want / 32_000 + 1e-8)).max()) < 4.5


def test_the_sampler_is_asked_at_unit_temperature_with_a_seed_from_the_generator():
    class Recorder(Still):
        calls = []

        def sample_ising(self, problem, **more):
            self.calls.append((more["num_reads"], more.get("beta", 1.0), more["seed"]))
            return super().sample_ising(problem, **more)

    machine = restricted_machine(4, chains=25, sampler=Recorder())
    for seed in (1, 1, 2):
        machine.loss(some_bits(10, 4).float(), generator=torch.Generator().manual_seed(seed))
    (a, b, c) = Recorder.calls
    assert a == b
    assert a[:2] == (25, 1.0)
    assert a[2] != c[2]


def trained(machine, steps, generators, optimizer=None):
    optimizer = optimizer or torch.optim.Adam(machine.parameters(), lr=0.02)
    z = some_bits(60, machine.z_dim).float()
    for generator in itertools.islice(generators, steps):
        optimizer.zero_grad()
        machine.loss(z, generator=generator).backward()
        optimizer.step()
    return optimizer


@pytest.mark.parametrize("hidden", [0, 3])
def test_a_training_goes_on_from_a_file_as_if_nothing_had_happened(tmp_path, hidden):
    def build():
        return restricted_machine(6, hidden, chains=30, sampler=BlockGibbs(2))

    def generators(start):
        return (torch.Generator().manual_seed(100 + step) for step in itertools.count(start))

    straight = build()
    trained(straight, 12, generators(0))
    first = build()
    optimizer = trained(first, 5, generators(0))
    save_file(first.state_dict(), tmp_path / "prior.safetensors")
    second = build()
    second.load_state_dict(load_file(tmp_path / "prior.safetensors"))
    resumed = torch.optim.Adam(second.parameters(), lr=0.02)
    resumed.load_state_dict(optimizer.state_dict())
    trained(second, 7, generators(5), resumed)
    assert straight.state_dict().keys() == second.state_dict().keys()
    for name, value in straight.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name


# -- what is kept along the way -------------------------------------------------------------------


def test_snapshots_are_evenly_spaced_however_long_the_training():
    machine = restricted_machine(4, chains=2, sampler=BlockGibbs(1))
    z = some_bits(4, 4).float()
    for step in range(333):
        with torch.no_grad():
            machine.pairs.centred_bias.copy_(step + machine.pairs.coupling @ machine.pairs.offset)
        machine.loss(z)
    kept = [round(float(bias[0])) for bias, _ in machine.trajectory.snapshots()]
    assert kept == list(range(0, 333, 32))


def test_a_snapshot_is_the_machine_of_then():
    machine = scrambled(restricted_machine(4, chains=2))
    machine.remember()
    bits = all_bits(4)
    then = machine.energy(bits).detach()
    with torch.no_grad():
        machine.pairs.weight.mul_(2)
    torch.testing.assert_close(machine.snapshots()[0].energy(2 * bits - 1), then, rtol=0, atol=1e-12)
    assert BoltzmannMachine(4, complete_edges(4), snapshots=0).snapshots() == []


def test_the_warm_start_has_the_means_of_the_data_and_hardly_any_coupling():
    machine = restricted_machine(6, chains=4000)
    z = some_bits(5000, 6).float()
    machine.warm_start(z, torch.Generator().manual_seed(0))
    assert 0.003 < float(machine.pairs.weight.detach().std()) < 0.03
    mean = machine.sample(20_000, torch.Generator().manual_seed(0)).mean(0)
    torch.testing.assert_close(mean, z.mean(0), rtol=0, atol=0.02)
    # Chains are rows of the data.
    assert {tuple(row) for row in machine.chains.bits.tolist()} <= {tuple(row) for row in z.long().tolist()}
    again = restricted_machine(6, chains=4000)
    again.warm_start(z, torch.Generator().manual_seed(0))
    assert all(torch.equal(a, b) for a, b in zip(machine.state_dict().values(), again.state_dict().values()))


def test_bits_that_never_change_have_finite_biases():
    machine = independent_bits(3)
    machine.warm_start(torch.tensor([[1.0, 0.0, 1.0]] * 99))
    want = torch.tensor([math.log(99.5 / 0.5), -math.log(99.5 / 0.5), math.log(99.5 / 0.5)])
    torch.testing.assert_close(machine.fields_kt(), want, rtol=1e-4, atol=0)


# -- faults ---------------------------------------------------------------------------------------


def test_healthy_machines_have_no_faults():
    machine = restricted_machine(8, chains=200)
    z = some_bits(200, 8).float()
    machine.warm_start(z)
    trained(machine, 30, (torch.Generator().manual_seed(s) for s in itertools.count()))
    machine.log_partition()
    assert machine.faults() == ()
    independent = independent_bits(8)
    independent.warm_start(z)
    assert independent.faults() == ()


def test_mixing_is_one_for_independent_samples_and_falls_for_still_ones():
    z = some_bits(500, 8).float()
    problem = restricted_machine(8).problem()
    for sampler, low, high in ((BlockGibbs(5), 0.8, 1.2), (Still(), 0.0, 0.005)):
        chains = PersistentChains(400, 8, sampler, refresh=0.0)
        chains.start(z)
        for step in range(120):
            chains.step(problem, torch.full((50, 8), 0.5), generator=torch.Generator().manual_seed(step))
        assert low <= float(chains.mixing) <= high


def test_frozen_chains_are_named():
    machine = restricted_machine(8, chains=200, sampler=Still())
    machine.warm_start(some_bits(200, 8).float())
    trained(machine, 150, (torch.Generator().manual_seed(s) for s in itertools.count()))
    (fault,) = machine.faults()
    assert "frozen" in fault


def test_dead_units_are_named():
    machine = restricted_machine(6, 2, chains=200)
    z = some_bits(400, 6).float()
    z[:, 1], z[:, 4] = 1.0, 0.0
    machine.warm_start(z)
    with torch.no_grad():
        machine.pairs.centred_bias[7] = -9.0
        machine.pairs.data_mean[7] = 0.001
    machine.chains.step(machine.problem(), machine.completed(z))
    (fault,) = machine.faults()
    assert "2 of 6 bits (2, 5)" in fault
    assert "1 of 2 hidden units (2)" in fault


def test_a_poor_log_z_is_named():
    machine = BoltzmannMachine(40, complete_edges(40), chains=10)
    with torch.no_grad():
        machine.pairs.weight.copy_(100 * torch.randn(780, generator=torch.Generator().manual_seed(0)))
    assert machine.faults() == ()
    machine.log_partition()
    assert any("annealing runs" in fault for fault in machine.faults())


def test_parameters_that_are_not_finite_are_named():
    machine = restricted_machine(4)
    with torch.no_grad():
        machine.pairs.weight[0] = math.nan
    assert any("pairs.weight" in fault for fault in machine.faults())
