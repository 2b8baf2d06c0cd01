"""One pass over the images against the likelihood, and displaced particles against brute force."""

import math

import numpy as np
import pytest
import torch

from cryoscape.analysis.junk.alike import LIKENESS, alike_evidence
from cryoscape.analysis.junk.calibration import gaussian_start, refitted
from cryoscape.analysis.junk.displaced import NEAREST, displaced_evidence, ring
from cryoscape.analysis.junk.hypotheses import scaled_evidence
from cryoscape.analysis.junk.scan import FACTORS, projection_spectrum, scan_images
from cryoscape.data.images import ImageBatch
from cryoscape.models.likelihoods import CorrelationLikelihood
from cryoscape.physics import fourier
from tests.analysis.junk.scenes import BOX, CUTOFF, PIXEL, Images, Points, likelihood_of, scene_and_images


def log_prob(likelihood, scene, batch, scale=1.0):
    y = scale * scene.project(batch.rotations, BOX, PIXEL)
    return likelihood.log_prob(batch.images, y, batch.ctf, batch.group)


def replaced(images, coefficients):
    b = images.all
    return Images(ImageBatch(b.rows, coefficients, b.ctf, b.rotations, b.group))


def test_both_numbers_of_a_structure_are_those_of_the_likelihood():
    scene, images = scene_and_images(n=300)
    other = Points(scene.coords.flip(1).contiguous())
    likelihood = likelihood_of(noise=1.3)
    spectrum = projection_spectrum(likelihood, [scene], np.ones(1), images)
    scan = scan_images(likelihood, [scene, other], images, spectrum)
    for k, one in enumerate((scene, other)):
        for scale in (1.0, 0.6):
            value = scale * scan.linear[:, k] - scale**2 * scan.power[:, k] / 2
            np.testing.assert_allclose(value, log_prob(likelihood, one, images.all, scale), atol=2e-3)
    assert scan.contaminant.shape == (300, 2 * len(FACTORS))


def test_spectrum_is_that_of_projections_in_all_poses():
    """Debye's formula for the mean power, the sinc of the beads' distances from the origin for the mean."""
    scene, images = scene_and_images(n=256)
    likelihood = likelihood_of()
    found = projection_spectrum(likelihood, [scene], np.ones(1), images)
    r = scene.coords.double()
    apart = (r[:, None] - r[None]).norm(dim=-1)
    inside = likelihood.weights > 0
    radius = fourier.frequency_grid(BOX, PIXEL, dtype=torch.float64).norm(dim=-1)[inside]
    shell = likelihood.shells[inside]
    for s in (1, 2, 3, 5):
        k, w = radius[shell == s], likelihood.weights[inside][shell == s].double()
        power = torch.stack([torch.sinc(2 * one * apart).mean() for one in k]) @ w / w.sum()
        mean = torch.stack([torch.sinc(2 * one * r.norm(dim=1)).mean() for one in k]) @ w / w.sum()
        assert float(found.power[s]) == pytest.approx(float(power), rel=0.15, abs=2e-4)
        assert float(found.mean[s]) == pytest.approx(float(mean), abs=0.02)


def test_particles_contaminants_and_noise_are_told_apart():
    scene, images = scene_and_images(n=400, gain=12.0)
    wrong, _ = Points(scene.coords[:, [1, 2, 0]] * torch.tensor([1.0, -1.0, 1.0])), None
    b = images.all
    of_wrong = 12.0 * b.ctf * wrong.project(b.rotations, BOX, PIXEL)
    of_right = 12.0 * b.ctf * scene.project(b.rotations, BOX, PIXEL)
    noise = b.images - of_right
    likelihood = likelihood_of(gain=12.0)
    spectrum = projection_spectrum(likelihood, [scene], np.ones(1), images)
    means = {}
    for name, signal in (("right", of_right), ("wrong", of_wrong), ("noise", torch.zeros_like(noise))):
        scan = scan_images(likelihood, [scene], replaced(images, noise + signal), spectrum)
        means[name] = (scan.linear - scan.power / 2).mean(), scan.contaminant.mean(axis=0)
    assert means["right"][0] > means["right"][1].max() + 5
    assert means["wrong"][1].max() > max(means["wrong"][0], 0) + 5
    assert means["noise"][0] < -5
    assert means["noise"][1].max() < 0


def test_displaced_against_every_shift_by_itself():
    scene, images = scene_and_images(n=4, gain=8.0)
    likelihood = likelihood_of(gain=8.0)
    mean, variance = 0.9, 0.04
    grid = torch.fft.fftfreq(2 * BOX, 1 / (BOX * PIXEL))
    shifts = torch.cartesian_prod(grid, grid)
    length = shifts.norm(dim=1)
    shifts = shifts[(length >= NEAREST) & (length <= BOX * PIXEL / 2)]
    b, frequencies = images.all, fourier.frequency_grid(BOX, PIXEL)
    y = scene.project(b.rotations, BOX, PIXEL)
    values = []
    for shift in shifts:
        moved = y * fourier.shift_phase(shift[None], frequencies)
        one = likelihood.log_prob(b.images, moved, b.ctf, b.group).double()
        # L and Q from the likelihood at strengths 1 and 2: l1 = L - Q / 2, l2 = 2 L - 2 Q.
        two = likelihood.log_prob(b.images, 2 * moved, b.ctf, b.group).double()
        power = 2 * one - two
        values.append(scaled_evidence(one + power / 2, power, mean, variance))
    expected = torch.logsumexp(torch.stack(values), 0) - math.log(len(shifts))
    found = displaced_evidence(likelihood, [scene], np.ones(1), images, mean, variance)
    np.testing.assert_allclose(found, expected, atol=2e-3)


def test_displaced_particles_are_found_where_they_went():
    scene, images = scene_and_images(n=200, gain=12.0)
    frequencies = fourier.frequency_grid(BOX, PIXEL)
    moved = replaced(
        images, images.all.images * fourier.shift_phase(torch.tensor([[18.0, -9.0]]), frequencies)
    )
    likelihood = likelihood_of(gain=12.0)
    stay, away = (
        displaced_evidence(likelihood, [scene], np.ones(1), one, 1.0, 0.01) for one in (images, moved)
    )
    spectrum = projection_spectrum(likelihood, [scene], np.ones(1), images)
    scans = [scan_images(likelihood, [scene], one, spectrum) for one in (images, moved)]
    here, there = (
        scaled_evidence(torch.from_numpy(s.linear), torch.from_numpy(s.power), 1.0, 0.01)[:, 0].numpy()
        for s in scans
    )
    assert (here > stay).mean() > 0.97
    assert (away > there).mean() > 0.97
    # The true shift is one of the grid: it costs no more than the choice among all of them.
    assert (away > here - math.log(int((ring(BOX, PIXEL) > -torch.inf).sum())) - 0.01).all()


def test_the_ring_is_a_probability():
    assert float(ring(BOX, PIXEL).exp().sum()) == pytest.approx(1, abs=1e-5)


def test_alike_objects_lie_between():
    """Images of b Y + sqrt(1 - b^2) Y', Y' of another molecule, are best explained as alike."""
    scene, images = scene_and_images(n=400, gain=20.0)
    other = Points(scene.coords[:, [1, 2, 0]] * torch.tensor([1.0, -1.0, 1.0]))
    b, likelihood = images.all, likelihood_of(gain=20.0)
    y, z = (one.project(b.rotations, BOX, PIXEL) for one in (scene, other))
    mixed = b.images + 20.0 * b.ctf * ((LIKENESS - 1) * y + (1 - LIKENESS**2) ** 0.5 * z)
    spectrum = projection_spectrum(likelihood, [scene], np.ones(1), images)
    best, none = np.zeros(400, dtype=np.int64), np.zeros(400)
    for shown, wins in ((mixed, True), (b.images, False)):
        here = replaced(images, shown)
        alike = alike_evidence(likelihood, [scene], here, spectrum, best, none)[:, FACTORS.index(1.0)]
        good = log_prob(likelihood, scene, here.all).numpy()
        assert ((alike > good).mean() > 0.95) == wins
        assert ((alike > good).mean() < 0.05) != wins
    raised = alike_evidence(likelihood, [scene], images, spectrum, best, none + 2.5)
    np.testing.assert_allclose(raised[:, FACTORS.index(1.0)] - alike, 2.5, atol=1e-6)


def test_images_of_no_weight_do_not_count():
    scene, images = scene_and_images(n=300)
    likelihood, b = likelihood_of(gain=1.0), images.all
    spoilt = b.images.clone()
    spoilt[100:] += 5 * spoilt[100:].flip(1)
    weight = (np.arange(300) < 100).astype(float)
    best = np.zeros(300, dtype=np.int64)
    found = refitted(likelihood, [scene], replaced(images, spoilt), best, np.ones(300), weight)
    alone = refitted(likelihood, [scene], Images(images.batch(torch.arange(100))), best, np.ones(300), weight)
    torch.testing.assert_close(found.gain, alone.gain)
    torch.testing.assert_close(found.noise, alone.noise)
    error = (2 / (100 * likelihood.indicator.sum(0)[2:])).sqrt()
    assert ((found.noise[0, 2:] - 1).abs() < 4 * error).all()
    assert float(found.gain[0, 2:5].mean()) == pytest.approx(3, rel=0.05)
    assert float(likelihood.gain[0, 3]) == 1.0


def test_known_strengths_leave_the_gain_alone():
    scene, images = scene_and_images(n=300, gain=6.0)
    likelihood, best = likelihood_of(), np.zeros(300, dtype=np.int64)
    found = refitted(likelihood, [scene], images, best, np.full(300, 2.0), np.ones(300))
    assert float(found.gain[0, 2:5].mean()) == pytest.approx(3, rel=0.05)


def test_another_likelihood_gets_gain_and_noise():
    scene, images = scene_and_images(n=300)
    found = gaussian_start(CorrelationLikelihood(BOX, PIXEL, CUTOFF), scene, images)
    assert float(found.noise[0, 2:].mean()) == pytest.approx(1, rel=0.02)
    assert float(found.gain[0, 2:5].mean()) == pytest.approx(3, rel=0.05)
    own = likelihood_of()
    copied = gaussian_start(own, scene, images)
    assert copied is not own
    torch.testing.assert_close(copied.gain, own.gain)
