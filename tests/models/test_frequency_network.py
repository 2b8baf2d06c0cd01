"""The perceptron of (k, z): layers by hand, gradients by slopes, memory and precision."""

import math

import pytest
import torch

from cryoscape.models import frequency_network
from cryoscape.models.frequency_network import FrequencyNetwork
from cryoscape.models.positional import encode, gaussian_positions, geometric_positions


def seeded(n=0):
    return torch.Generator().manual_seed(n)


def build(activation="relu", n_out=2, dtype=torch.float64):
    torch.manual_seed(0)
    return FrequencyNetwork(3, gaussian_positions(5, 0.1, seeded(1)), (8, 8, 8), n_out, activation).to(dtype)


def inputs(dtype=torch.float64):
    k = 4 * torch.randn(4, 6, 3, generator=seeded(2), dtype=dtype)
    return k, torch.randn(4, 3, generator=seeded(3), dtype=dtype)


def by_hand(net, k, z, slope):
    """One point and one latent at a time, in plain Python arithmetic on the layers."""
    out = torch.zeros(*k.shape[:2], len(net.last), dtype=k.dtype)
    bias = z @ net.condition.weight.T + net.condition.bias
    width, n_out = net.last.shape[1], len(net.last)
    for b in range(len(k)):
        layers = bias[b, n_out:].reshape(-1, width)
        for p in range(k.shape[1]):
            phase = [2 * math.pi * float(k[b, p] @ x) for x in net.positions.to(k.dtype).T]
            wave = torch.tensor([*map(math.cos, phase), *map(math.sin, phase)], dtype=k.dtype)
            h = net.first @ wave + layers[0]
            h = torch.where(h > 0, h, slope * h)
            for w, c in zip(net.residual, layers[1:]):
                h = h + w @ h + c
                h = torch.where(h > 0, h, slope * h)
            out[b, p] = net.last @ h + bias[b, :n_out]
    return out


@pytest.mark.parametrize(("activation", "slope"), [("relu", 0.0), ("leaky_relu", 0.01)])
def test_layers_are_those_of_the_formula(activation, slope):
    net = build(activation)
    k, z = inputs()
    torch.testing.assert_close(net(k, net.conditions(z)), by_hand(net, k, z, slope))


def gradients(net, k, z):
    net.zero_grad()
    k, z = k.clone().requires_grad_(), z.clone().requires_grad_()
    net(k, net.conditions(z)).square().sum().backward()
    return [k.grad, z.grad, *(p.grad.clone() for p in net.parameters())]


@pytest.mark.parametrize("activation", ["relu", "leaky_relu"])
def test_gradients_are_those_of_the_formula(activation):
    net = build(activation)
    k, z = inputs()
    got = gradients(net, k, z)
    net.zero_grad()
    leaf_k, leaf_z = k.clone().requires_grad_(), z.clone().requires_grad_()
    wave = encode(leaf_k.view(-1, 3), net.positions.double())
    bias = net.conditions(leaf_z)
    layers = bias[:, 2:].unflatten(1, (-1, 8))[:, :, None]
    f = torch.nn.LeakyReLU(0.01 if activation == "leaky_relu" else 0.0)
    h = f((wave @ net.first.T).view(4, 6, 8) + layers[:, 0])
    for i, w in enumerate(net.residual):
        h = f(h + h @ w.T + layers[:, i + 1])
    (h @ net.last.T + bias[:, None, :2]).square().sum().backward()
    for a, b in zip(got, [leaf_k.grad, leaf_z.grad, *(p.grad for p in net.parameters())]):
        torch.testing.assert_close(a, b)


def test_without_memory_for_activations_gradients_are_the_same(monkeypatch):
    net = build()
    k, z = inputs()
    kept = gradients(net, k, z)
    monkeypatch.setattr(frequency_network, "KEPT_MEMORY", 0)
    for a, b in zip(kept, gradients(net, k, z)):
        assert torch.equal(a, b)


def test_under_mixed_precision_only_products_are_rounded():
    """Two frequencies whose bfloat16 values are the same still give different waves."""
    net = build(dtype=torch.float32)
    k, z = inputs(torch.float32)
    k = k + 1000.0
    exact = net(k, net.conditions(z)).detach()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = net(k, net.conditions(z).float())
    assert rounded.dtype == torch.float32
    scale = float(exact.abs().max())
    assert 0 < float((rounded - exact).detach().abs().max()) < 0.03 * scale
    coarse = net(k.bfloat16().float(), net.conditions(z))
    assert float((coarse - exact).detach().abs().max()) > 0.2 * scale


def test_layers_of_different_width_are_refused():
    with pytest.raises(ValueError, match="one width"):
        FrequencyNetwork(3, gaussian_positions(5, 0.1), (8, 16))


def test_gaussian_positions_have_their_spread():
    x = gaussian_positions(4000, 0.07, seeded())
    assert x.shape == (3, 4000)
    torch.testing.assert_close(x.std(1), torch.full((3,), 0.07), rtol=0.05, atol=0)
    assert float(x.mean(1).abs().max()) < 0.005


def test_geometric_positions_lie_on_the_axes_in_progression():
    x = geometric_positions(12, 1 / 64, 1 / 2)
    want = [1 / 64 * 32 ** (i / 3) for i in range(4)]
    for axis in range(3):
        block = x[:, 4 * axis : 4 * axis + 4]
        torch.testing.assert_close(block[axis], torch.tensor(want))
        assert float(block.abs().sum()) == pytest.approx(sum(want))


def test_waves_are_what_a_point_scatters():
    """Cosine minus i sine at k is the transform of a point at x, summed by hand."""
    k = torch.tensor([[3.0, -2.0, 5.0], [0.0, 1.0, 0.0]])
    x = torch.tensor([[0.1, -0.3], [0.25, 0.0], [-0.05, 0.4]])
    wave = encode(k, x)
    for p in range(2):
        for n in range(2):
            phase = 2 * math.pi * sum(float(k[p, i] * x[i, n]) for i in range(3))
            assert float(wave[p, n]) == pytest.approx(math.cos(phase), abs=1e-5)
            assert float(wave[p, 2 + n]) == pytest.approx(math.sin(phase), abs=1e-5)
