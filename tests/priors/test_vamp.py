import copy
import math

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from scipy.stats import norm

from cryoscape.models.posteriors import DiagonalGaussian
from cryoscape.priors.exemplars import choose_exemplars, shared_width
from cryoscape.priors.posterior_samples import PosteriorSamples
from cryoscape.priors.vamp import VampPrior


def placed(k=6, d=3):
    g = torch.Generator().manual_seed(0)
    mean = torch.randn(k, d, generator=g).requires_grad_()
    log_var = (0.2 * torch.randn(k, d, generator=g) - 1.0).requires_grad_()
    prior = VampPrior(d, k)
    prior.choose(torch.arange(k), mean, log_var)
    return prior, mean, log_var


def test_density_is_the_mean_of_the_posteriors():
    prior, mean, log_var = placed()
    z = torch.randn(20, 3)
    sd = np.exp(0.5 * log_var.detach().numpy())
    each = norm.pdf(z.numpy()[:, None], mean.detach().numpy(), sd).prod(2)
    np.testing.assert_allclose(prior.log_prob(z).detach(), np.log(each.mean(1)), atol=1e-5)


def test_gradients_reach_the_exemplars_through_the_kl_and_not_through_the_loss():
    prior, mean, log_var = placed()
    q = DiagonalGaussian(torch.randn(4, 3), torch.full((4, 3), -1.0))
    z = q.rsample(2, torch.Generator().manual_seed(1))
    prior.place(mean, log_var)
    prior.kl_divergence(q, z).sum().backward()
    step = 1e-2
    with torch.no_grad():
        for tensor in (mean, log_var):
            old = float(tensor[2, 1])
            ends = []
            for value in (old + step, old - step):
                tensor[2, 1] = value
                prior.place(mean, log_var)
                ends.append(float(prior.kl_divergence(q, z).double().sum()))
            tensor[2, 1] = old
            assert float(tensor.grad[2, 1]) == pytest.approx(
                (ends[0] - ends[1]) / (2 * step), rel=0.02, abs=1e-3
            )
    prior.place(mean, log_var)
    mean.grad, log_var.grad = None, None
    prior.loss(z[0]).backward()
    assert mean.grad is None
    assert log_var.grad is None
    assert prior.logits.grad.abs().max() > 0


def test_the_history_of_a_step_is_no_obstacle_for_the_next():
    """KL, backward, loss, backward, as a training step does it, twice; then a copy and a saved state."""
    prior, mean, log_var = placed()
    q = DiagonalGaussian(torch.randn(4, 3), torch.full((4, 3), -1.0))
    for _ in range(2):
        prior.place(2 * mean, log_var)
        prior.kl_divergence(q).mean().backward()
        prior.loss(q.rsample(1)[0]).backward()
    z = torch.randn(5, 3)
    assert torch.equal(copy.deepcopy(prior).log_prob(z), prior.log_prob(z))


def test_saved_it_stands_alone(tmp_path):
    prior, mean, log_var = placed()
    prior.place(mean + 1.0, log_var)
    save_file(prior.state_dict(), tmp_path / "p.safetensors")
    other, _, _ = placed()
    other.place(5 * mean, log_var)
    other.load_state_dict(load_file(tmp_path / "p.safetensors"))
    z = torch.randn(7, 3)
    assert torch.equal(prior.log_prob(z), other.log_prob(z))
    assert other.rows.tolist() == list(range(6))


def test_whitened_units_do_not_matter_to_what_is_placed():
    prior, mean, log_var = placed()
    z = torch.randn(9, 3)
    want = prior.log_prob(z)
    prior.shift.copy_(torch.tensor([1.0, -2.0, 0.5]))
    prior.scale.fill_(3.0)
    prior.place(mean, log_var)
    torch.testing.assert_close(prior.log_prob(z), want)


def test_fewer_particles_than_exemplars():
    prior = VampPrior(2, 5)
    prior.choose(torch.tensor([3, 8]), torch.tensor([[0.0, 0.0], [4.0, 0.0]]), torch.zeros(2, 2))
    assert prior.rows.tolist() == [3, 8, 3, 8, 3]
    assert prior.states().names[1] == "particle 9"


def test_bare_points_get_the_width_of_their_law():
    """Points of narrow spots: exemplars are points of the spots themselves, so the width found is theirs."""
    rng = np.random.default_rng(0)
    spots = rng.uniform(-3, 3, (8, 3))
    weight = np.array([0.3, 0.2, 0.15, 0.1, 0.1, 0.05, 0.05, 0.05])
    spot = rng.choice(8, 8000, p=weight)
    z = spots[spot] + 0.1 * rng.standard_normal((8000, 3))
    prior = VampPrior(3, 64)
    report = prior.fit(z, steps=20)
    sd = float((0.5 * prior.log_var[0, 0]).exp() * prior.scale)
    assert 0.08 < sd < 0.13
    states = prior.states()
    near = np.linalg.norm(states.mean[:, None] - spots, axis=2).argmin(1)
    np.testing.assert_allclose(np.bincount(near, states.weight, 8), np.bincount(spot) / 8000, atol=0.02)
    entropy = 3 * (math.log(0.1) + 0.5 * math.log(2 * math.pi * math.e)) - weight @ np.log(weight)
    assert -entropy - 0.25 < report.log_prob < -entropy + 0.05


def test_posteriors_keep_their_own_widths():
    rng = np.random.default_rng(1)
    mean = torch.from_numpy(rng.standard_normal((2000, 2))).float()
    sd = torch.from_numpy(rng.uniform(0.1, 0.5, (2000, 2))).float()
    prior = VampPrior(2, 40)
    assert prior.warm_start_posteriors(mean, sd, torch.Generator().manual_seed(0))
    states = prior.states()
    rows = ((mean[None] - torch.from_numpy(states.mean)[:, None]) ** 2).sum(2).argmin(1)
    np.testing.assert_allclose(states.mean, mean[rows], atol=1e-6)
    np.testing.assert_allclose(np.sqrt(states.covariance[:, 0, 0]), sd[rows, 0], rtol=1e-5)
    assert len(set(rows.tolist())) == 40


def test_a_fit_to_posteriors_is_made_of_them():
    """Widths that differ are kept, where a fit to samples alone would give all exemplars one."""
    rng = np.random.default_rng(1)
    mean = torch.from_numpy(rng.standard_normal((2000, 2))).float()
    sd = torch.from_numpy(rng.uniform(0.1, 0.5, (2000, 2))).float()
    prior = VampPrior(2, 40)
    prior.fit(PosteriorSamples.of_gaussians(mean, sd), steps=5)
    states = prior.states()
    rows = ((mean[None] - torch.from_numpy(states.mean)[:, None]) ** 2).sum(2).argmin(1)
    np.testing.assert_allclose(np.sqrt(states.covariance[:, 1, 1]), sd[rows, 1], rtol=1e-4)


def test_exemplars_cover_a_small_state():
    rng = np.random.default_rng(2)
    points = rng.standard_normal((1000, 2))
    points[980:, 0] += 30.0
    rows = choose_exemplars(torch.from_numpy(points), 10, torch.Generator().manual_seed(0))
    assert (rows >= 980).any()
    assert len(rows.unique()) == 10


def test_width_by_held_out_likelihood_is_the_best_of_a_grid():
    rng = np.random.default_rng(3)
    exemplars, train, held_out = (torch.from_numpy(rng.standard_normal((n, 2))) for n in (30, 600, 600))
    found = shared_width(exemplars, train, held_out)

    def score(sd):
        near, far = (
            -0.5 * torch.cdist(p, exemplars).square() / sd**2 - 2 * math.log(sd) for p in (train, held_out)
        )
        weight = torch.full((30,), 1 / 30, dtype=torch.float64)
        for _ in range(30):
            joint = weight * near.exp()
            weight = (joint / joint.sum(1, keepdim=True)).mean(0)
        return float((weight * far.exp()).sum(1).log().mean())

    assert score(found) >= max(score(sd) for sd in np.geomspace(0.1, 1.5, 25)) - 1e-3


def test_broken_exemplars_are_named():
    prior, mean, log_var = placed()
    prior.place(mean * float("nan"), log_var)
    assert prior.faults() == ("posteriors of the exemplars are not finite",)
