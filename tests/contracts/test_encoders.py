"""What every encoder promises: features of every kind, through every network."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from cryoscape.models.decoders.atomic import AtomicDecoder
from cryoscape.models.encoders import LARGEST_LOGIT, Encoder
from cryoscape.models.features import field_grid
from cryoscape.models.image_model import FeatureMap, FeatureSettings, ImageModel
from cryoscape.models.likelihoods import GaussianLikelihood
from cryoscape.models.posteriors import Bernoulli
from cryoscape.models.relaxations import RELAXATIONS, build_relaxation
from cryoscape.models.scattering import BeadScatterers
from tests.models.scenes import BOX, CUTOFF, PIXEL, batch_of, chain

KINDS = {
    "image": ("image",),
    "score": ("score",),
    "field": ("field",),
    "image+score": ("image", "score"),
    "score+field": ("score", "field"),
    "image+score+field": ("image", "score", "field"),
}
NETWORKS = ("mlp", "residual", "cnn")
# Convolutions need a square image.
CASES = [(k, n) for k in KINDS for n in NETWORKS if n != "cnn" or k == "image"]
Z, WINDOW = 3, 20


def build(kind, network):
    coords = chain()
    scatterers = BeadScatterers(torch.ones(len(coords)))
    likelihood = GaussianLikelihood(BOX, PIXEL, CUTOFF)
    likelihood.gain.fill_(25.0)
    feature_map = FeatureMap(
        FeatureSettings(KINDS[kind], WINDOW), coords, likelihood, field_grid(coords, 8.0, 15.0)
    )
    encoder = Encoder(feature_map.size, Z, network=network, hidden=(24, 24))
    decoder = AtomicDecoder(Z, coords, scatterers, hidden=(8,))
    return ImageModel(feature_map, encoder, decoder, likelihood)


@pytest.fixture(params=CASES, ids="-".join)
def case(request):
    return request.param


@pytest.fixture
def model(case):
    return build(*case)


@pytest.fixture(scope="module")
def batch():
    coords = chain()
    return batch_of(coords, torch.ones(len(coords)) / len(coords), gain=25.0, noise=1.0, n=16)


def test_shapes_and_precision(model, batch):
    features = model.features(batch)
    assert features.shape == (16, model.feature_map.size)
    assert features.dtype == torch.float32
    assert not features.requires_grad
    q = model.posterior(features)
    assert q.mean.shape == q.log_var.shape == (16, Z)
    assert q.mean.dtype == torch.float32


def test_every_image_has_its_own_posterior(model, batch):
    features = model.features(batch)
    model.encoder.standardise(features)
    q = model.posterior(features)
    assert float(q.mean.std(0).min()) > 1e-3
    assert float(q.log_var.std(0).min()) > 1e-3


def test_gradients_reach_all_parameters(model, batch):
    features = model.features(batch)
    model.encoder.standardise(features)
    q = model.posterior(features)
    (q.mean.square().sum() + q.log_var.exp().sum()).backward()
    for name, parameter in model.encoder.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert float(parameter.grad.abs().max()) > 0, name


def test_saved_and_loaded_it_is_the_same(case, model, batch, tmp_path):
    model.encoder.standardise(model.features(batch))
    model.feature_map.take_anchor(chain(seed=4), model.likelihood)
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, tmp_path / "m.safetensors")
    torch.manual_seed(5)
    new = build(*case)
    means = [m.posterior(m.features(batch)).mean for m in (model, new)]
    assert not torch.equal(*means)
    new.load_state_dict(load_file(tmp_path / "m.safetensors"))
    assert torch.equal(means[0], new.posterior(new.features(batch)).mean)


def test_images_do_not_know_of_one_another(model, batch):
    features = model.features(batch)
    model.encoder.standardise(features)
    together = model.posterior(features).mean
    torch.testing.assert_close(model.posterior(features[5:6]).mean[0], together[5], rtol=1e-4, atol=1e-5)


def test_a_monstrous_image_gives_a_finite_kl(model, batch):
    q = model.posterior(1e6 * model.features(batch))
    assert torch.isfinite(q.log_var).all()
    assert float(q.log_var.max()) <= 6.0
    assert float(q.log_var.min()) >= -18.0


# -- bits: the same features and networks, a Bernoulli posterior ---------------------------------


def build_binary(kind, network, relaxation="exponential"):
    model = build(kind, network)
    model.encoder = Encoder(
        model.feature_map.size,
        Z,
        network=network,
        hidden=(24, 24),
        support="binary",
        relaxation=build_relaxation(relaxation),
    )
    return model


@pytest.fixture
def bits(case):
    return build_binary(*case)


def test_bits_have_shapes_precision_and_values_of_their_own(bits, batch):
    features = bits.features(batch)
    bits.encoder.standardise(features)
    q = bits.posterior(features)
    assert isinstance(q, Bernoulli)
    assert q.logits.shape == (16, Z)
    assert q.logits.dtype == torch.float32
    assert q.rsample(2).shape == q.sample(2).shape == (2, 16, Z)
    assert float(q.logits.std(0).min()) > 1e-3


@pytest.mark.parametrize("relaxation", RELAXATIONS)
def test_gradients_through_relaxed_bits_reach_all_parameters(case, batch, relaxation):
    model = build_binary(*case, relaxation)
    features = model.features(batch)
    model.encoder.standardise(features)
    q = model.posterior(features)
    zeta = q.rsample(1, torch.Generator().manual_seed(0))[0]
    ((zeta - 0.3).square().sum() - q.entropy().sum()).backward()
    for name, parameter in model.encoder.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert float(parameter.grad.abs().max()) > 0, name


def test_saved_and_loaded_bits_are_the_same(case, bits, batch, tmp_path):
    bits.encoder.standardise(bits.features(batch))
    save_file({k: v.contiguous() for k, v in bits.state_dict().items()}, tmp_path / "m.safetensors")
    torch.manual_seed(5)
    new = build_binary(*case)
    new.load_state_dict(load_file(tmp_path / "m.safetensors"))
    logits = [m.posterior(m.features(batch)).logits for m in (bits, new)]
    assert torch.equal(*logits)


def test_a_monstrous_image_gives_finite_bits(bits, batch):
    q = bits.posterior(1e6 * bits.features(batch))
    assert float(q.logits.abs().max()) <= LARGEST_LOGIT
    assert torch.isfinite(q.rsample(3)).all()
    assert torch.isfinite(q.entropy()).all()
