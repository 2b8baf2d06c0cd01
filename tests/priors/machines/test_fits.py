"""Boltzmann machines on bits fitted to data: known couplings, a published set, blurred posteriors, stacks."""

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import Tensor

from cryoscape.priors.machines import pretraining
from cryoscape.priors.machines.graph import complete_edges
from cryoscape.priors.machines.kinds import (
    BoltzmannMachine,
    independent_bits,
    layered_machine,
    restricted_machine,
)
from cryoscape.priors.posterior_samples import PosteriorSamples
from cryoscape.priors.samplers.gibbs import BlockGibbs
from tests.priors.machines.sets import bars_and_stripes, binary_digits, exact_log_prob


def known(machine, sd, bias, seed=0):
    """The machine with normal parameters: the truth behind data."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        machine.pairs.weight.copy_(sd * torch.randn(machine.pairs.weight.shape, generator=generator))
        machine.pairs.centred_bias.copy_(bias * torch.randn(machine.z_dim, generator=generator))
    return machine


def coupling_errors(machine, truth):
    """Correlation and root-mean-square error of the couplings, kT."""
    u, v = truth.pairs.edges.T
    found, true = (m.couplings_kt()[u, v].numpy() for m in (machine, truth))
    return np.corrcoef(found, true)[0, 1], math.sqrt(((found - true) ** 2).mean())


def test_couplings_of_an_ising_model_are_recovered():
    """Against the error that 20,000 samples leave: the inverse Fisher information at the truth."""
    truth = known(BoltzmannMachine(6, complete_edges(6)), 1.5, 0.4)
    z = truth.sample(20_000, torch.Generator().manual_seed(1))
    machine = BoltzmannMachine(6, complete_edges(6), chains=256)
    report = machine.fit(z, steps=600, lr=0.05)
    correlation, error = coupling_errors(machine, truth)
    assert correlation > 0.98
    bits = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 6).double()
    law = exact_log_prob(truth).exp()
    u, v = complete_edges(6).T
    features = torch.cat([bits, bits[:, u] * bits[:, v]], 1)
    centred = features - law @ features
    least = torch.linalg.inv(centred.T @ (law[:, None] * centred) * 18_000).diagonal()[6:].mean().sqrt()
    assert error < 2 * float(least)
    entropy = -float(law @ exact_log_prob(truth))
    assert abs(report.log_prob + entropy) < 4 * report.log_prob_error
    assert report.warnings == ()


@dataclass
class Blurred:
    """Five coupled bits, and what images with noise say of each of 20,000 particles."""

    truth: BoltzmannMachine
    log_odds: Tensor
    reference: BoltzmannMachine

    def divergence(self, machine):
        exact = exact_log_prob(self.truth)
        return float(exact.exp() @ (exact - exact_log_prob(machine)))


@pytest.fixture
def blurred():
    truth = known(BoltzmannMachine(5, complete_edges(5)), 1.5, 0.4)
    generator = torch.Generator().manual_seed(1)
    bits = truth.sample(20_000, generator)
    noise = 0.6
    seen = bits + noise * torch.randn(bits.shape, generator=generator)
    reference = independent_bits(5)
    reference.warm_start(bits)
    return Blurred(truth, (seen - 0.5) / noise**2, reference)


@pytest.mark.parametrize("drawn", [True, False], ids=["bits given the images", "samples reweighted"])
def test_noisy_posteriors_are_unblurred(blurred, drawn):
    """Posteriors under independent bits with the right means: a fit to their samples loses much of the
    couplings, deconvolution finds them.
    """
    truth, reference = blurred.truth, blurred.reference
    probability = torch.sigmoid(blurred.log_odds + reference.fields_kt())
    posteriors = PosteriorSamples.of_probabilities(probability, reference)
    torch.testing.assert_close(
        posteriors.log_odds.clamp(-8, 8), blurred.log_odds.clamp(-8, 8), atol=1e-2, rtol=1e-2
    )
    if not drawn:
        posteriors = replace(posteriors, log_odds=None)
    errors, machines = {}, {}
    for objective in ("aggregate", "deconvolved"):
        machines[objective] = BoltzmannMachine(5, complete_edges(5), chains=256)
        report = machines[objective].fit(posteriors, objective, steps=400, lr=0.05)
        errors[objective] = coupling_errors(machines[objective], truth)
    assert report.ess is None if drawn else report.ess > 0.3
    assert errors["deconvolved"][0] > 0.95
    assert errors["deconvolved"][1] < 0.6 * errors["aggregate"][1]
    share = blurred.divergence(machines["deconvolved"]) / blurred.divergence(machines["aggregate"])
    assert share < (0.05 if drawn else 0.15)


def test_bits_drawn_given_the_images_lead_to_the_truth(blurred):
    """Without importance weights: no sample is wasted, and no bias of a few samples is left."""
    machine = BoltzmannMachine(5, complete_edges(5), chains=256, decay=0.0)
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(machine.parameters(), lr=0.06)
    for step in range(500):
        optimizer.param_groups[0]["lr"] = 0.06 * 0.5 * (1 + math.cos(math.pi * step / 500))
        rows = torch.randint(20_000, (512,), generator=generator)
        optimizer.zero_grad()
        bits = machine.sample_given(blurred.log_odds[rows], generator)
        machine.loss(bits, generator=generator).backward()
        optimizer.step()
    assert coupling_errors(machine, blurred.truth)[0] > 0.95
    assert blurred.divergence(machine) < 0.015


def descend(machine, z, steps, lr, batch=None, seed=0):
    """Adam on the machine's loss, with the rate falling to 0."""
    generator = torch.Generator().manual_seed(seed)
    machine.warm_start(z, generator)
    optimizer = torch.optim.Adam(machine.parameters(), lr=lr)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = lr * 0.5 * (1 + math.cos(math.pi * step / steps))
        rows = torch.arange(len(z)) if batch is None else torch.randint(len(z), (batch,), generator=generator)
        optimizer.zero_grad()
        machine.loss(z[rows], generator=generator).backward()
        optimizer.step()
    return machine


def test_bars_and_stripes_are_learned():
    """Nine hidden units reach more than -3.07 nats a pattern; no model gets above -log 14 = -2.64."""
    z = bars_and_stripes(3)
    assert len(z) == 14
    machine = restricted_machine(9, 9, chains=256, sampler=BlockGibbs(10), decay=0.0)
    value = descend(machine, z, 600, 0.03).log_prob(z).mean().item()
    assert -3.07 < value < -math.log(14)
    assert machine.faults() == ()


def test_digits_are_learned_far_beyond_independent_bits():
    """Half a minute reaches -18.2 (see the benchmark); two seconds come more than half of the way."""
    train, test = binary_digits()
    independent = independent_bits(64)
    independent.warm_start(train)
    assert abs(independent.log_prob(test).mean().item() + 24.72) < 0.02
    machine = restricted_machine(64, 16, chains=256, sampler=BlockGibbs(1))
    machine = descend(machine, train, 300, 0.03, batch=256)
    assert machine.log_prob(test).mean().item() > -21.0


@pytest.fixture
def quick_stack(monkeypatch):
    monkeypatch.setattr(pretraining, "STEPS", 200)
    monkeypatch.setattr(pretraining, "RATE", 0.05)


@pytest.mark.parametrize("sizes", [(3, 3, 3), (3, 2, 2, 3)])
def test_a_stack_of_latents_is_near_the_truth(sizes, quick_stack):
    truth = known(layered_machine(sum(sizes), sizes), 2.5, 0.3, seed=5)
    z = truth.sample(3000, torch.Generator().manual_seed(1))
    log_prob = {}
    for pretrain in (False, True):
        machine = layered_machine(sum(sizes), sizes, pretrain=pretrain)
        machine.warm_start(z, torch.Generator().manual_seed(0))
        log_prob[pretrain] = float(machine.log_prob(z).mean())
    best = float(truth.log_prob(z).mean())
    assert log_prob[True] - log_prob[False] > 0.75 * (best - log_prob[False])
    assert log_prob[True] < best + 0.02


def test_a_stack_of_two_layers_is_the_restricted_machine(quick_stack):
    """Nothing is missing there, so nothing is taken twice: the moments are those of the data."""
    truth = known(layered_machine(5, (3, 2)), 1.0, 0.3)
    z = truth.sample(4000, torch.Generator().manual_seed(1))
    machine = layered_machine(5, (3, 2), pretrain=True)
    machine.warm_start(z, torch.Generator().manual_seed(0))
    samples = machine.sample(20_000, torch.Generator().manual_seed(0))
    pairs = z.T @ z / len(z) - samples.T @ samples / len(samples)
    assert float(pairs.abs().max()) < 0.03


def test_a_stack_of_hidden_layers_starts_above_independent_bits(quick_stack):
    z = bars_and_stripes(2)
    machine = layered_machine(4, hidden=(4, 3), pretrain=True)
    machine.warm_start(z, torch.Generator().manual_seed(0))
    data = [int(i) for i in (z @ torch.tensor([8.0, 4, 2, 1]))]
    assert float(exact_log_prob(machine)[data].mean()) > -4 * math.log(2) + 0.3
