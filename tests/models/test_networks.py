import pytest
import torch

from cryoscape.models.networks import ConvolutionalNetwork, ResidualBlock, mlp, residual_mlp, shrink_


@pytest.mark.parametrize("activation", ["relu", "silu", "gelu", "leaky_relu"])
def test_mlp_is_the_chain_of_its_layers(activation):
    net = mlp(5, (7, 3), 2, activation)
    shapes = [tuple(layer.weight.shape) for layer in net if hasattr(layer, "weight")]
    assert shapes == [(7, 5), (3, 7), (2, 3)]
    x = torch.randn(4, 5)
    act = getattr(torch.nn.functional, activation)
    want = net[4](act(net[2](act(net[0](x)))))
    torch.testing.assert_close(net(x), want)


def test_mlp_without_hidden_layers_is_linear():
    net = mlp(3, (), 2)
    x = torch.randn(4, 3)
    torch.testing.assert_close(net(x), x @ net[0].weight.T + net[0].bias)


def test_a_residual_block_with_a_silent_body_hands_x_on():
    block = ResidualBlock(4)
    shrink_(block.body[-1], 0.0)
    x = torch.rand(3, 4)
    torch.testing.assert_close(block(x), x)


def test_residual_mlp_has_a_block_for_every_further_width():
    net = residual_mlp(5, (8, 8, 8), 2)
    assert sum(isinstance(layer, ResidualBlock) for layer in net) == 2
    assert net(torch.randn(6, 5)).shape == (6, 2)


@pytest.mark.parametrize("side", [4, 15, 16, 33, 64])
def test_convolutions_take_any_side(side):
    net = ConvolutionalNetwork(side, (32,), 5)
    assert net(torch.randn(2, side * side)).shape == (2, 5)


def test_convolutions_see_rows_and_columns_of_the_flat_image():
    """The image laid out in another order is another image."""
    net = ConvolutionalNetwork(16, (8,), 3)
    x = torch.randn(1, 16, 16)
    straight, transposed = net(x.flatten(1)), net(x.transpose(1, 2).flatten(1))
    assert float((straight - transposed).abs().max()) > 1e-3


def test_shrink_scales_weights_and_clears_the_bias():
    layer = torch.nn.Linear(3, 2)
    before = layer.weight.detach().clone()
    shrink_(layer, 0.25)
    torch.testing.assert_close(layer.weight, 0.25 * before)
    assert torch.equal(layer.bias, torch.zeros(2))
    assert layer.weight.requires_grad
