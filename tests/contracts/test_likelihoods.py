"""What every likelihood promises. A new one adds a line to LIKELIHOODS."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from cryoscape.models.likelihoods import CorrelationLikelihood, GaussianLikelihood, MeanSquaredLikelihood
from cryoscape.physics import fourier, gaussians
from tests.models.scenes import BOX, CUTOFF, PIXEL, batch_of, chain

LIKELIHOODS = {
    "gaussian": lambda: GaussianLikelihood(BOX, PIXEL, CUTOFF, n_groups=2),
    "correlation": lambda: CorrelationLikelihood(BOX, PIXEL, CUTOFF, n_groups=2),
    "mse": lambda: MeanSquaredLikelihood(BOX, PIXEL, CUTOFF, n_groups=2),
}


@pytest.fixture(params=LIKELIHOODS)
def build(request):
    return LIKELIHOODS[request.param]


@pytest.fixture
def likelihood(build):
    made = build()
    g = torch.Generator().manual_seed(2)
    made.gain.copy_(20 + 10 * torch.rand(made.gain.shape, generator=g))
    made.noise.copy_(1 + 4 * torch.rand(made.noise.shape, generator=g))
    return made


@pytest.fixture
def scene():
    coords = chain()
    weights = torch.ones(len(coords)) / len(coords)
    batch = batch_of(coords, weights, gain=25.0, noise=3.0, n=6)
    batch.group[3:] = 1
    y = gaussians.project_fourier(coords[None], weights, batch.rotations, BOX, PIXEL)
    return batch, y


def test_one_finite_number_an_image(likelihood, scene):
    batch, y = scene
    value = likelihood.log_prob(batch.images, y, batch.ctf, batch.group)
    assert value.shape == (6,)
    assert value.dtype == torch.float32
    assert torch.isfinite(value).all()


def test_images_do_not_know_of_one_another(likelihood, scene):
    batch, y = scene
    together = likelihood.log_prob(batch.images, y, batch.ctf, batch.group)
    for i in range(6):
        alone = likelihood.log_prob(*(t[i : i + 1] for t in (batch.images, y, batch.ctf, batch.group)))
        torch.testing.assert_close(alone[0], together[i], rtol=1e-4, atol=1e-3)


def test_the_gradient_is_the_slope(likelihood, scene):
    """Along random directions of the projection, by central differences in double precision."""
    batch, y = scene
    likelihood.double()
    images, ctf, y = batch.images.to(torch.complex128), batch.ctf.double(), y.to(torch.complex128)
    leaf = y.clone().requires_grad_()
    (grad,) = torch.autograd.grad(likelihood.log_prob(images, leaf, ctf, batch.group).sum(), leaf)
    g = torch.Generator().manual_seed(0)
    for _ in range(4):
        way = torch.complex(*torch.randn(2, *y.shape, generator=g, dtype=torch.float64))
        ends = [
            likelihood.log_prob(images, y + s * way, ctf, batch.group).sum().item() for s in (1e-5, -1e-5)
        ]
        slope = (grad.real * way.real + grad.imag * way.imag).sum().item()
        assert slope == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-5)


def test_what_lies_outside_the_band_does_not_count(likelihood, scene):
    batch, y = scene
    outside = (likelihood.weights == 0).float()
    assert float(outside.sum()) > 0
    args = (y, batch.ctf, batch.group)
    before = likelihood.log_prob(batch.images, *args)
    assert torch.equal(before, likelihood.log_prob(batch.images + 100 * outside, *args))
    after = likelihood.log_prob(batch.images, y + 100 * outside, batch.ctf, batch.group)
    torch.testing.assert_close(before, after)


def test_turning_image_and_projection_alike_changes_nothing(likelihood, scene):
    """A common shift multiplies both by the same phases."""
    batch, y = scene
    shift = torch.tensor([[3.0, -5.0]]).expand(6, -1)
    ramp = fourier.shift_phase(shift, fourier.frequency_grid(BOX, PIXEL))
    before = likelihood.log_prob(batch.images, y, batch.ctf, batch.group)
    after = likelihood.log_prob(batch.images * ramp, y * ramp, batch.ctf, batch.group)
    torch.testing.assert_close(before, after, rtol=1e-4, atol=1e-2)
    alone = likelihood.log_prob(batch.images * ramp, y, batch.ctf, batch.group)
    assert float((before - alone).abs().min()) > 1.0


def test_saved_and_loaded_it_is_the_same(build, likelihood, scene, tmp_path):
    batch, y = scene
    args = (batch.images, y, batch.ctf, batch.group)
    save_file(likelihood.state_dict(), tmp_path / "l.safetensors")
    new = build()
    assert not torch.equal(new.log_prob(*args), likelihood.log_prob(*args))
    new.load_state_dict(load_file(tmp_path / "l.safetensors"))
    assert torch.equal(new.log_prob(*args), likelihood.log_prob(*args))


def test_an_empty_prediction_is_worth_nothing(likelihood, scene):
    batch, y = scene
    value = likelihood.log_prob(batch.images, torch.zeros_like(y), batch.ctf, batch.group)
    torch.testing.assert_close(value, torch.zeros(6))
