import pytest
import torch
from scipy.spatial.transform import Rotation

from cryoscape.models.centroids import ResidueCentroids


def chain(n=12, seed=0):
    """A self-avoiding-looking random walk of 3.8 A steps, with offsets of about 2 A."""
    g = torch.Generator().manual_seed(seed)
    steps = torch.randn(n, 3, generator=g, dtype=torch.float64)
    beads = torch.cumsum(3.8 * steps / steps.norm(dim=1, keepdim=True), 0)
    offsets = torch.randn(n, 3, generator=g, dtype=torch.float64)
    return beads, beads + 2.0 * offsets / offsets.norm(dim=1, keepdim=True)


def test_exact_at_the_reference():
    beads, centres = chain()
    got = ResidueCentroids(beads, centres, torch.ones(11, dtype=torch.bool))(beads[None].float())[0]
    torch.testing.assert_close(got, centres.float(), atol=1e-4, rtol=0)


@pytest.mark.parametrize("seed", range(3))
def test_turns_with_the_chain(seed):
    beads, centres = chain(seed=seed)
    turn = torch.tensor(Rotation.random(random_state=seed).as_matrix())
    shift = torch.tensor([5.0, -40.0, 3.0], dtype=torch.float64)
    module = ResidueCentroids(beads, centres, torch.ones(11, dtype=torch.bool))
    got = module((beads @ turn.T + shift)[None].float())[0]
    torch.testing.assert_close(got, (centres @ turn.T + shift).float(), atol=2e-4, rtol=0)


def test_pieces_too_short_for_a_frame_keep_their_offset_in_space():
    beads, centres = chain(5)
    bonded = torch.tensor([True, False, False, True])
    module = ResidueCentroids(beads, centres, bonded)
    moved = beads + torch.tensor([1.0, 2.0, 3.0])
    got = module(moved[None].float())[0]
    torch.testing.assert_close(got, (centres + torch.tensor([1.0, 2.0, 3.0])).float(), atol=1e-4, rtol=0)


def test_beads_that_are_their_own_centres_stay():
    beads, _ = chain()
    module = ResidueCentroids(beads, beads, torch.ones(11, dtype=torch.bool))
    torch.testing.assert_close(module(beads[None].float())[0], beads.float())


def test_a_straight_chain_is_no_accident():
    beads = torch.arange(6, dtype=torch.float64)[:, None] * torch.tensor([3.8, 0, 0], dtype=torch.float64)
    centres = beads + torch.tensor([0.0, 1.5, 0.0], dtype=torch.float64)
    got = ResidueCentroids(beads, centres, torch.ones(5, dtype=torch.bool))(beads[None].float())[0]
    torch.testing.assert_close(got, centres.float())
