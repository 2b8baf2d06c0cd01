import torch

from cryoscape.models import features
from cryoscape.models.likelihoods import GaussianLikelihood
from cryoscape.physics import gaussians
from tests.models.scenes import BOX, CUTOFF, PIXEL, batch_of, chain


def setup(n=32, noise=2.0):
    coords = chain()
    weights = torch.ones(len(coords)) / len(coords)
    likelihood = GaussianLikelihood(BOX, PIXEL, CUTOFF)
    likelihood.gain.fill_(20.0)
    likelihood.noise.fill_(noise)
    return coords, weights, likelihood


def test_score_is_the_gradient_of_the_log_likelihood():
    coords, weights, likelihood = setup()
    batch = batch_of(coords, weights, gain=20.0, noise=2.0, n=4)
    got = features.score_features(
        likelihood, batch.images, batch.ctf, batch.group, batch.rotations, coords, weights
    )
    # In double precision, with a step small against the wavelength.
    moved = coords.expand(4, -1, -1).double().clone()
    likelihood = likelihood.double()
    step = 1e-3
    for residue, axis in [(0, 0), (13, 2), (29, 1)]:
        values = []
        for sign in (1, -1):
            moved[:, residue, axis] += sign * step
            y = gaussians.project_fourier(moved, weights.double(), batch.rotations.double(), BOX, PIXEL)
            values.append(likelihood.log_prob(batch.images.to(y.dtype), y, batch.ctf, batch.group))
            moved[:, residue, axis] -= sign * step
        want = (values[0] - values[1]) / (2 * step)
        torch.testing.assert_close(got[:, residue, axis], want.float(), rtol=1e-3, atol=1e-3)


def test_score_points_towards_the_true_structure_on_average():
    coords, weights, likelihood = setup()
    truth = coords.clone()
    truth[:10] += torch.tensor([0.0, 0.0, 3.0])
    batch = batch_of(truth, weights, gain=20.0, noise=2.0, n=400)
    score = features.score_features(
        likelihood, batch.images, batch.ctf, batch.group, batch.rotations, coords, weights
    ).mean(0)
    # Averaged over all views the pull is along +z on what has moved, and not on what has not.
    assert float(score[:10, 2].mean()) > 2 * float(score[:10, :2].mean(0).abs().max())
    assert float(score[:10, 2].mean()) > 2 * float(score[15:].mean(0).abs().max())


def test_field_is_high_where_density_is_missing_from_the_model():
    coords, weights, likelihood = setup()
    batch = batch_of(coords, weights, gain=20.0, noise=2.0, n=400)
    partial = weights.clone()
    partial[:5] = 0.0
    points = torch.stack([coords[:5].mean(0), coords[20:25].mean(0) + 20.0])
    y = gaussians.project_fourier(coords[None], partial, batch.rotations, BOX, PIXEL)
    field = features.field_features(
        likelihood, batch.images, batch.ctf, batch.group, batch.rotations, y, points, 3.0
    ).mean(0)
    assert float(field[0]) > 3 * float(field[1].abs())


def test_field_value_is_the_directional_derivative_in_density():
    coords, weights, likelihood = setup()
    batch = batch_of(coords, weights, gain=20.0, noise=2.0, n=3)
    point = torch.tensor([[6.0, -3.0, 9.0]])
    blur = 3.0
    from cryoscape.physics import fourier

    base = gaussians.project_fourier(coords[None], weights, batch.rotations, BOX, PIXEL)
    field = features.field_features(
        likelihood, batch.images, batch.ctf, batch.group, batch.rotations, base, point, blur
    )

    k2 = fourier.frequency_grid(BOX, PIXEL).square().sum(-1)
    probe = gaussians.project_fourier(point[None], torch.ones(1), batch.rotations, BOX, PIXEL)
    probe = probe * torch.exp(-2 * torch.pi**2 * blur**2 * k2)
    args = (batch.ctf, batch.group)
    up, down = (likelihood.log_prob(batch.images, base + s * 1e-3 * probe, *args) for s in (1, -1))
    want = (up - down) / 2e-3
    # Bilinear sampling of the field costs a few per cent; the transform's norm is 1 / box.
    torch.testing.assert_close(field[:, 0] * BOX, want, rtol=0.1, atol=0.1 * float(want.abs().max()))


def test_pooling_keeps_the_sum_of_squares_of_a_common_motion():
    matrix = features.pooling_matrix(100, 8)
    assert matrix.shape == (8, 100)
    pooled = matrix @ torch.ones(100)
    torch.testing.assert_close(pooled.square().sum(), torch.tensor(100.0))


def test_the_field_grid_is_every_grid_point_near_a_residue():
    coords = 15 * torch.randn(40, 3, generator=torch.Generator().manual_seed(2))
    grid = features.field_grid(coords, 6.0, 10.0)
    low, high = coords.amin(0) - 10, coords.amax(0) + 10
    axes = [torch.arange(float(a), float(b) + 6, 6.0) for a, b in zip(low, high)]
    whole = torch.cartesian_prod(*axes)
    near = torch.cdist(whole, coords, compute_mode="donot_use_mm_for_euclid_dist").amin(1) <= 10
    torch.testing.assert_close(grid, whole[near])
    assert 0 < len(grid) < len(whole)
