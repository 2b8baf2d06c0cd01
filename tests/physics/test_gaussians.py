import numpy as np
import torch
from scipy.spatial.transform import Rotation

from cryoscape.physics import fourier, gaussians
from cryoscape.physics.rotations import geodesic_angle, random_rotations


def points(batch=3, n=12, seed=0):
    g = torch.Generator().manual_seed(seed)
    coords = 7 * torch.randn(batch, n, 3, generator=g, dtype=torch.float64)
    weights = 0.5 + torch.rand(n, generator=g, dtype=torch.float64)
    return coords, weights, random_rotations(batch, g)


def test_fourier_projection_is_the_direct_sum():
    coords, weights, rotations = points()
    box, pixel = 20, 2.1
    got = gaussians.project_fourier(coords, weights, rotations, box, pixel).numpy()
    view = np.einsum("bij,bnj->bni", rotations.numpy(), coords.numpy())[..., :2]
    k = np.stack(np.meshgrid(np.arange(box // 2 + 1), np.fft.fftfreq(box, 1 / box)), -1) / (box * pixel)
    want = np.einsum(
        "n,bnyx->byx", weights.numpy(), np.exp(-2j * np.pi * np.einsum("yxi,bni->bnyx", k, view))
    )
    want[:, box // 2] = 0.0
    want[:, :, box // 2] = 0.0
    np.testing.assert_allclose(got, want, atol=1e-10)


def test_fourier_projection_has_the_right_gradient():
    coords, weights, rotations = points(2, 4)

    def real_view(x, w):
        return torch.view_as_real(gaussians.project_fourier(x, w, rotations, 8, 3.0))

    assert torch.autograd.gradcheck(real_view, (coords.requires_grad_(), weights.requires_grad_()))


def test_real_and_fourier_projections_are_one_image():
    coords, weights, rotations = points()
    box, pixel, sigma = 64, 1.0, 2.0
    image = gaussians.project_real(coords, weights, sigma, rotations, box, pixel)
    k2 = fourier.frequency_grid(box, pixel, dtype=torch.float64).square().sum(-1)
    envelope = torch.exp(-2 * torch.pi**2 * sigma**2 * k2) / (box * pixel**2)
    fourier_image = gaussians.project_fourier(coords, weights, rotations, box, pixel) * envelope
    below_nyquist = fourier.band_weights(box, pixel, 2.0 * pixel) > 0
    difference = ((fourier.forward(image) - fourier_image) * below_nyquist).abs().max()
    assert float(difference) < 1e-4 * float(fourier_image.abs().max())


def test_an_off_axis_atom_lands_where_scipy_says():
    turn = Rotation.from_euler("ZYZ", [31.0, 67.0, -12.0], degrees=True)
    atom = np.array([11.0, -4.0, 6.5])
    matrix = turn.as_matrix().T
    want = matrix @ atom + np.array([3.0, -2.0, 0.0])
    box, pixel = 64, 1.0
    image = gaussians.project_real(
        torch.tensor(atom)[None, None],
        torch.ones(1, dtype=torch.float64),
        1.5,
        torch.tensor(matrix)[None],
        box,
        pixel,
        shifts=torch.tensor([[3.0, -2.0]], dtype=torch.float64),
    )[0]
    axis = (np.arange(box) - box // 2) * pixel
    mass = image.sum().item()
    x = float((image.sum(0) * torch.tensor(axis)).sum()) / mass
    y = float((image.sum(1) * torch.tensor(axis)).sum()) / mass
    np.testing.assert_allclose([x, y], want[:2], atol=1e-4)


def test_voxels_hold_the_mass_at_the_place():
    coords = torch.tensor([[5.0, -3.0, 8.0]])
    volume = gaussians.voxelise(coords, torch.tensor([7.0]), 2.0, 40, 1.0)
    assert abs(float(volume.sum()) - 7.0) < 1e-3
    z, y, x = np.unravel_index(int(volume.argmax()), volume.shape)
    assert (x, y, z) == (25, 17, 28)


def test_random_rotations_are_rotations_and_uniform():
    matrices = random_rotations(4000, torch.Generator().manual_seed(1))
    eye = torch.eye(3, dtype=torch.float64).expand_as(matrices)
    torch.testing.assert_close(matrices @ matrices.transpose(1, 2), eye)
    torch.testing.assert_close(torch.det(matrices), torch.ones(4000, dtype=torch.float64))
    # The mean angle of a Haar rotation is pi/2 + 2/pi.
    angle = geodesic_angle(matrices, eye).mean()
    assert abs(float(angle) - (np.pi / 2 + 2 / np.pi)) < 0.03


def test_a_batch_done_in_pieces_is_the_same(monkeypatch):
    coords, weights, rotations = points(batch=5)
    each = weights.expand(5, -1) * torch.arange(1, 6, dtype=torch.float64)[:, None]

    def run():
        x, w = coords.clone().requires_grad_(), each.clone().requires_grad_()
        y = gaussians.project_fourier(x, w, rotations, 20, 2.1)
        torch.view_as_real(y).square().sum().backward()
        return y.detach(), x.grad, w.grad

    whole = run()
    # Two images at a time: 2 axes, 20 rows, 12 points of 8 bytes each.
    monkeypatch.setattr(gaussians, "TABLE_MEMORY", 2 * 2 * 20 * 12 * 8)
    for a, b in zip(run(), whole):
        torch.testing.assert_close(a, b)
