import numpy as np
import pytest
import torch

from cryoscape.physics import fourier_voxels as voxels
from cryoscape.physics.rotations import random_rotations
from cryoscape.physics.slices import extract_slices, transform_volume

BOX = 16


@pytest.fixture
def transforms():
    g = torch.Generator().manual_seed(0)
    return transform_volume(torch.randn(3, BOX, BOX, BOX, generator=g), 1.0)


@pytest.fixture
def rotations():
    return random_rotations(5, torch.Generator().manual_seed(1)).float()


def table_of(transforms):
    return voxels.to_rows(transforms).permute(1, 2, 0).contiguous()


def test_rows_come_back_as_they_went(transforms):
    back = voxels.from_rows(voxels.to_rows(transforms), BOX)
    torch.testing.assert_close(torch.view_as_real(back), torch.view_as_real(transforms))


def test_a_row_stands_where_its_frequency_is(transforms):
    high, wide, half = voxels.rows_shape(BOX)
    rows = voxels.to_rows(transforms[0]).view(high, wide, half, 2)
    kz, ky, kx = -3, 5, 2
    value = rows[kz + BOX // 2, ky + BOX // 2, kx]
    assert complex(*value.tolist()) == pytest.approx(complex(transforms[0, kz, ky, kx]))


def test_slices_are_those_of_the_plain_formula(transforms, rotations):
    sampler = voxels.SliceSampler(BOX)
    values = sampler.sample(table_of(transforms), rotations)
    want = extract_slices(transforms, rotations).flatten(2)[..., sampler.index]
    got = torch.view_as_complex(values.permute(3, 0, 1, 2).contiguous())
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)


def test_one_wave_in_an_off_axis_pose():
    """A point density at x0 has F(k) = exp(-2 pi i k.x0); along a grid axis no interpolation is needed."""
    x0 = np.array([2.0, -3.0, 1.0])
    volume = torch.zeros(BOX, BOX, BOX)
    volume[BOX // 2 + 1, BOX // 2 - 3, BOX // 2 + 2] = 1.0
    turn = torch.tensor([[[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]])
    sampler = voxels.SliceSampler(BOX)
    image = sampler.image(sampler.sample(table_of(transform_volume(volume, 1.0)[None]), turn)[..., 0])[0]
    view = turn[0].double().numpy() @ x0
    kx, ky = 3, -4
    want = np.exp(-2j * np.pi * (kx * view[0] + ky * view[1]) / BOX)
    assert complex(image[ky, kx]) == pytest.approx(want, abs=1e-5)


def test_the_transpose_is_the_transpose(transforms, rotations):
    """<g, S v> = <S^T g, v>, with the gradient as S^T."""
    sampler = voxels.SliceSampler(BOX)
    table = table_of(transforms).requires_grad_()
    values = sampler.sample(table, rotations)
    g = torch.randn(values.shape, generator=torch.Generator().manual_seed(2))
    (gradient,) = torch.autograd.grad((values * g).sum(), table)
    other = torch.randn(table.shape, generator=torch.Generator().manual_seed(3))
    left = (sampler.sample(other, rotations) * g).sum()
    torch.testing.assert_close((gradient * other).sum(), left, rtol=1e-4, atol=1e-2)


def test_gradient_in_the_pose_is_that_of_finite_differences(transforms):
    sampler = voxels.SliceSampler(BOX, band=5)
    table = table_of(transforms).double()
    base = random_rotations(1, torch.Generator().manual_seed(4)).double()
    sampler._frequency = sampler._frequency.double()

    def value(angle):
        c, s = torch.cos(angle), torch.sin(angle)
        zero, one = torch.zeros_like(c), torch.ones_like(c)
        turn = torch.stack([c, -s, zero, s, c, zero, zero, zero, one]).view(1, 3, 3)
        return sampler.sample(table, turn @ base).square().sum()

    angle = torch.tensor(0.1, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(value(angle), angle)
    with torch.no_grad():
        step = 1e-6
        numeric = (value(angle + step) - value(angle - step)) / (2 * step)
    torch.testing.assert_close(slope, numeric, rtol=1e-4, atol=1e-4)


def test_a_band_leaves_out_the_shells_beyond_it():
    full, narrow = voxels.SliceSampler(BOX), voxels.SliceSampler(BOX, band=4)
    assert float(narrow.radius.max()) <= 4.5
    assert len(narrow.index) == int((full.radius <= 4.5).sum())
