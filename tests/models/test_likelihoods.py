import math

import numpy as np
import pytest
import torch

from cryoscape.models.likelihoods import CorrelationLikelihood, GaussianLikelihood, MeanSquaredLikelihood
from cryoscape.physics import fourier, gaussians
from tests.models.scenes import BOX, CUTOFF, PIXEL, batch_of, chain

LIKELIHOODS = [GaussianLikelihood, CorrelationLikelihood]


def setup(noise=4.0, n=200, gain=3.0):
    coords = chain()
    weights = torch.ones(len(coords)) / len(coords)
    batch = batch_of(coords, weights, gain=gain, noise=noise, n=n)
    y = gaussians.project_fourier(coords[None], weights, batch.rotations, BOX, PIXEL)
    return coords, weights, batch, y


def test_nats_equal_the_log_density_ratio_of_real_pixels():
    """Band = all below Nyquist: the same number from pixels in real space, by scipy's normal density."""
    from scipy.stats import norm

    _, _, batch, y = setup(noise=2.5, n=3)
    likelihood = GaussianLikelihood(BOX, PIXEL, 2 * PIXEL)
    likelihood.gain.fill_(3.0)
    likelihood.noise.fill_(2.5)
    inside = likelihood.weights > 0
    got = likelihood.log_prob(batch.images, y, batch.ctf, batch.group)
    model = fourier.inverse(3.0 * batch.ctf * y * inside, BOX).numpy()
    data = fourier.inverse(batch.images * inside, BOX).numpy()
    sd = math.sqrt(2.5)
    want = (norm.logpdf(data, model, sd) - norm.logpdf(data, 0.0, sd)).sum((1, 2))
    np.testing.assert_allclose(got.numpy(), want, rtol=1e-4)


def test_calibration_recovers_gain_and_noise():
    _, _, batch, y = setup(noise=4.0, n=400, gain=30.0)
    likelihood = GaussianLikelihood(BOX, PIXEL, CUTOFF)
    likelihood.fit(likelihood.accumulate(batch.images, y, batch.ctf, batch.group))
    np.testing.assert_allclose(likelihood.noise[0, 1:], 4.0, rtol=0.1)
    np.testing.assert_allclose(likelihood.gain[0, 2:8], 30.0, rtol=0.15)


def test_expected_nats_of_the_true_model_are_half_the_signal_to_noise():
    """E log p(x|truth)/p(x|nothing) = sum |signal|^2 / (2 s2)."""
    _, _, batch, y = setup(noise=4.0, n=2000, gain=5.0)
    likelihood = GaussianLikelihood(BOX, PIXEL, CUTOFF)
    likelihood.gain.fill_(5.0)
    likelihood.noise.fill_(4.0)
    signal = (5.0 * batch.ctf * y).abs().square() * likelihood.weights
    want = signal.sum((1, 2)) / 8.0
    got = likelihood.log_prob(batch.images, y, batch.ctf, batch.group)
    error = float((got - want).std()) / math.sqrt(len(got))
    assert abs(float(got.mean() - want.mean())) < 4 * error


def test_groups_get_their_own_noise():
    coords, weights, loud, y = setup(noise=9.0, n=100)
    quiet = batch_of(coords, weights, gain=3.0, noise=1.0, n=100, seed=5)
    y2 = gaussians.project_fourier(coords[None], weights, quiet.rotations, BOX, PIXEL)
    likelihood = GaussianLikelihood(BOX, PIXEL, CUTOFF, n_groups=2)
    group = torch.cat([torch.zeros(100), torch.ones(100)]).long()
    images, ys = torch.cat([loud.images, quiet.images]), torch.cat([y, y2])
    likelihood.fit(likelihood.accumulate(images, ys, torch.cat([loud.ctf, quiet.ctf]), group))
    assert abs(float(likelihood.noise[0, 2:].mean()) - 9.0) < 0.5
    assert abs(float(likelihood.noise[1, 2:].mean()) - 1.0) < 0.1


def test_observing_a_better_model_lowers_the_noise_estimate():
    _coords, weights, batch, y = setup(noise=1.0, n=200, gain=30.0)
    wrong = gaussians.project_fourier(chain(seed=9)[None], weights, batch.rotations, BOX, PIXEL)
    likelihood = GaussianLikelihood(BOX, PIXEL, CUTOFF, memory=0.5)
    likelihood.fit(likelihood.accumulate(batch.images, wrong, batch.ctf, batch.group))
    before = likelihood.noise.clone()
    for _ in range(12):
        likelihood.observe(batch.images, y, batch.ctf, batch.group)
    assert float(likelihood.noise[0, 2:6].mean()) < 0.9 * float(before[0, 2:6].mean())


@pytest.mark.parametrize("kind", LIKELIHOODS)
def test_the_truth_scores_above_another_structure(kind):
    _coords, weights, batch, y = setup(noise=20.0, gain=30.0)
    likelihood = kind(BOX, PIXEL, CUTOFF)
    likelihood.gain.fill_(30.0)
    likelihood.noise.fill_(20.0)
    other = gaussians.project_fourier(chain(seed=3)[None], weights, batch.rotations, BOX, PIXEL)
    args = (batch.ctf, batch.group)
    assert float((likelihood.log_prob(batch.images, y, *args)).mean()) > float(
        likelihood.log_prob(batch.images, other, *args).mean()
    )


@pytest.mark.parametrize("kind", LIKELIHOODS)
def test_shapes_and_finite_gradient(kind):
    _, weights, batch, _ = setup(n=5)
    coords = chain().clone().requires_grad_()
    likelihood = kind(BOX, PIXEL, CUTOFF)
    y = gaussians.project_fourier(coords[None].expand(5, -1, -1), weights, batch.rotations, BOX, PIXEL)
    value = likelihood.log_prob(batch.images, y, batch.ctf, batch.group)
    assert value.shape == (5,)
    value.sum().backward()
    assert torch.isfinite(coords.grad).all()


def test_correlation_ignores_the_scale_of_the_image():
    _, _, batch, y = setup(n=6)
    likelihood = CorrelationLikelihood(BOX, PIXEL, CUTOFF)
    a = likelihood.log_prob(batch.images, y, batch.ctf, batch.group)
    b = likelihood.log_prob(7.0 * batch.images, y, batch.ctf, batch.group)
    torch.testing.assert_close(a, b)
    assert float((a / likelihood.weights.sum()).abs().max()) <= 1.0


def test_the_squared_error_is_that_of_pixels_in_units_of_their_variance():
    """Against real-space images of the band: what a projection takes off the sum of squares."""
    _, _, batch, y = setup(n=6)
    likelihood = MeanSquaredLikelihood(BOX, PIXEL, CUTOFF)
    likelihood.fit(likelihood.accumulate(batch.images, y, batch.ctf, batch.group))
    inside = likelihood.weights > 0
    x, model = (fourier.inverse(v * inside, BOX).double() for v in (batch.images, batch.ctf * y))
    # A band of n real degrees of freedom of variance v adds up to n v.
    variance = float(x.square().sum((1, 2)).mean() / likelihood.weights.sum())
    want = (x.square().sum((1, 2)) - (x - model).square().sum((1, 2))) / variance
    got = likelihood.log_prob(batch.images, y, batch.ctf, batch.group)
    torch.testing.assert_close(got.double(), want, rtol=1e-3, atol=1e-3)
    before = likelihood.noise.clone()
    likelihood.observe(batch.images, 3 * y, batch.ctf, batch.group)
    assert torch.equal(before, likelihood.noise)
    assert torch.equal(likelihood.gain, torch.ones_like(likelihood.gain))


def test_noise_is_unbiased_where_projections_hold_a_random_part():
    _, _, batch, y = setup(n=200)
    args = (batch.ctf, batch.group)
    whole, part, naive = (GaussianLikelihood(BOX, PIXEL, CUTOFF, memory=0.9) for _ in range(3))
    g = torch.Generator().manual_seed(0)
    for _ in range(60):
        some = y * (torch.rand(y.shape, generator=g) < 0.3)
        whole.observe(batch.images, 30 * y, *args)
        part.observe(batch.images, 30 * some, *args, 0.3)
        naive.observe(batch.images, 30 * some, *args)
    shells = slice(2, whole.n_shells)
    torch.testing.assert_close(part.noise[:, shells], whole.noise[:, shells], rtol=0.05, atol=0)
    assert float((naive.noise / whole.noise)[:, shells].max()) > 1.1
