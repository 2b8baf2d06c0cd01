"""The law of Boltzmann machines on bits, against enumeration of all their units."""

import math

import numpy as np
import pytest
import torch

from cryoscape.errors import InputError
from cryoscape.models.posteriors import Bernoulli
from cryoscape.priors.config import BernoulliConfig, DbmConfig, RbmConfig
from cryoscape.priors.machines import sampling
from cryoscape.priors.machines.graph import complete_edges, configurations, graph_colours, layered_edges
from cryoscape.priors.machines.hidden_units import hidden_free_energy
from cryoscape.priors.machines.kinds import (
    BoltzmannMachine,
    independent_bits,
    layered_machine,
    restricted_machine,
)
from cryoscape.priors.samplers.partition import quickest_method
from tests.priors.machines.sets import all_bits, exact_log_prob, plain_energy, scrambled

MACHINES = {
    "bernoulli": lambda: independent_bits(5),
    "rbm": lambda: restricted_machine(5, chains=40),
    "dbm": lambda: layered_machine(6, (2, 2, 2), chains=40),
    "complete": lambda: BoltzmannMachine(5, complete_edges(5), chains=40),
    "plain": lambda: BoltzmannMachine(5, complete_edges(5), chains=40, centred=False),
    "rbm with hidden units": lambda: restricted_machine(5, 3, chains=40),
    "coupled latents with hidden units": lambda: BoltzmannMachine(
        4, torch.cat([complete_edges(4), layered_edges((4, 3))]), hidden=3, chains=40
    ),
}
ALL_LATENT = [name for name in MACHINES if "hidden" not in name]


@pytest.fixture(params=MACHINES)
def machine(request):
    return scrambled(MACHINES[request.param]())


def bernoulli(n, d, seed=0, spread=1.5):
    generator = torch.Generator().manual_seed(seed)
    return Bernoulli(spread * torch.randn(n, d, generator=generator, dtype=torch.float64))


def law_of(q):
    """Probability of all configurations under independent bits, (B, 2^d)."""
    bits, mean = all_bits(q.mean.shape[1]), q.mean[:, None]
    return torch.where(bits == 1, mean, 1 - mean).prod(-1)


# -- energy, log Z, samples -----------------------------------------------------------------------


def test_log_prob_is_that_of_all_units_enumerated(machine):
    bits = all_bits(machine.z_dim)
    torch.testing.assert_close(machine.log_prob(bits), exact_log_prob(machine), rtol=0, atol=1e-9)
    assert machine.log_partition().std_err == 0.0


def test_the_energy_is_zero_where_all_bits_are(machine):
    """So log Z is that of the formula, whatever the offset."""
    if machine.hidden or machine.normalized:
        return
    assert abs(machine.energy(torch.zeros(machine.z_dim, dtype=torch.float64)).item()) < 1e-12


def test_the_problem_of_spins_has_the_same_energies(machine):
    bits = all_bits(machine.z_dim + machine.hidden)
    energy = machine.problem().energy(2 * bits - 1)
    constant = torch.nn.functional.softplus(machine.fields_kt()).sum() if machine.normalized else 0.0
    want = plain_energy(bits, machine.fields_kt(), machine.couplings_kt()) + constant
    torch.testing.assert_close(energy, want, rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", ALL_LATENT)
def test_the_energy_of_probabilities_is_the_mean_energy(name):
    machine = scrambled(MACHINES[name]())
    q = bernoulli(20, machine.z_dim)
    want = law_of(q) @ machine.energy(all_bits(machine.z_dim))
    torch.testing.assert_close(machine.energy(q.mean), want, rtol=0, atol=1e-10)


@pytest.mark.parametrize("value", [0.5, 1.5, -1.0, math.nan])
def test_log_prob_of_anything_but_bits_is_refused(machine, value):
    z = torch.zeros(4, machine.z_dim, dtype=torch.float64)
    z[2, 1] = value
    with pytest.raises(InputError, match="bits are 0 or 1"):
        machine.log_prob(z)
    with pytest.raises(InputError, match="bits are 0 or 1"):
        machine.log_prob(z.numpy())


def test_samples_follow_the_law(machine):
    n = 40_000
    z = machine.sample(n, torch.Generator().manual_seed(0))
    assert z.shape == (n, machine.z_dim)
    number = (z @ 2.0 ** torch.arange(machine.z_dim - 1, -1, -1, dtype=z.dtype)).long()
    seen = torch.bincount(number, minlength=2**machine.z_dim) / n
    want = exact_log_prob(machine).exp()
    assert float(((seen - want).abs() / torch.sqrt(want * (1 - want) / n + 1e-7)).max()) < 4.5


def test_a_seed_gives_the_same_samples(machine):
    a, b, c = (machine.sample(60, torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def test_samples_of_a_machine_that_cannot_be_enumerated():
    """Two copies of a machine side by side, with edges of weight 0 between them: together too many bits to be
    enumerated, and yet each half has the law of the small machine.
    """
    small = scrambled(BoltzmannMachine(11, complete_edges(11)), sd=0.8)
    edges = complete_edges(22)
    large = BoltzmannMachine(22, edges, centred=False).double()
    assert quickest_method(large.problem()) == "ais"
    dense = torch.block_diag(small.couplings_kt(), small.couplings_kt())
    with torch.no_grad():
        large.pairs.weight.copy_(dense[edges[:, 0], edges[:, 1]])
        large.pairs.centred_bias.copy_(small.fields_kt().repeat(2))
    n = 1000
    z = large.sample(n, torch.Generator().manual_seed(0))
    bits = all_bits(11)
    law = torch.softmax(-small.energy(bits), 0).detach()
    mean, pairs = law @ bits, bits.T @ (law[:, None] * bits)
    for half in (z[:, :11], z[:, 11:]):
        assert float(((half.mean(0) - mean).abs() / torch.sqrt(mean * (1 - mean) / n)).max()) < 4.5
        error = (half.T @ half / n - pairs).abs() / torch.sqrt(pairs * (1 - pairs) / n + 1e-7)
        assert float(error.max()) < 4.5
    both = (z[:, :11].T @ z[:, 11:] / n - torch.outer(mean, mean)).abs()
    assert float(both.max()) < 5 * math.sqrt(0.25 / n)


def test_bits_given_what_images_say(machine):
    """Bayes' rule by enumeration, and by sweeps where there are too many units to enumerate."""
    generator = torch.Generator().manual_seed(0)
    log_odds = 1.5 * torch.randn(2, machine.z_dim, generator=generator, dtype=torch.float64)
    bits, n = all_bits(machine.z_dim), 10_000
    want = torch.softmax(exact_log_prob(machine) + log_odds @ bits.T, 1)
    weight = 2.0 ** torch.arange(machine.z_dim - 1, -1, -1, dtype=torch.float64)
    for few in (10, 0):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sampling, "FEW_UNITS", few)
            drawn = machine.sample_given(log_odds.repeat_interleave(n, 0), generator)
        for row, law in zip((drawn @ weight).long().view(2, n), want):
            seen = torch.bincount(row, minlength=len(law)) / n
            assert float(((seen - law).abs() / torch.sqrt(law / n + 1e-7)).max()) < 4.5


# -- the KL term ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL_LATENT)
def test_kl_is_exact_without_samples(name):
    machine = scrambled(MACHINES[name]())
    q = bernoulli(9, machine.z_dim)
    law = law_of(q)
    want = (law * (law.log() - exact_log_prob(machine))).sum(1)
    log_z = 0.0 if machine.normalized else machine.log_partition().value
    torch.testing.assert_close(machine.kl_divergence(q) + log_z, want, rtol=0, atol=1e-9)
    # Samples are not needed, and do no harm.
    assert torch.equal(machine.kl_divergence(q, q.sample(3)), machine.kl_divergence(q))


def test_kl_with_hidden_units_is_the_mean_over_the_samples():
    machine = scrambled(restricted_machine(4, 3, chains=40))
    q = bernoulli(1, 4)
    law = law_of(q)[0]
    want = float((law * (law.log() - exact_log_prob(machine))).sum())
    # All configurations as samples, as often as q has them.
    counts = (law * 200_000).round().long()
    samples = all_bits(4).repeat_interleave(counts, 0)[:, None]
    got = machine.kl_divergence(q, samples).item() + machine.log_partition().value
    assert abs(got - want) < 1e-3
    assert machine.kl_divergence(bernoulli(7, 4)).shape == (7,)


def test_kl_has_the_gradient_of_the_enumerated_one():
    machine = scrambled(restricted_machine(5, chains=40))
    logits = bernoulli(3, 5).logits.requires_grad_()
    got = torch.autograd.grad(machine.kl_divergence(Bernoulli(logits)).sum(), logits)[0]
    law = law_of(Bernoulli(logits))
    want = torch.autograd.grad((law * (law.log() - exact_log_prob(machine))).sum(), logits)[0]
    torch.testing.assert_close(got, want, rtol=0, atol=1e-10)


# -- hidden units that are coupled ----------------------------------------------------------------


def test_mean_field_energy_is_an_upper_bound_and_tight_for_weak_couplings():
    gaps = []
    for sd in (0.1, 0.5, 1.5):
        machine = scrambled(layered_machine(4, hidden=(3, 2), chains=40), sd=sd)
        exact = -exact_log_prob(machine) - machine.log_partition().value
        gap = machine.energy(all_bits(4)) - exact
        assert gap.min().item() > -1e-12
        gaps.append(gap.max().item())
    assert gaps[0] < gaps[1] < gaps[2]
    assert gaps[2] > 0.1


def test_the_gap_of_the_mean_field_is_that_of_second_order():
    """Of weakly coupled bits: half the sum of W^2 var var (the Onsager term; Plefka 1982)."""
    machine = scrambled(layered_machine(4, hidden=(3, 2), chains=40), sd=0.1)
    couplings, bits = machine.couplings_kt(), all_bits(4)
    gap = machine.energy(bits) + exact_log_prob(machine) + machine.log_partition().value
    mean = torch.sigmoid(machine.fields_kt()[4:] + bits @ couplings[:4, 4:])
    variance = mean * (1 - mean)
    want = 0.25 * ((variance @ couplings[4:, 4:].square()) * variance).sum(1)
    torch.testing.assert_close(gap.detach(), want, rtol=0.1, atol=0)


def test_mean_field_is_the_least_of_the_bound():
    """Against a minimisation of E(v, m) - H(m) by gradient descent."""
    generator = torch.Generator().manual_seed(3)
    field = torch.randn(6, 5, generator=generator, dtype=torch.float64)
    coupling = torch.zeros(5, 5, dtype=torch.float64)
    coupling[:3, 3:] = torch.randn(3, 2, generator=generator, dtype=torch.float64)
    coupling += coupling.T.clone()
    colours = graph_colours(5, layered_edges((3, 2)))
    logits = torch.zeros_like(field).requires_grad_()
    optimizer = torch.optim.LBFGS([logits], max_iter=500, tolerance_grad=1e-10, line_search_fn="strong_wolfe")

    def bound():
        mean = torch.sigmoid(logits)
        entropy = -(mean * mean.log() + (1 - mean) * (1 - mean).log()).sum(-1)
        return -(mean * field).sum(-1) - 0.5 * ((mean @ coupling) * mean).sum(-1) - entropy

    def closure():
        optimizer.zero_grad()
        loss = bound().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    torch.testing.assert_close(
        hidden_free_energy(field, coupling, colours), bound().detach(), rtol=0, atol=1e-4
    )


def test_a_bound_has_no_states():
    assert layered_machine(4, hidden=(3, 2)).states() is None
    assert restricted_machine(4, 3).states() is not None


# -- what it says of itself -----------------------------------------------------------------------


def test_states_are_the_configurations(machine):
    states = machine.states()
    assert len(states.weight) == 2**machine.z_dim
    np.testing.assert_allclose(states.weight, exact_log_prob(machine).exp().numpy(), atol=1e-10)
    np.testing.assert_array_equal(states.mean, all_bits(machine.z_dim).numpy())
    assert not states.covariance.any()
    for name, mean in zip(states.names, states.mean):
        assert name == "".join("+" if bit else "-" for bit in mean)


def test_responsibilities_are_products_of_probabilities():
    machine = restricted_machine(5)
    q = bernoulli(6, 5)
    got = machine.responsibilities(q.mean.view(2, 3, 5))
    torch.testing.assert_close(got, law_of(q).view(2, 3, 32), rtol=0, atol=1e-12)
    bits = all_bits(5)
    torch.testing.assert_close(machine.responsibilities(bits), torch.eye(32, dtype=torch.float64))


def test_many_bits_have_no_states():
    machine = restricted_machine(11)
    assert machine.states() is None
    with pytest.raises(NotImplementedError):
        machine.responsibilities(torch.zeros(1, 11))


def test_couplings_and_fields_are_in_kt():
    """The odds of a bit, given all others, by hand."""
    machine = scrambled(BoltzmannMachine(4, complete_edges(4)))
    couplings, fields = machine.couplings_kt(), machine.fields_kt()
    torch.testing.assert_close(couplings, couplings.T)
    assert not couplings.diagonal().any()
    up, down = torch.tensor([[1.0, 1, 0, 1], [1, 0, 0, 1]], dtype=torch.float64)
    odds = float(machine.log_prob(up) - machine.log_prob(down))
    assert abs(odds - float(fields[1] + couplings[1, 0] + couplings[1, 3])) < 1e-10


# -- log Z where it is not exact ------------------------------------------------------------------


def test_annealing_agrees_with_enumeration_in_a_deep_machine():
    machine = scrambled(layered_machine(16, hidden=(8, 8)), sd=0.8)
    found = machine.log_partition_estimates(temperatures=300)
    # 16 and the last 8 units are independent given the 8 between them.
    bias, coupling = machine.fields_kt(), machine.couplings_kt()
    middle = all_bits(8)
    outside = torch.cat([torch.arange(16), torch.arange(24, 32)])
    field = bias[outside] + middle @ coupling[16:24][:, outside]
    want = float(torch.logsumexp(middle @ bias[16:24] + torch.nn.functional.softplus(field).sum(1), 0))
    assert abs(found["enumeration"].value - want) < 1e-9
    assert found["enumeration"].std_err == 0.0
    assert found["ais"].std_err < 0.1
    assert abs(found["ais"].value - want) < 4 * found["ais"].std_err + 0.01


def test_annealing_along_the_training_agrees_with_enumeration():
    machine = scrambled(restricted_machine(12, chains=40), sd=0.1)
    end = scrambled(restricted_machine(12, chains=40), sd=1.5, seed=1)
    for share in (0.0, 0.3, 0.6, 1.0):
        with torch.no_grad():
            for mine, other in zip(machine.parameters(), end.parameters()):
                mine.copy_(share * other)
        machine.remember()
    assert len(machine.snapshots()) == 4
    found = machine.log_partition_estimates(temperatures=300)
    want = found["enumeration"].value
    assert abs(found["trajectory"].value - want) < 4 * found["trajectory"].std_err + 0.01
    assert found["trajectory"].std_err < 0.1


# -- building -------------------------------------------------------------------------------------


def test_configurations_of_the_settings():
    assert BernoulliConfig().build(7).normalized
    rbm = RbmConfig(chains=33, decay=0.5).build(7)
    assert (rbm.z_dim, rbm.hidden, len(rbm.pairs.weight), rbm.decay) == (7, 0, 4 * 3, 0.5)
    assert rbm.chains.spins.shape == (33, 7)
    assert RbmConfig(hidden=4).build(7).chains.spins.shape == (512, 11)
    dbm = DbmConfig().build(8)
    assert len(dbm.pairs.weight) == 3 * 3 + 3 * 2
    assert len(DbmConfig(layers=(4, 2, 2)).build(8).pairs.weight) == 8 + 4
    assert len(DbmConfig().build(2).pairs.weight) == 1
    for prior in (rbm, dbm):
        assert prior.support == "binary"
        assert not prior.whitens
        assert not prior.normalized


def test_layers_that_do_not_add_up_are_refused():
    with pytest.raises(InputError, match=r"4 \+ 2 bits do not make 8"):
        layered_machine(8, (4, 2))
    with pytest.raises(InputError, match="cannot be coupled"):
        restricted_machine(1)
    with pytest.raises(InputError, match="no couplings"):
        layered_machine(8, (8,))
    with pytest.raises(ValueError, match="hidden units without edges"):
        BoltzmannMachine(3, torch.zeros(0, 2, dtype=torch.long), hidden=2)


def test_graphs():
    assert layered_edges((2, 1, 2)).tolist() == [[0, 2], [1, 2], [2, 3], [2, 4]]
    assert complete_edges(3).tolist() == [[0, 1], [0, 2], [1, 2]]
    assert configurations(2).tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]
    assert len(graph_colours(3, complete_edges(3))) == 3
    assert len(graph_colours(5, layered_edges((2, 1, 2)))) == 2
