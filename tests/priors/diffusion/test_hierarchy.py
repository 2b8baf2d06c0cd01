"""Clusters with a diffusion within each, against laws that are known."""

import math

import numpy as np
import pytest
import torch

from cryoscape.errors import InputError
from cryoscape.models.posteriors import DiagonalGaussian
from cryoscape.priors.diffusion.hierarchy import HierarchyPrior
from cryoscape.priors.posterior_samples import PosteriorSamples

SHARE = 0.04


def two_arcs(n, seed=0):
    """A large arc, and a small one far away with a share of 4 %, shape (n, 2)."""
    rng = np.random.default_rng(seed)
    angle = rng.uniform(0, math.pi, n)
    points = np.stack([np.cos(angle), np.sin(angle)], 1) + 0.08 * rng.standard_normal((n, 2))
    small = rng.random(n) < SHARE
    points[small] = 0.4 * points[small] + [4.0, -3.0]
    return torch.from_numpy(points).float(), torch.from_numpy(small)


@pytest.fixture(scope="module")
def fitted():
    prior = HierarchyPrior(2, 2, components=4, layers=2, width=32)
    z, _ = two_arcs(5000)
    report = prior.fit(z, steps=250)
    return prior, report


def test_the_small_cluster_keeps_its_share_and_its_shape(fitted):
    prior, _ = fitted
    z = prior.sample(8000, torch.Generator().manual_seed(1))
    small = z[:, 0] > 2.5
    assert abs(float(small.float().mean()) - SHARE) < 0.006
    assert float(prior.populations().sum()) == pytest.approx(1.0)
    radius = (z[~small]).norm(dim=1)
    assert float((radius - 1).abs().mean()) < 0.12
    # Nothing lies on the way.
    between = (z[:, 0] > 1.7) & (z[:, 0] < 3.2)
    assert float(between.float().mean()) < 1e-3


def test_the_density_is_close_to_the_truth(fitted):
    """Against the entropy of the law, by its own density in polar coordinates averaged over fresh points."""
    prior, report = fitted
    z, small = two_arcs(500, seed=5)
    centre = torch.where(small[:, None], torch.tensor([4.0, -3.0]), torch.zeros(2))
    size = torch.where(small, 0.4, 1.0)
    angle = torch.linspace(0, math.pi, 2001)
    arc = torch.stack([angle.cos(), angle.sin()], 1)
    u = (z - centre) / size[:, None]
    blurred = torch.exp(-(u[:, None] - arc).square().sum(-1) / (2 * 0.08**2)).mean(1) / (
        2 * math.pi * 0.08**2
    )
    share = torch.where(small, SHARE, 1 - SHARE)
    log_true = (share * blurred / size**2).log()
    with torch.no_grad():
        gap = log_true - prior.log_prob(z)
    assert -0.02 < float(gap.mean()) < 0.10
    assert report.log_prob == pytest.approx(float(log_true.mean()), abs=0.15)


def test_it_is_the_sum_of_its_parts(fitted):
    prior, _ = fitted
    z, _ = two_arcs(20, seed=3)
    with torch.no_grad():
        u = (z - prior.shift) / prior.scale
        each = torch.stack([part.log_prob(u) for part in prior.parts], 1) - 2 * prior.scale.log()
        want = torch.logsumexp(each + prior.populations().log(), 1)
        torch.testing.assert_close(prior.log_prob(z), want, rtol=1e-4, atol=1e-4)


def test_the_bound_of_training_is_above_the_divergence(fitted):
    prior, _ = fitted
    z, _ = two_arcs(40, seed=4)
    q = DiagonalGaussian(z, torch.full_like(z, -6.0))
    draws = q.rsample(200, torch.Generator().manual_seed(0))
    with torch.no_grad():
        exact = prior.eval().kl_divergence(q, draws[:5]).mean()
        prior.train()
        torch.manual_seed(0)
        bound = prior.kl_divergence(q, draws).mean()
    prior.eval()
    assert exact - 0.1 < bound < exact + 1.0


def test_deconvolution_is_refused():
    mean, _ = two_arcs(200)
    posteriors = PosteriorSamples.of_gaussians(mean, torch.full_like(mean, 0.1), samples=4)
    with pytest.raises(InputError, match="cannot be deconvolved"):
        HierarchyPrior(2, 2, layers=1, width=8).fit(posteriors, "deconvolved", steps=3)


def test_clusters_are_never_trained():
    prior = HierarchyPrior(2, 2).requires_grad_(True)
    assert not any(p.requires_grad for p in prior.clusters.parameters())
    assert prior.logits.requires_grad
