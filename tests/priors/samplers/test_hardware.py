import math
import re

import numpy as np
import pytest
import torch

from cryoscape.errors import InputError
from cryoscape.priors.samplers.base import IsingProblem
from cryoscape.priors.samplers.calibration import calibrate, reference_problem
from cryoscape.priors.samplers.effective_temperature import effective_beta
from cryoscape.priors.samplers.exact import ExactSampler, exact_moments, spin_states
from tests.priors.samplers.problems import complete, tvd


@pytest.mark.parametrize("beta", [0.3, 1.0, 2.5])
def test_the_temperature_of_exact_samples(beta):
    """Within 0.03 on 20,000 reads, and within its own error."""
    problem = reference_problem()
    found = [
        effective_beta(
            problem, ExactSampler().sample_ising(problem, num_reads=20_000, beta=beta, seed=s).spins
        )
        for s in range(5)
    ]
    scores = np.array([(f.value - beta) / f.std_err for f in found])
    assert max(abs(f.value - beta) for f in found) < 0.03
    assert np.abs(scores).max() < 4
    assert found[0].std_err < 0.03


def test_the_error_of_the_temperature_is_right():
    problem = complete(6)
    scores = []
    for seed in range(100):
        spins = ExactSampler().sample_ising(problem, num_reads=300, beta=0.8, seed=seed).spins
        found = effective_beta(problem, spins)
        scores.append((found.value - 0.8) / found.std_err)
    assert abs(np.mean(scores)) < 0.4
    assert 0.8 < np.std(scores) < 1.25


def test_the_temperature_of_the_whole_law_is_exact():
    """With the probabilities as weights nothing is left to chance."""
    problem = complete(6)
    states = spin_states(6)
    found = effective_beta(problem, states, -1.7 * problem.energy(states))
    assert abs(found.value - 1.7) < 1e-6


def test_samples_without_a_temperature():
    problem = complete(6)
    states = spin_states(6)
    lowest = states[problem.energy(states).argmin()][None]
    assert effective_beta(problem, lowest).value == math.inf
    highest = states[problem.energy(states).argmax()][None]
    assert effective_beta(problem, highest).value == -math.inf
    nothing = IsingProblem(torch.zeros(3), torch.tensor([[0, 1]]), torch.zeros(1))
    assert math.isnan(effective_beta(nothing, torch.ones(4, 3)).value)


class TestDevice:
    @pytest.fixture(autouse=True)
    def _extra(self):
        pytest.importorskip("dimod")
        from cryoscape.priors.samplers.annealers import DimodSampler
        from tests.priors.samplers.devices import FakeDevice, FakeEmbedding

        self.wrap, self.device, self.embedding = DimodSampler, FakeDevice, FakeEmbedding

    @pytest.mark.parametrize("hidden", [0.4, 3.7])
    def test_an_unknown_temperature_is_found(self, hidden):
        device = self.device(hidden, h=50, j=50)
        sampler = self.wrap(self.embedding(device), annealing_time=20)
        found = calibrate(sampler, num_reads=20_000)
        assert abs(found.beta_eff - 1) < 0.03
        assert found.tvd - found.floor < 0.01
        assert found.passed
        assert abs(sampler.prefactor * hidden - 1) < 0.03
        assert all(kwargs == {"annealing_time": 20} for _, _, kwargs in device.calls)
        assert max(reads for reads, _, _ in device.calls) <= 10_000

    def test_it_follows_the_device_from_call_to_call(self):
        device = self.device(2.0, h=50, j=50)
        sampler = self.wrap(device)
        problem = reference_problem()
        sampler.sample_ising(problem, num_reads=2000, seed=0)
        before = len(device.calls)
        device.beta = 3.0
        first = sampler.sample_ising(problem, num_reads=2000, seed=1)
        second = sampler.sample_ising(problem, num_reads=2000, seed=2)
        assert len(device.calls) == before + 2
        assert abs(first.info["beta_eff"] - 1.5) < 0.15
        assert re.search(r"sampled at 1\.[45]\d times the inverse temperature", first.info["faults"][0])
        assert abs(second.info["beta_eff"] - 1.0) < 0.1
        assert second.info["faults"] == ()

    def test_a_given_prefactor_stays(self):
        sampler = self.wrap(self.device(2.0, h=50, j=50), prefactor=0.5)
        samples = sampler.sample_ising(reference_problem(), num_reads=3000, beta=0.7, seed=0)
        assert sampler.prefactor == 0.5
        assert abs(samples.info["beta_eff"] - 0.7) < 0.05

    @pytest.mark.parametrize("correction", ["gibbs", "weights"])
    def test_what_was_clipped_is_mended(self, correction):
        """A cold device of small range: the plain answer is far from the law, the mended one at the floor."""
        limits = {"beta": 1.3, "h": 0.25, "j": 0.45}
        plain = calibrate(self.wrap(self.device(**limits), prefactor=1.0), num_reads=10_000)
        sampler = self.wrap(self.device(**limits), prefactor=1.0, correction=correction, sweeps=20)
        mended = calibrate(sampler, num_reads=10_000)
        assert plain.tvd - plain.floor > 0.1
        assert any("out of the range of the device" in fault for fault in plain.faults)
        assert mended.tvd - mended.floor < 0.01
        assert abs(mended.beta_eff - 1) < 0.03

    def test_weights_by_hand(self):
        problem = complete(4)
        sampler = self.wrap(self.device(2.0, h=0.3, j=0.2), prefactor=1.0, correction="weights")
        samples = sampler.sample_ising(problem, num_reads=40_000, seed=0)
        assert tvd(samples, problem) < 0.02
        assert samples.info["clipped"] == pytest.approx(
            (float((problem.fields.abs() > 0.3).sum()) + float((problem.couplings.abs() > 0.2).sum())) / 10
        )

    def test_answers_are_in_no_order_of_energy(self):
        problem = complete(6)
        spins = self.wrap(self.device(1.0)).sample_ising(problem, num_reads=2000, seed=0).spins
        energy = problem.energy(spins)
        assert abs(float(energy[:1000].mean() - energy[1000:].mean())) < 4 * float(energy.std()) * math.sqrt(
            2 / 1000
        )

    def test_a_problem_near_zero_leaves_the_prefactor_alone(self):
        sampler = self.wrap(self.device(1.0))
        tiny = complete(6).scaled(1e-3)
        sampler.sample_ising(tiny, num_reads=500, seed=0)
        assert 0.5 < sampler.prefactor < 2
        exact = exact_moments(complete(6))
        again = sampler.sample_ising(complete(6), num_reads=20_000, seed=1)
        assert float((again.spins.double().mean(0) - exact.mean).abs().max()) < 0.5

    def test_a_device_that_drops_reads_is_named(self, monkeypatch):
        device = self.device(1.0)
        real = device.sample
        monkeypatch.setattr(
            device, "sample", lambda bqm, *, num_reads, **k: real(bqm, num_reads=num_reads - 1, **k)
        )
        with pytest.raises(InputError, match="FakeDevice returned 99 of 100 reads"):
            self.wrap(device, prefactor=1.0).sample_ising(complete(4), num_reads=100)

    def test_spins_can_be_named_after_qubits(self):
        device = self.device(1.0)
        qubits = [30, 12, 7, 99]
        problem = complete(4)
        samples = self.wrap(device, labels=qubits, prefactor=1.0).sample_ising(
            problem, num_reads=40_000, seed=0
        )
        assert set(device.calls[0][1].variables) == set(qubits)
        assert tvd(samples, problem) < 0.02
