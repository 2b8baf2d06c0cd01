"""Trading latents and poses on images whose truth is known."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from cryoscape.analysis.validation.permutation import partners, permute_latents
from cryoscape.analysis.validation.simulated_images import SimulatedImages
from tests.analysis.validation.imaging import likelihood_of, particles, scenes

N = 200


def test_partners_are_near_and_never_oneself():
    rng = np.random.default_rng(0)
    direction = rng.standard_normal((500, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    defocus = rng.uniform(8000, 20000, 500)
    chosen = partners(direction, defocus, seed=1)
    assert (chosen != np.arange(500)).all()
    cosine = (direction * direction[chosen]).sum(axis=1)
    assert np.median(cosine) > 0.8
    np.testing.assert_array_equal(chosen, partners(direction, defocus, seed=1))


def test_true_states_cost_their_nats_when_traded():
    both, views = scenes(0, 25), particles(N)
    like = likelihood_of(both[0], 50.0)
    state = torch.arange(N) % 2
    source = SimulatedImages(views, like, both, state, seed=5)

    def log_likelihood(z, batch):
        """A model whose latent is the number of the structure."""
        columns = [
            like.log_prob(
                batch.images, s.project(batch.rotations, like.box, like.pixel_size), batch.ctf, batch.group
            )
            for s in both
        ]
        return torch.stack(columns, 1).gather(1, z.long())[:, 0]

    model = SimpleNamespace(log_likelihood=log_likelihood)
    rows, own = np.arange(N), np.arange(N)
    traded = own ^ 1  # always the other state
    found = permute_latents(model, source, rows, state[:, None].float(), traded, np.arange(N))
    batch = views(torch.arange(N))
    y0, y1 = (s.project(batch.rotations, like.box, like.pixel_size) for s in both)
    change = (y0 - y1) * like.transfer(batch.ctf, batch.group)
    # E log p(x | own) - log p(x | other) = |T (Y0 - Y1)|^2 / (2 s2).
    nats = (like.weights * change.abs().square() / (2 * like.noise[:, like.shells][batch.group])).sum((1, 2))
    assert found.drop.value == pytest.approx(float(nats.mean()), abs=4 * found.drop.error)
    assert found.traded_poses.value < found.matched.value - 5 * found.matched.error
    same = permute_latents(model, source, rows, state[:, None].float(), own, np.arange(N))
    assert same.drop.value == 0
