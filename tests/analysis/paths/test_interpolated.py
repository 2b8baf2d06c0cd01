"""Paths between latents: where they go, how probable and how long they are."""

import math

import numpy as np
import pytest
import torch

from cryoscape.analysis.paths.interpolated import latent_path
from cryoscape.errors import InputError
from cryoscape.priors.flow import FlowPrior
from cryoscape.priors.machines.kinds import independent_bits
from cryoscape.priors.mixture import MixturePrior
from cryoscape.priors.normal import NormalPrior

A, B = torch.tensor([2.0, 0.0, 0.0]), torch.tensor([0.0, 2.0, 0.0])


def log_normal(square, d=3):
    return -0.5 * square - 0.5 * d * math.log(2 * math.pi)


def test_straight_through_a_normal_law():
    path = latent_path(NormalPrior(3), A, B, 5, "linear")
    np.testing.assert_allclose(path.z, np.linspace(A, B, 5), atol=1e-6)
    assert path.lowest == pytest.approx(log_normal(4.0))
    assert path.barrier == pytest.approx((0, 0), abs=1e-6)
    assert path.log_prob[2] == pytest.approx(log_normal(2.0))
    assert path.travelled is None


def test_round_through_a_normal_law():
    path = latent_path(NormalPrior(3), A, B, 7)
    assert path.kind == "slerp"
    angle = np.linspace(0, np.pi / 2, 7)
    expected = np.stack([2 * np.cos(angle), 2 * np.sin(angle), 0 * angle], 1)
    np.testing.assert_allclose(path.z, expected, atol=1e-5)
    np.testing.assert_allclose(path.log_prob, log_normal(4.0), atol=1e-5)


def test_barrier_between_two_states():
    prior = MixturePrior(3, 2)
    sd = 0.3
    with torch.no_grad():
        prior.logits.copy_(torch.log(torch.tensor([0.75, 0.25])))
        prior.gaussians.set(np.stack([A, B]), np.tile(sd**2 * np.eye(3), (2, 1, 1)))
    path = latent_path(prior.requires_grad_(False), A, B, 4)
    assert path.kind == "linear"
    # Lowest where both components count the same: found between the four points.
    t = np.linspace(0, 1, 10_001)[:, None]
    square = np.stack([((A.numpy() + t * (B - A).numpy() - c.numpy()) ** 2).sum(1) for c in (A, B)], 1)
    log_p = np.logaddexp.reduce(np.log([0.75, 0.25]) - 0.5 * square / sd**2, axis=1)
    log_p += -3 * math.log(sd * math.sqrt(2 * math.pi))
    assert path.lowest_at == pytest.approx(float(t[log_p.argmin(), 0]), abs=0.02)
    assert path.barrier == pytest.approx((log_p[0] - log_p.min(), log_p[-1] - log_p.min()), abs=0.3)
    np.testing.assert_allclose(path.log_prob[[0, -1]], log_p[[0, -1]], atol=1e-4)


def moved_flow():
    prior = FlowPrior(3, transforms=2, hidden=(8,), bins=4)
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(5)))
    return prior.requires_grad_(False)


@pytest.mark.parametrize("kind", ["flow", "slerp"])
def test_paths_in_the_base_of_a_flow(kind):
    prior = moved_flow()
    path = latent_path(prior, A, B, 6, kind)
    a, b = prior.encode(A), prior.encode(B)
    torch.testing.assert_close(path.z[0], A)
    torch.testing.assert_close(path.z[-1], B)
    base = prior.encode(path.z)
    if kind == "flow":
        expected = a + torch.linspace(0, 1, 6)[:, None] * (b - a)
        torch.testing.assert_close(base, expected, atol=1e-3, rtol=1e-3)
    else:
        norm = torch.linspace(float(a.norm()), float(b.norm()), 6)
        torch.testing.assert_close(base.norm(dim=1), norm, atol=1e-3, rtol=1e-3)


def test_length_is_that_of_the_decoded_structures():
    rng = np.random.default_rng(0)
    modes = rng.normal(size=(3, 10, 3))

    def decode(z):
        return np.tensordot(np.asarray(z, float), modes, axes=1).astype(np.float32)

    straight = latent_path(NormalPrior(3), A, B, 5, "linear", decode)
    whole = np.sqrt(((decode(A[None]) - decode(B[None])) ** 2).sum(-1).mean())
    np.testing.assert_allclose(straight.travelled, whole * np.linspace(0, 1, 5), rtol=1e-4)
    # A quarter of an ellipse, by many small steps of its own formula.
    t = np.linspace(0, np.pi / 2, 20_001)
    bend = decode(np.stack([2 * np.cos(t), 2 * np.sin(t), 0 * t], 1)).astype(float)
    expected = np.sqrt((np.diff(bend, axis=0) ** 2).sum(-1).mean(-1)).sum()
    found = latent_path(NormalPrior(3), A, B, 5, "slerp", decode).travelled[-1]
    assert found == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(
    ("prior", "start", "end", "n", "kind", "message"),
    [
        (NormalPrior(3), A, B, 1, "auto", "too few"),
        (NormalPrior(3), A, A, 5, "auto", "same point"),
        (MixturePrior(3, 2), A, B, 5, "slerp", "no base"),
        (independent_bits(3), A, B, 5, "auto", "are bits"),
    ],
)
def test_paths_that_are_none(prior, start, end, n, kind, message):
    with pytest.raises(InputError, match=message):
        latent_path(prior, start, end, n, kind)
