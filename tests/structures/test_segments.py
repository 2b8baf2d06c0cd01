from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from cryoscape.errors import InputError
from cryoscape.structures.segments import (
    apply_rigid,
    initial_segments,
    responsibilities,
    rotations_from_imaginary,
    segment_centroids,
)
from tests.structures.builders import make_model, walk


@pytest.fixture
def model():
    return make_model(walk(60), ["A"] * 40 + ["B"] * 20)


def test_segments_are_shared_out_by_length_and_stay_in_their_chain(model):
    segments = initial_segments(model, 6)
    assert segments.segment_chain.tolist() == [0, 0, 0, 0, 1, 1]
    shares = segments.responsibilities()
    torch.testing.assert_close(shares.sum(1), torch.ones(60))
    assert shares[:40, 4:].abs().max() == 0
    assert shares[40:, :4].abs().max() == 0
    assert torch.bincount(shares.argmax(1)).tolist() == [10, 10, 10, 10, 10, 10]
    # Ends of a chain are symmetric, since the mixture is.
    torch.testing.assert_close(shares[:40, :4], shares[:40, :4].flip(0, 1), atol=1e-5, rtol=0)


def test_responsibilities_are_the_tempered_mixture():
    from scipy.stats import norm

    rng = np.random.default_rng(0)
    position = np.arange(15.0)
    means, stds, logits = rng.uniform(0, 15, 3), rng.uniform(2, 6, 3), rng.normal(size=3)
    weight = (np.exp(logits) * norm.pdf(position[:, None], means, stds)) ** (1 / 0.5)
    expected = weight / weight.sum(1, keepdims=True)
    zeros = torch.zeros(15, dtype=torch.long), torch.zeros(3, dtype=torch.long)
    got = responsibilities(
        torch.as_tensor(position), *zeros, *map(torch.as_tensor, (means, stds, logits)), tau=0.5
    )
    np.testing.assert_allclose(got, expected, rtol=1e-9)


def test_a_hard_division_moves_each_part_as_a_rigid_body(model):
    coords = torch.as_tensor(model.coords).double()
    labels = torch.tensor([0] * 25 + [1] * 15 + [2] * 20)
    shares = torch.nn.functional.one_hot(labels).double()
    centroids = segment_centroids(coords, shares)
    rotations = torch.as_tensor(Rotation.random(6, rng=1).as_matrix()).view(2, 3, 3, 3)
    translations = torch.randn(2, 3, 3, generator=torch.Generator().manual_seed(0)).double()
    moved = apply_rigid(coords, shares, centroids, rotations, translations)
    for b in range(2):
        for k in range(3):
            part = coords[labels == k]
            centre = part.mean(0)
            expected = (part - centre) @ rotations[b, k].T + centre + translations[b, k]
            torch.testing.assert_close(moved[b, labels == k], expected)
            torch.testing.assert_close(moved[b, labels == k].mean(0), centre + translations[b, k])


def test_no_motion_gives_the_reference_and_the_path_is_differentiable(model):
    segments = initial_segments(model, 4)
    means = segments.means.double().requires_grad_()
    coords = torch.as_tensor(model.coords).double()

    def bend(means, vector):
        shares = responsibilities(
            segments.position.double(),
            segments.chain,
            segments.segment_chain,
            means,
            segments.stds.double(),
            segments.logits.double(),
            tau=1.0,
        )
        return apply_rigid(
            coords, shares, segment_centroids(coords, shares), rotations_from_imaginary(vector), 2 * vector
        )

    vector = torch.zeros(2, 4, 3, dtype=torch.float64)
    torch.testing.assert_close(bend(means, vector), coords.expand(2, -1, -1))
    vector = (vector + torch.linspace(-0.5, 0.5, 24).view(2, 4, 3)).requires_grad_()
    assert torch.autograd.gradcheck(bend, (means, vector))


def test_rotations_agree_with_scipy():
    vector = np.random.default_rng(0).normal(size=(20, 3))
    quaternion = np.concatenate([vector, np.ones((20, 1))], axis=1)
    expected = Rotation.from_quat(quaternion).as_matrix()
    np.testing.assert_allclose(rotations_from_imaginary(torch.as_tensor(vector)), expected, atol=1e-12)


@pytest.mark.parametrize("n", [1, 61])
def test_impossible_numbers_of_segments(model, n):
    with pytest.raises(InputError, match="2 chains") as caught:
        initial_segments(model, n)
    assert "2 to 60" in caught.value.remedy
