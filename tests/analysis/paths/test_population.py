"""The population behind posteriors, and what has no path."""

import numpy as np
import pytest
import torch

from cryoscape.analysis.paths.population import deconvolved_prior, population_of_run
from cryoscape.errors import InputError
from cryoscape.priors.flow import FlowPrior
from cryoscape.priors.machines.kinds import independent_bits
from cryoscape.priors.normal import NormalPrior


class Holder:
    """What of a run is asked for."""

    path = "run"

    def __init__(self, prior, embedding=None):
        self.prior, self.embedding = prior, embedding
        self.config = type("Config", (), {"prior": type("Prior", (), {"kind": "flow"})})


class Posteriors:
    def __init__(self, z, z_sd):
        self.z, self.z_sd = z, z_sd


def posteriors(n=2500, share=0.3, seed=0):
    """Images of two states in one direction of three, as posteriors under N(0, 1)."""
    rng = np.random.default_rng(seed)
    truth = np.where(rng.random(n) < share, 1.2, -0.8) + 0.2 * rng.standard_normal(n)
    variance = 0.25
    value = truth + np.sqrt(variance) * rng.standard_normal(n)
    z, z_sd = np.zeros((n, 3)), np.ones((n, 3))
    z[:, 1], z_sd[:, 1] = value / (1 + variance), np.sqrt(variance / (1 + variance))
    z[:, [0, 2]] = 0.03 * rng.standard_normal((n, 2))
    return Posteriors(z, z_sd)


def test_two_states_are_found_behind_the_posteriors():
    found = population_of_run(Holder(NormalPrior(3), posteriors()))
    assert "mixture of 2 deconvolved" in found.source
    states = found.prior.states()
    order = np.argsort(states.mean[:, 1])
    np.testing.assert_allclose(states.weight[order], [0.7, 0.3], atol=0.03)
    np.testing.assert_allclose(states.mean[order, 1], [-0.8, 1.2], atol=0.06)
    np.testing.assert_allclose(np.sqrt(states.covariance[order, 1, 1]), 0.2, atol=0.06)
    # Unmeasured directions are as the reference prior left them.
    np.testing.assert_allclose(states.covariance[:, 0, 0], 1.0, atol=1e-3)
    # The barrier in -ln p is that of the true law.
    t = torch.linspace(-0.8, 1.2, 201)
    line = torch.stack([0 * t, t, 0 * t], 1)
    energy = found.prior.energy(line)
    x = t.double().numpy()
    law = 0.7 * np.exp(-0.5 * ((x + 0.8) / 0.2) ** 2) + 0.3 * np.exp(-0.5 * ((x - 1.2) / 0.2) ** 2)
    expected = -np.log(law)
    assert float(energy.max() - energy[0]) == pytest.approx(expected.max() - expected[0], rel=0.35)


def test_no_component_is_narrower_than_images_show():
    rng = np.random.default_rng(0)
    n, variance = 1000, 0.25
    value = np.where(rng.random(n) < 0.5, 1.0, -1.0) + np.sqrt(variance) * rng.standard_normal(n)
    z = np.stack([value / (1 + variance), np.zeros(n)], 1)
    z_sd = np.tile([np.sqrt(variance / (1 + variance)), 1.0], (n, 1))
    widths = np.sqrt(deconvolved_prior(z, z_sd).states().covariance[:, 0, 0])
    assert (widths > 0.999 * np.sqrt(variance / np.log(n))).all()
    assert (widths < 0.3).all()


def test_one_state_stays_one():
    rng = np.random.default_rng(0)
    z = np.zeros((2000, 2))
    z[:, 0] = 0.8 * rng.standard_normal(2000)
    assert deconvolved_prior(z, np.tile([0.6, 1.0], (2000, 1))).components == 1


def test_a_learned_prior_is_taken_as_it_is():
    prior = FlowPrior(2, transforms=1, hidden=(8,), bins=4)
    found = population_of_run(Holder(prior))
    assert found.prior is prior
    assert found.source == "the flow prior of the run"


def test_bits_have_no_path():
    with pytest.raises(InputError, match="bits"):
        population_of_run(Holder(independent_bits(3)))
