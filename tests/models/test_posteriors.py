import math

import numpy as np
import pytest
import torch
from scipy.stats import bernoulli, norm

from cryoscape.models.posteriors import Bernoulli, DiagonalGaussian
from cryoscape.models.relaxations import RELAXATIONS, Power, build_relaxation


def posterior(dtype=torch.float32):
    g = torch.Generator().manual_seed(0)
    return DiagonalGaussian(
        torch.randn(4, 3, generator=g, dtype=dtype), torch.randn(4, 3, generator=g, dtype=dtype)
    )


def test_log_density_and_entropy_of_scipy():
    q = posterior(torch.float64)
    z = torch.randn(5, 4, 3, dtype=torch.float64)
    sd = np.exp(q.log_var.numpy() / 2)
    want = norm.logpdf(z.numpy(), q.mean.numpy(), sd).sum(-1)
    np.testing.assert_allclose(q.log_prob(z), want)
    np.testing.assert_allclose(q.stddev, sd)
    np.testing.assert_allclose(q.entropy(), norm.entropy(q.mean.numpy(), sd).sum(-1))


def test_samples_have_its_mean_and_width():
    q = posterior()
    z = q.rsample(40_000, torch.Generator().manual_seed(1))
    assert z.shape == (40_000, 4, 3)
    assert float(((z.mean(0) - q.mean) / q.stddev).abs().max()) < 5 / 40_000**0.5
    assert float((z.std(0) / q.stddev - 1).abs().max()) < 0.02


def test_a_seed_gives_the_same_noise_whatever_the_parameters():
    q, other = posterior(), DiagonalGaussian(torch.zeros(4, 3), torch.zeros(4, 3))
    a = (q.rsample(2, torch.Generator().manual_seed(5)) - q.mean) / q.stddev
    b = other.rsample(2, torch.Generator().manual_seed(5))
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_samples_are_reparameterised():
    """dz/dmean = 1 and dz/dlog_var = (z - mean) / 2."""
    mean, log_var = torch.zeros(1, 2, requires_grad=True), torch.ones(1, 2, requires_grad=True)
    z = DiagonalGaussian(mean, log_var).rsample(1, torch.Generator().manual_seed(2))
    z.sum().backward()
    torch.testing.assert_close(mean.grad, torch.ones(1, 2))
    torch.testing.assert_close(log_var.grad, (z[0] / 2).detach())


# -- bits --------------------------------------------------------------------------------------


def bits(dtype=torch.float32, relaxation=None):
    logits = 2 * torch.randn(4, 3, generator=torch.Generator().manual_seed(0), dtype=dtype)
    return Bernoulli(logits) if relaxation is None else Bernoulli(logits, relaxation)


def test_bits_have_the_numbers_of_scipy():
    q = bits(torch.float64)
    p = 1 / (1 + np.exp(-q.logits.numpy()))
    z = torch.randint(0, 2, (5, 4, 3)).double()
    np.testing.assert_allclose(q.mean, p)
    np.testing.assert_allclose(q.stddev, bernoulli.std(p))
    np.testing.assert_allclose(q.entropy(), bernoulli.entropy(p).sum(-1))
    np.testing.assert_allclose(q.log_prob(z), bernoulli.logpmf(z.numpy(), p).sum(-1))


def test_entropy_of_nearly_certain_bits_keeps_its_digits():
    """-log(1 - p) p and so on in double precision of the standard library."""
    for logit in (-12.0, 12.0, 30.0):
        p = 1 / (1 + math.exp(abs(logit)))
        want = -p * math.log(p) - (1 - p) * math.log1p(-p)
        got = Bernoulli(torch.tensor([[logit]])).entropy()
        assert float(got) == pytest.approx(want, rel=1e-5)


def test_entropy_has_the_slope_it_should():
    logits = torch.tensor([[-3.0, 0.0, 0.7, 9.0]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: Bernoulli(x).entropy(), (logits,))


def test_hard_samples_are_bits_in_the_right_shares():
    q = bits()
    z = q.sample(40_000, torch.Generator().manual_seed(1))
    assert z.shape == (40_000, 4, 3)
    assert z.dtype == torch.float32
    assert set(z.unique().tolist()) == {0.0, 1.0}
    assert float(((z.mean(0) - q.mean) / q.stddev).abs().max()) < 4.5 / 40_000**0.5
    pairs = torch.einsum("kbi,kbj->bij", z, z) / len(z) - q.mean[:, :, None] * q.mean[:, None]
    pairs.diagonal(dim1=1, dim2=2).zero_()
    assert float(pairs.abs().max()) < 5 * 0.25 / 40_000**0.5


@pytest.mark.parametrize("name", RELAXATIONS)
def test_relaxed_samples_follow_the_logits(name):
    """Shape, range, the side of the same seed's bits, and a gradient in the logits only."""
    logits = bits().logits.clone().requires_grad_()
    q = Bernoulli(logits, build_relaxation(name))
    zeta = q.rsample(500, torch.Generator().manual_seed(3))
    hard = q.sample(500, torch.Generator().manual_seed(3))
    assert zeta.shape == (500, 4, 3)
    assert not hard.requires_grad
    if name != "gaussian":
        assert float(zeta.detach().min()) >= 0
        assert float(zeta.detach().max()) <= 1
    agree = ((zeta.detach() > 0.5).float() == hard).float().mean()
    # A power of 30 has 2.3 % of its mass beyond the middle.
    assert float(agree) > 0.97
    zeta.mean(0).sum().backward()
    # A larger logit moves every sample up, on average by q (1 - q) times the distance of the two means.
    move = logits.grad / q.stddev.detach().square()
    assert float(move.mean()) == pytest.approx(0.9, abs=0.15)


def test_relaxed_density_is_the_mixture():
    """Sum over bits of log ((1 - p) r0 + p r1), written out for the exponential."""
    q = bits(torch.float64)
    zeta, p = torch.rand(6, 4, 3, dtype=torch.float64), 1 / (1 + np.exp(-bits(torch.float64).logits.numpy()))
    norm = 10 / (1 - math.exp(-10))
    r0, r1 = norm * np.exp(-10 * zeta.numpy()), norm * np.exp(10 * (zeta.numpy() - 1))
    np.testing.assert_allclose(q.relaxed_log_prob(zeta), np.log((1 - p) * r0 + p * r1).sum(-1))


@pytest.mark.parametrize("name", ["gumbolt", "straight-through"])
def test_without_a_smoothing_the_probability_takes_its_place(name):
    q = bits(relaxation=build_relaxation(name))
    zeta = torch.rand(6, 4, 3)
    assert torch.equal(q.relaxed_log_prob(zeta), q.log_prob(zeta))
    want = (zeta * q.mean.log() + (1 - zeta) * (1 - q.mean).log()).sum(-1)
    torch.testing.assert_close(q.log_prob(zeta), want)


# -- what all posteriors share -----------------------------------------------------------------

FAMILIES = {"gaussian": posterior, "bernoulli": bits}


@pytest.fixture(params=FAMILIES)
def family(request):
    return FAMILIES[request.param]


def test_leaves_make_the_same_posterior_again(family):
    q = family()
    again = q.with_leaves(*(leaf.clone() for leaf in q.leaves()))
    assert type(again) is type(q)
    for a, b in zip(again.leaves(), q.leaves()):
        assert torch.equal(a, b)
    g = torch.Generator
    assert torch.equal(again.rsample(2, g().manual_seed(1)), q.rsample(2, g().manual_seed(1)))


def test_whoever_optimises_the_leaves_need_not_know_the_family(family):
    """Adam on the leaves brings the mean to where it is wanted, with gradients from samples."""
    q, target = family(), 0.8
    leaves = [leaf.clone().requires_grad_() for leaf in q.leaves()]
    optimizer = torch.optim.Adam(leaves, lr=0.1)
    for step in range(150):
        z = q.with_leaves(*leaves).rsample(8, torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        (z - target).square().mean(0).sum().backward()
        optimizer.step()
    found = q.with_leaves(*(leaf.detach() for leaf in leaves))
    assert float((found.mean - target).abs().max()) < float((q.mean - target).abs().max()) / 2


def test_precision_and_graph(family):
    q = family(torch.float64)
    single = q.float()
    assert all(leaf.dtype == torch.float32 for leaf in single.leaves())
    assert single.rsample(1).dtype == single.sample(1).dtype == torch.float32
    graph = q.with_leaves(*(leaf.requires_grad_() * 1.0 for leaf in q.leaves()))
    assert graph.float().mean.requires_grad
    assert graph.mean.requires_grad
    assert not graph.detach().rsample(1).requires_grad
    assert not graph.sample(1).requires_grad


def test_a_relaxation_is_kept():
    q = bits(relaxation=Power(25.0))
    assert q.float().detach().with_leaves(q.logits).relaxation == Power(25.0)
