import numpy as np
import pytest

import cryoscape.analysis.evaluation.map_comparison as comparison
from cryoscape.analysis.evaluation.map_comparison import (
    TrueSpectra,
    central_particles,
    per_conformation_auc,
    per_image_auc,
    spaced_particles,
)
from cryoscape.analysis.evaluation.map_metrics import auc_ceiling, fsc_auc
from tests.analysis.evaluation.test_map_metrics import low_pass, smooth_maps

BOX = 16


@pytest.fixture(scope="module")
def truth():
    """Four states along a line between two random maps, and their own differences."""
    ends = smooth_maps(2)
    level = np.linspace(0, 1, 4)[:, None, None, None]
    return (1 - level) * ends[0] + level * ends[1]


def decoder(truth, strength=1.0):
    """Interpolates between the true maps at z0 = state, and shrinks towards the second one."""

    def decode(z):
        position = np.clip(1 + strength * (z[:, 0] - 1), 0, 3)
        low = np.minimum(position.astype(int), 2)
        part = (position - low)[:, None, None, None]
        return (1 - part) * truth[low] + part * truth[low + 1]

    return decode


def test_central_particle_is_a_real_one_of_the_state():
    z = np.array([[0.0], [0.2], [5.0], [10.0], [11.0], [10.4], [0.9]])
    state = np.array([3, 3, 3, 1, 1, 1, 3])
    # Means 1.525 and 10.47; particle 6 is nearest to the first and 5 to the second.
    states, particles = central_particles(z, state)
    np.testing.assert_array_equal(states, [1, 3])
    np.testing.assert_array_equal(particles, [5, 6])


def test_every_so_many_images():
    np.testing.assert_array_equal(spaced_particles(1000, 4), [0, 250, 500, 750])
    assert len(spaced_particles(1050, 100)) == 105
    np.testing.assert_array_equal(spaced_particles(3, 100), [0, 1, 2])


def test_perfect_decoder_reaches_the_ceiling(truth):
    state = np.arange(80) % 4
    z = np.stack([state, np.zeros(80)], axis=1)
    found = per_conformation_auc(z, state, decoder(truth), truth.__getitem__)
    np.testing.assert_array_equal(found.state, np.arange(4))
    np.testing.assert_allclose(found.auc(), auc_ceiling(BOX), atol=1e-5)
    np.testing.assert_allclose(found.auc(32), (8 - 0.5) / 32, atol=1e-5)
    images = per_image_auc(z, state, decoder(truth), truth.__getitem__, images=20)
    np.testing.assert_array_equal(images.particle, np.arange(0, 80, 4))
    np.testing.assert_array_equal(images.nearest, images.state)


def test_rows_are_pairs_of_a_decoded_and_its_own_true_map(truth):
    rng = np.random.default_rng(2)
    state = rng.integers(0, 4, 60)
    z = state[:, None] + rng.normal(0, 0.3, (60, 1))
    decode = decoder(truth, 0.5)
    found = per_image_auc(z, state, decode, truth.__getitem__, images=60)
    np.testing.assert_allclose(found.auc(), fsc_auc(decode(z), truth[state]), atol=1e-6)
    by_hand = [[fsc_auc(one, other) for other in truth] for one in decode(z)]
    np.testing.assert_array_equal(found.nearest, np.argmax(by_hand, axis=1))


def test_maps_too_large_to_keep_are_made_again(truth, monkeypatch):
    state = np.arange(40) % 4
    z = state[:, None].astype(float)
    decode = decoder(truth, 0.5)
    kept = per_image_auc(z, state, decode, truth.__getitem__, images=40)
    asked = []

    def on_demand(states):
        asked.append(len(states))
        return truth[states]

    monkeypatch.setattr(comparison, "_CACHE_BYTES", 0)
    monkeypatch.setattr(comparison, "_CHUNK_VOXELS", 2 * BOX**3)
    again = per_image_auc(z, state, decode, on_demand, images=40)
    np.testing.assert_allclose(again.curves, kept.curves)
    assert again.nearest is None
    assert max(asked) <= 2


def test_mask_and_shared_transforms(truth):
    state, z = np.arange(4), np.arange(4.0)[:, None]
    mask = np.zeros((BOX,) * 3)
    mask[4:12, 4:12, 3:10] = 1.0
    decode = decoder(truth, 0.3)
    expected = fsc_auc(decode(z), truth, mask)
    found = per_conformation_auc(z, state, decode, truth.__getitem__, mask)
    np.testing.assert_allclose(found.auc(), expected, atol=1e-6)
    shared = TrueSpectra(truth.__getitem__, [3, 1, 0, 2, 0], mask)
    np.testing.assert_allclose(per_conformation_auc(z, state, decode, shared).auc(), expected, atol=1e-6)


def test_signal_of_the_truth(truth):
    spectra = TrueSpectra(low_pass(truth, 4).__getitem__, np.arange(4))
    np.testing.assert_array_equal(spectra.signal(), [False, False, True, True, True, False, False, False])


def test_boxes_must_agree(truth):
    with pytest.raises(ValueError, match="box of 8 and true ones of 16"):
        per_image_auc(np.zeros((2, 1)), [0, 1], lambda z: np.zeros((len(z), 8, 8, 8)), truth.__getitem__)
