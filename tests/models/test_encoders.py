import pytest
import torch

from cryoscape.models.encoders import LARGEST_LOGIT, Encoder, GivenPosterior
from cryoscape.models.posteriors import Bernoulli
from cryoscape.models.relaxations import Exponential, Power


def test_features_are_standardised():
    encoder = Encoder(4, 2)
    features = torch.randn(500, 4) * torch.tensor([1e-6, 1.0, 1e3, 5.0]) + torch.tensor(
        [1e-5, 0.0, -1e4, 2.0]
    )
    encoder.standardise(features)
    seen = (features - encoder.feature_mean) * encoder.feature_scale
    torch.testing.assert_close(seen.mean(0), torch.zeros(4), atol=1e-3, rtol=0)
    torch.testing.assert_close(seen.std(0, correction=0), torch.ones(4), atol=1e-3, rtol=0)


def test_a_feature_that_never_varied_says_nothing():
    """A grid point outside every image is constant in the sample; a stray value later must not explode."""
    encoder = Encoder(3, 2)
    features = torch.randn(200, 3)
    features[:, 1] = 0.25
    encoder.standardise(features)
    stray = features[:4].clone()
    stray[:, 1] += 1e-3
    torch.testing.assert_close(encoder(stray).mean, encoder(features[:4]).mean)


def test_one_particle_can_be_standardised():
    encoder = Encoder(3, 2)
    features = torch.randn(1, 3)
    encoder.standardise(features)
    assert torch.isfinite(encoder(features).mean).all()


def test_the_start_is_near_the_prior():
    """At first the posterior neither collapses to a point nor lies far out."""
    encoder = Encoder(30, 4)
    with torch.no_grad():
        q = encoder(torch.randn(200, 30))
    assert float(q.mean.abs().max()) < 1.0
    assert float(q.log_var.abs().max()) < 1.0


@pytest.mark.parametrize("network", ["mlp", "residual", "cnn"])
def test_standardisation_is_part_of_the_saved_state(network):
    encoder = Encoder(16, 2, network=network, hidden=(8, 8))
    assert {"feature_mean", "feature_scale"} <= set(encoder.state_dict())


def binary(**options):
    return Encoder(30, 4, support="binary", **options)


@pytest.mark.parametrize("linear", [False, True])
def test_bits_have_one_output_each(linear):
    encoder = binary(linear=linear, relaxation=Power(25.0))
    assert encoder.network[-1].out_features == 4
    q = encoder(torch.randn(7, 30))
    assert isinstance(q, Bernoulli)
    assert q.logits.shape == (7, 4)
    assert q.relaxation == Power(25.0)
    assert binary()(torch.randn(2, 30)).relaxation == Exponential()


def test_bits_start_undecided():
    encoder = binary()
    with torch.no_grad():
        q = encoder(torch.randn(200, 30))
    assert 0.25 < float(q.mean.min()) < float(q.mean.max()) < 0.75


def test_logits_are_bounded():
    encoder = binary()
    with torch.no_grad():
        encoder.network[-1].weight.mul_(1e6)
        q = encoder(torch.randn(50, 30))
    assert float(q.logits.abs().max()) == LARGEST_LOGIT
    assert torch.isfinite(q.entropy()).all()
    assert float(q.mean.max()) < 1
    assert float(q.mean.min()) > 0


def test_an_encoder_of_bits_learns_a_rule():
    """Which of two features is larger, through the relaxation alone."""
    torch.manual_seed(1)
    encoder = Encoder(2, 1, hidden=(16,), support="binary")
    features = torch.randn(512, 2)
    truth = (features[:, :1] > features[:, 1:]).float()
    optimizer = torch.optim.Adam(encoder.parameters(), lr=1e-2)
    for step in range(150):
        zeta = encoder(features).rsample(1, torch.Generator().manual_seed(step))[0]
        optimizer.zero_grad()
        (zeta - truth).square().mean().backward()
        optimizer.step()
    assert float(((encoder(features).mean > 0.5).float() == truth).float().mean()) > 0.95


def test_given_posteriors_are_handed_through():
    features = torch.randn(5, 6)
    q = GivenPosterior(3)(features)
    assert torch.equal(q.mean, features[:, :3])
    assert torch.equal(q.log_var, features[:, 3:])
    logits = torch.tensor([[0.5, -3.0, torch.inf]])
    q = GivenPosterior(3, "binary", Power(25.0))(logits)
    assert q.logits.tolist() == [[0.5, -3.0, LARGEST_LOGIT]]
    assert q.relaxation == Power(25.0)
