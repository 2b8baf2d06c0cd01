"""Ensembles that stand still: motions of the whole are taken off, those of a part are kept."""

import torch

from cryoscape.physics.rotations import small_rotation
from cryoscape.poses.conformations import common_frame, group
from cryoscape.structures.superposition import superpose


def ensemble(n=60):
    """A core of 40 beads and an arm of 15 that turns by up to a radian, and the core alone."""
    g = torch.Generator().manual_seed(0)
    core, arm = 15 * torch.randn(40, 3, generator=g), 6 * torch.randn(15, 3, generator=g)
    angle = torch.linspace(-0.5, 0.5, n)
    turn = small_rotation(torch.stack([angle, 0 * angle, 0 * angle], dim=-1))
    arms = (arm + torch.tensor([25.0, 0, 0])) @ turn.mT
    return torch.cat([core.expand(n, -1, -1), arms], dim=1)


def test_whole_motions_go_and_the_arm_keeps_its_own():
    true = ensemble()
    g = torch.Generator().manual_seed(1)
    wobble = small_rotation(0.1 * torch.randn(len(true), 3, generator=g))
    moved = true @ wobble.mT + 2 * torch.randn(len(true), 1, 3, generator=g)
    mean, weights = common_frame(moved, moved.mean(0))
    still = superpose(moved, mean, weights)
    assert float(weights[:40].min()) > 5 * float(weights[40:].max())
    # The core stands, to a tenth of the wobble's 2 A; the arm moves as much as it truly does.
    assert float(still[:, :40].var(0).sum(-1).sqrt().mean()) < 0.3
    spread = still[:, 40:].var(0).sum(-1).sqrt().mean() / true[:, 40:].var(0).sum(-1).sqrt().mean()
    assert 0.9 < float(spread) < 1.1


def test_the_mean_is_laid_on_the_frame():
    true = ensemble()
    frame = true.mean(0) + torch.tensor([5.0, -3.0, 1.0])
    mean, weights = common_frame(true, frame)
    laid = superpose(mean, frame, weights)
    torch.testing.assert_close(mean, laid, atol=1e-3, rtol=0)


def test_groups_are_named_by_particles_among_them():
    g = torch.Generator().manual_seed(0)
    points = torch.cat([torch.randn(150, 2, generator=g) + 8, torch.randn(150, 2, generator=g) - 8])
    labels, nearest = group(points, 2)
    assert len(nearest) == 2
    assert labels[nearest].tolist() == [0, 1]
    assert len(labels[:150].unique()) == len(labels[150:].unique()) == 1
    assert len(group(points[:60], 16)[1]) == 1
