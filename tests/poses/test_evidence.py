"""Nats of poses: by the likelihood itself, and by sums over shifts at once."""

import torch

from cryoscape.physics import fourier
from cryoscape.poses.evidence import Evidence
from cryoscape.poses.templates import Band
from tests.poses.scene import BOX, PIXEL, POINTS, batch, evidence, likelihood, poses, project


def test_nats_are_the_likelihoods():
    rotations, shifts = poses(5)
    images, noise = batch(POINTS, rotations, shifts, 0.5)
    like = likelihood(noise)
    like.gain.copy_(torch.linspace(1.2, 0.4, like.n_shells))
    band = Band.of(like.weights, PIXEL)
    plain = project(POINTS, rotations)
    moved = plain * fourier.shift_phase(shifts.float(), fourier.frequency_grid(BOX, PIXEL))
    truth = like.log_prob(images.images, moved, images.ctf, images.group)
    values = plain.flatten(1)[:, band.index]
    parts = torch.stack([values.real, values.imag], dim=1)
    ours = Evidence.of(images, like, band).log_prob(parts, shifts)
    torch.testing.assert_close(ours, truth, rtol=1e-4, atol=1e-2)
    with_gain = parts * like.gain[0, like.shells.flatten()[band.index]]
    torch.testing.assert_close(Evidence.of(images, like, band, gain=False).log_prob(with_gain, shifts), ours)


def test_many_shifts_at_once():
    rotations, shifts = poses(3)
    images, noise = batch(POINTS, rotations, shifts, 0.5)
    seen = evidence(images, noise)
    values = project(POINTS, rotations).flatten(1)[:, Band.of(likelihood().weights, PIXEL).index]
    parts = torch.stack([values.real, values.imag], dim=1)
    tried = torch.tensor([[0.0, 0.0], [3.0, -2.0], [-5.0, 1.0]])
    together = seen.moved(tried[None]).flatten(2) @ parts.flatten(1)[:, :, None]
    together = together[..., 0] - seen.norms(parts[:, None])
    one_by_one = torch.stack([seen.log_prob(parts, t.expand(3, 2)) for t in tried], dim=1)
    torch.testing.assert_close(together, one_by_one, rtol=1e-4, atol=1e-3)
    # Projections shared by all images have the same norms.
    shared = seen.norms(parts)
    one_by_one = torch.stack([seen.norms(p.expand(3, 1, 2, -1))[:, 0] for p in parts], dim=1)
    torch.testing.assert_close(shared, one_by_one)
