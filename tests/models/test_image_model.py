import pytest
import torch

from cryoscape.models.decoders.atomic import AtomicDecoder
from cryoscape.models.encoders import Encoder
from cryoscape.models.features import field_grid
from cryoscape.models.image_model import FeatureMap, FeatureSettings, ImageModel
from cryoscape.models.likelihoods import GaussianLikelihood
from cryoscape.models.scattering import BeadScatterers
from tests.models.scenes import BOX, CUTOFF, PIXEL, batch_of, chain


def build(kinds=("score",), **more):
    coords = chain()
    scatterers = BeadScatterers(torch.ones(len(coords)))
    likelihood = GaussianLikelihood(BOX, PIXEL, CUTOFF)
    likelihood.gain.fill_(25.0)
    feature_map = FeatureMap(
        FeatureSettings(kinds, 20, **more), coords, likelihood, field_grid(coords, 8.0, 15.0)
    )
    encoder = Encoder(feature_map.size, 2, hidden=(16,))
    return ImageModel(feature_map, encoder, AtomicDecoder(2, coords, scatterers, hidden=(8,)), likelihood)


@pytest.fixture
def batch():
    coords = chain()
    return batch_of(coords, torch.ones(len(coords)) / len(coords), gain=25.0, noise=1.0, n=12)


def test_parts_of_the_features_stand_side_by_side(batch):
    one, two, both = build(("score",)), build(("image",)), build(("score", "image"))
    assert both.feature_map.size == one.feature_map.size + two.feature_map.size
    torch.testing.assert_close(both.features(batch), torch.cat([one.features(batch), two.features(batch)], 1))


def test_score_features_of_long_chains_are_pooled(batch):
    model = build(max_beads=10)
    assert model.feature_map.size == 30
    assert model.features(batch).shape == (12, 30)
    whole = build().features(batch).view(12, 30, 3)
    pooled = whole.view(12, 10, 3, 3).sum(2) / 3**0.5
    torch.testing.assert_close(model.features(batch), pooled.flatten(1), rtol=1e-4, atol=1e-4)


def test_features_keep_their_meaning_while_gain_and_noise_move(batch):
    model = build(("score", "image", "field"))
    before = model.features(batch)
    model.likelihood.gain.mul_(3.0)
    model.likelihood.noise.mul_(0.5)
    assert torch.equal(before, model.features(batch))
    model.feature_map.take_anchor(model.decoder.reference, model.likelihood)
    assert not torch.equal(before, model.features(batch))


def test_taking_an_anchor_does_not_touch_the_decoder(batch):
    model = build()
    before = model.features(batch)
    model.feature_map.take_anchor(chain(seed=5), model.likelihood)
    assert torch.equal(model.decoder.reference, chain())
    assert float((model.features(batch) - before).abs().max()) > 0.1


def test_a_structure_is_as_likely_as_the_latent_that_decodes_to_it(batch):
    model = build()
    z = torch.randn(1, 2).expand(12, -1)
    with torch.no_grad():
        coords = model.decoder.coordinates(z)[0]
        torch.testing.assert_close(
            model.scene_log_likelihood(model.decoder.scene(coords[None]), batch),
            model.log_likelihood(z, batch),
            rtol=1e-5,
            atol=1e-3,
        )


def test_moving_a_batch_keeps_everything(batch):
    moved = batch.to(torch.device("cpu"))
    for name in ("rows", "images", "ctf", "rotations", "group"):
        assert torch.equal(getattr(moved, name), getattr(batch, name))
