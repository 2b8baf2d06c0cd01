import pytest
import torch

from cryoscape.models.encoders import Encoder


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
