"""Noise contrast on the law in eight dimensions whose density is known."""

import numpy as np
import torch

from cryoscape.priors.energies.prior import EnergyPrior
from tests.priors.ring import DIMENSION, make_ring


def test_a_tilted_mixture_is_near_the_ring():
    ring = make_ring()
    torch.manual_seed(0)
    prior = EnergyPrior(DIMENSION)
    report = prior.fit(ring.draw(20_000, 1)[0], steps=400)
    test, _ = ring.draw(2000, 2)
    gap = ring.log_prob(test) - prior.log_prob(test).detach().double().numpy()
    assert gap.mean() <= 0.10
    drawn = prior.sample(20_000, torch.Generator().manual_seed(0)).double().numpy()
    assert 0.025 <= ring.in_minor_state(drawn).mean() <= 0.035
    found = prior.log_partition()
    assert found.ess > 0.9 * prior.proposals
    assert found.std_err < 1e-3
    assert report.warnings == ()
    assert np.isfinite(report.log_prob)
