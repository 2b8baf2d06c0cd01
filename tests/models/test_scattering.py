import pytest
import torch
from scipy.spatial.transform import Rotation

from cryoscape.models.scattering import Scatterers


def chain(n=12, seed=0):
    """A random walk of 3.8 A steps, with two points about 2 A from every bead."""
    g = torch.Generator().manual_seed(seed)
    steps = torch.randn(n, 3, generator=g, dtype=torch.float64)
    beads = torch.cumsum(3.8 * steps / steps.norm(dim=1, keepdim=True), 0)
    residue = torch.arange(n).repeat_interleave(2)
    offsets = torch.randn(2 * n, 3, generator=g, dtype=torch.float64)
    return beads, beads[residue] + 2.0 * offsets / offsets.norm(dim=1, keepdim=True), residue


def build(beads, points, residue, bonded=None):
    if bonded is None:
        bonded = torch.ones(len(beads) - 1, dtype=torch.bool)
    return Scatterers(beads, points, torch.ones(len(points)), residue, bonded)


def test_exact_at_the_reference():
    beads, points, residue = chain()
    got = build(beads, points, residue)(beads[None].float())[0]
    torch.testing.assert_close(got, points.float(), atol=1e-4, rtol=0)


@pytest.mark.parametrize("seed", range(3))
def test_turns_with_the_chain(seed):
    beads, points, residue = chain(seed=seed)
    turn = torch.tensor(Rotation.random(random_state=seed).as_matrix())
    shift = torch.tensor([5.0, -40.0, 3.0], dtype=torch.float64)
    got = build(beads, points, residue)((beads @ turn.T + shift)[None].float())[0]
    torch.testing.assert_close(got, (points @ turn.T + shift).float(), atol=2e-4, rtol=0)


def test_two_rigid_pieces_move_independently():
    beads, points, residue = chain()
    bonded = torch.ones(11, dtype=torch.bool)
    bonded[5] = False
    turn = torch.tensor(Rotation.random(random_state=5).as_matrix())
    moved, wanted = beads.clone(), points.clone()
    moved[6:] = beads[6:] @ turn.T
    wanted[residue >= 6] = points[residue >= 6] @ turn.T
    got = build(beads, points, residue, bonded)(moved[None].float())[0]
    torch.testing.assert_close(got, wanted.float(), atol=2e-4, rtol=0)


def test_pieces_too_short_for_a_frame_keep_their_offsets_in_space():
    beads, points, residue = chain(5)
    module = build(beads, points, residue, torch.tensor([True, False, False, True]))
    shift = torch.tensor([1.0, 2.0, 3.0])
    got = module((beads + shift)[None].float())[0]
    torch.testing.assert_close(got, (points + shift).float(), atol=1e-4, rtol=0)


def test_a_straight_chain_is_no_accident():
    beads = torch.arange(6, dtype=torch.float64)[:, None] * torch.tensor([3.8, 0, 0], dtype=torch.float64)
    points = beads + torch.tensor([0.0, 1.5, 0.0], dtype=torch.float64)
    got = build(beads, points, torch.arange(6))(beads[None].float())[0]
    torch.testing.assert_close(got, points.float())


@pytest.mark.parametrize("n", [1, 2])
def test_very_small_models(n):
    beads, points, residue = chain(n)
    module = build(beads, points, residue, torch.ones(n - 1, dtype=torch.bool))
    torch.testing.assert_close(module(beads[None].float())[0], points.float(), atol=1e-4, rtol=0)


def test_per_residue_adds_up_its_points():
    beads, points, residue = chain(4)
    got = build(beads, points, residue).per_residue(torch.arange(8.0).view(1, 8, 1), 4)
    torch.testing.assert_close(got[0, :, 0], torch.tensor([1.0, 5.0, 9.0, 13.0]))
