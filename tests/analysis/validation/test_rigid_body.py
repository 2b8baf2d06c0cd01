"""Derivatives in the pose against differences, the integral over poses against quadrature, errors that were
put in, and a motion that pose errors imitate."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import norm

from cryoscape.analysis.populations.likelihood_table import image_table
from cryoscape.analysis.validation.pose_expansion import PHASE_STEP
from cryoscape.analysis.validation.results import Status
from cryoscape.analysis.validation.rigid_body import (
    PoseExpansion,
    expand_poses,
    fit_pose_sd,
    rigid_body_check,
    rigid_body_rivals,
)
from cryoscape.analysis.validation.simulated_images import SimulatedImages, draw_scenes
from cryoscape.data.images import ImageBatch
from cryoscape.errors import InputError
from cryoscape.models.likelihoods import CorrelationLikelihood, MeanSquaredLikelihood
from cryoscape.physics import fourier
from cryoscape.physics.rotations import small_rotation
from cryoscape.training.train import train
from tests.analysis.validation.imaging import BOX, CUTOFF, PIXEL, likelihood_of, particles, scenes
from tests.training.builders import KNOWN, make_sample, settings

TWO = scenes(0.0, 25.0)


def images_of(n, nats, rotation_sd=0.0, shift_sd=0.0, which=TWO, seed=0):
    like = likelihood_of(which[0], nats)
    choice = draw_scenes(torch.ones(len(which)), n, seed)
    source = SimulatedImages(particles(n, seed), like, which, choice, seed, rotation_sd, shift_sd)
    return like, source, torch.arange(n)


def log_prob_moved(like, scene, batch, moves):
    """Of one image in many moved poses (m, 5), straight from the likelihood."""
    moves = torch.as_tensor(moves)
    m = len(moves)
    rotations = (small_rotation(moves[:, :3]) @ batch.rotations.double()).float()
    y = scene.project(rotations, like.box, like.pixel_size)
    y = y * fourier.shift_phase(moves[:, 3:].float(), fourier.frequency_grid(like.box, like.pixel_size))
    repeat = (x.expand(m, *x.shape[1:]) for x in (batch.images, y, batch.ctf, batch.group))
    return like.log_prob(*repeat).double().numpy()


def test_value_and_derivatives():
    like, source, rows = images_of(6, 60.0)
    found = expand_poses(like, TWO, source, rows)
    np.testing.assert_allclose(found.value, image_table(like, TWO, source, rows), atol=1e-4)
    step = np.diag([2e-3] * 3 + [0.02] * 2)
    for i, k in itertools.product(range(6), range(2)):
        batch = source(rows[i : i + 1])
        values = log_prob_moved(like, TWO[k], batch, np.concatenate([step, -step]))
        slope = (values[:5] - values[5:]) / (2 * step.diagonal())
        np.testing.assert_allclose(found.slope[i, k], slope, rtol=0.01, atol=0.004 * np.abs(slope).max())


def test_curvature_is_the_information():
    """Over the noise the slope at the true pose has the curvature as its covariance, and mean zero."""
    like, source, _ = images_of(1, 60.0, which=TWO[:1])
    n = 2500
    one = source.particles
    same = type(one)(one.rotations.expand(n, 3, 3), one.transfer.expand(n, *one.transfer.shape[1:]))
    images = SimulatedImages(same, like, TWO[:1], torch.zeros(n, dtype=torch.int64))
    found = expand_poses(like, TWO[:1], images, torch.arange(n))
    information = found.curvature[0, 0]
    scale = np.sqrt(np.diag(information))
    white = found.slope[:, 0] / scale
    np.testing.assert_allclose(white.mean(0), 0, atol=0.08)
    np.testing.assert_allclose(np.cov(white.T), information / np.outer(scale, scale), atol=0.1)


def quadrature(like, scene, batch, rotation_sd, shift_sd, order=5):
    node, weight = np.polynomial.hermite_e.hermegauss(order)
    grid = np.array(list(itertools.product(node, repeat=5)))
    mass = np.prod(np.array(list(itertools.product(weight, repeat=5))), axis=1) / (2 * np.pi) ** 2.5
    moves = grid * np.array([np.radians(rotation_sd)] * 3 + [shift_sd] * 2)
    return np.logaddexp.reduce(log_prob_moved(like, scene, batch, moves) + np.log(mass))


def clean(like, batch, move):
    """The same batch without noise, of the first scene in a moved pose."""
    y = TWO[0].project(small_rotation(torch.tensor(move[:3])) @ batch.rotations, BOX, PIXEL)
    shift = torch.tensor(move[3:]).expand(len(batch.rows), 2)
    y = y * fourier.shift_phase(shift, fourier.frequency_grid(BOX, PIXEL))
    return replace(batch, images=like.transfer(batch.ctf, batch.group) * y)


@pytest.mark.parametrize("move", [(0.0,) * 5, (0.03, -0.02, 0.03, 0.4, -0.3)])
def test_integral_over_poses_without_noise(move):
    """Against Gauss-Hermite quadrature of the likelihood itself over moved poses."""
    like, source, rows = images_of(4, 60.0, which=TWO[:1])
    found = expand_poses(like, TWO[:1], lambda r: clean(like, source(r), move), rows)
    evidence = found.evidence(1.0, 0.3)[:, 0]
    batches = [clean(like, source(rows[i : i + 1]), move) for i in range(4)]
    want = np.array([quadrature(like, TWO[0], batch, 1.0, 0.3) for batch in batches])
    change = want - found.value[:, 0]
    assert np.abs(change).min() > 0.1
    np.testing.assert_allclose(evidence - found.value[:, 0], change, atol=0.02, rtol=0.05)


def test_integral_over_poses_with_noise():
    """The curvature is the expected one: errors of single images are small and cancel in the mean."""
    like, source, rows = images_of(16, 20.0, 1.0, 0.3, TWO[:1])
    found = expand_poses(like, TWO[:1], source, rows)
    want = np.array([quadrature(like, TWO[0], source(rows[i : i + 1]), 1.0, 0.3) for i in range(16)])
    change, error = want - found.value[:, 0], found.evidence(1.0, 0.3)[:, 0] - want
    assert error.std() < 0.4 * change.std()
    assert abs(error.mean()) < 3 * error.std() / np.sqrt(16)


def test_no_error_gives_the_value_itself_and_one_alone_its_own_integral():
    rng = np.random.default_rng(0)
    root = rng.normal(size=(3, 2, 5, 5)) * np.array([30.0] * 3 + [1.0] * 2)[:, None]
    made = PoseExpansion(
        rng.normal(size=(3, 2)),
        rng.normal(size=(3, 2, 5)) * [30.0] * 5,
        root @ root.swapaxes(-1, -2),
    )
    np.testing.assert_array_equal(made.evidence(0.0, 0.0), made.value)
    b, h, s = made.slope[..., 3:], made.curvature[..., 3:, 3:], 0.7
    inner = np.linalg.inv(h + np.eye(2) / s**2)
    want = made.value + 0.5 * np.einsum("...i,...ij,...j", b, inner, b)
    want -= 0.5 * np.log(np.linalg.det(np.eye(2) + s**2 * h))
    np.testing.assert_allclose(made.evidence(0.0, s), want, rtol=1e-10)


@pytest.mark.parametrize(("rotation", "shift"), [(2.5, 0.8), (0.0, 0.0)])
def test_errors_that_were_put_in_are_found(rotation, shift):
    like, source, rows = images_of(500, 60.0, rotation, shift)
    found = fit_pose_sd(expand_poses(like, TWO, source, rows), np.array([0.5, 0.5]))
    if rotation:
        assert found == pytest.approx((rotation, shift), rel=0.2)
    else:
        assert found[0] < 0.6
        assert found[1] < 0.2


def judged(which, candidates, rotation, shift, seed):
    """Images of some scenes with pose errors, judged with other scenes."""
    like, source, rows = images_of(450, 60.0, rotation, shift, which, seed)
    return rigid_body_rivals(like, candidates, source, rows[:250], rows[250:])


def test_a_motion_is_no_rigid_move():
    found = judged(TWO, TWO, 1.5, 0.5, 3)
    check = rigid_body_check(found)
    assert check.status is Status.PASSED
    assert check.values["beyond_rigid"] > 5 * check.values["beyond_rigid_error"]
    assert check.values["motion"] == pytest.approx((found.many - found.single).mean())
    assert found.many_sd == pytest.approx((1.5, 0.5), rel=0.3)


def test_what_large_pose_errors_imitate_is_a_rigid_move():
    """One structure in poses that are 6 degrees off; the rivals are the same turned, and bent a little."""
    one = scenes(0.0)[0]
    turns = small_rotation(torch.tensor([[0.0, 0, 0], [0.1, 0, 0], [-0.1, 0, 0], [0, 0.1, 0]]))
    copies = [type(one)(one.coords @ turn.T, one.scatterers) for turn in turns]
    check = rigid_body_check(judged([one], [*copies, *scenes(-6.0, 6.0)], 6.0, 0.3, 4))
    assert check.values["motion"] > 4 * check.values["motion_error"]
    assert check.values["rigid"] > check.values["motion"]
    assert check.values["rotation_sd_single"] == pytest.approx(6.0, rel=0.2)
    assert check.status is Status.FAILED
    assert "beyond rigid moves" in check.text.lower()


def importance_sampled(like, scene, batch, move, sd, seed=0, n=5000):
    """Log of the likelihood integrated over N(0, sd^2) moves, with draws about the true one."""
    rng = np.random.default_rng(seed)
    width = np.array([0.075] * 3 + [0.5] * 2)
    draws = np.asarray(move) + width * rng.standard_normal((n, 5))
    ratio = norm(0, sd).logpdf(draws).sum(1) - norm(move, width).logpdf(draws).sum(1)
    return np.logaddexp.reduce(log_prob_moved(like, scene, batch, draws) + ratio) - np.log(n)


def test_about_the_most_likely_pose():
    """Clean images 12 degrees off: about the given pose the integral is wrong, about the best one right."""
    like, source, rows = images_of(4, 60.0, which=TWO[:1])
    move, sd = (0.15, -0.09, 0.12, 1.2, -0.75), (4.0, 0.6)
    given, moved = (
        expand_poses(like, TWO[:1], lambda r: clean(like, source(r), move), rows, prior_sd=prior)
        for prior in (None, sd)
    )
    wide = np.array([np.radians(sd[0])] * 3 + [sd[1]] * 2)
    batches = [clean(like, source(rows[i : i + 1]), move) for i in range(4)]
    want = np.array([importance_sampled(like, TWO[0], batch, move, wide) for batch in batches])
    again = np.array([importance_sampled(like, TWO[0], batch, move, wide, 1) for batch in batches])
    np.testing.assert_allclose(want, again, atol=0.15)
    far, near = (np.abs(found.evidence(*sd)[:, 0] - want).max() for found in (given, moved))
    assert near < 0.3
    assert far > 1.0


@pytest.mark.parametrize(
    "decoder",
    [
        {"kind": "voxels", "n_volumes": 2, "hidden": (8,)},
        {"kind": "field", "hidden": (16, 16)},
    ],
)
def test_maps(decoder, tmp_path):
    """Slopes of a decoded map against differences of its likelihood; interpolation leaves a few per cent."""
    sample = make_sample(tmp_path / "data", n=200, snr=1.0)
    short = {"steps": 2, "batch": 16, "device": "cpu", "precision": "32"}
    config = settings(training=short, encoder={"kind": "field", "hidden": (16,)}, decoder=decoder)
    run = train(sample.particles, None, config, tmp_path / "run", interpretation=KNOWN)
    like, model = run.image_model.likelihood, run.image_model
    with torch.no_grad():
        scene = model.decoder(torch.zeros(1, 2))
        found = expand_poses(like, [scene], run.images().batch, torch.arange(4))
        turn = PHASE_STEP / (2 * np.pi / like.cutoff * like.box * like.pixel_size / 4)
        step = np.diag([turn] * 3 + [0.02] * 2)
        for i in range(4):
            batch = run.images().batch(torch.arange(i, i + 1))
            values = log_prob_moved(like, scene, batch, np.concatenate([step, -step]))
            slope = (values[:5] - values[5:]) / (2 * step.diagonal())
            np.testing.assert_allclose(found.slope[i, 0], slope, atol=0.06 * np.abs(slope).max())
            assert found.value[i, 0] == pytest.approx(log_prob_moved(like, scene, batch, np.zeros((1, 5)))[0])


@pytest.mark.parametrize("kind", [CorrelationLikelihood, MeanSquaredLikelihood])
def test_without_nats_it_refuses(kind):
    blank = lambda rows: ImageBatch(rows, *[torch.zeros(0)] * 4)  # noqa: E731
    with pytest.raises(InputError, match="nats"):
        expand_poses(kind(BOX, PIXEL, CUTOFF), TWO, blank, torch.arange(2))
