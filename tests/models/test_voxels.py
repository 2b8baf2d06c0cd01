"""The voxels decoder: maps against slices, units, mask."""

import pytest
import torch

from cryoscape.models.decoders.voxels import VoxelDecoder, radial
from cryoscape.physics import fourier, gaussians
from cryoscape.physics.fourier_voxels import SliceSampler
from cryoscape.physics.resolution import soft_sphere
from cryoscape.physics.rotations import random_rotations

BOX, PIXEL, SIGMA = 32, 3.0, 5.0
SCALE = BOX * PIXEL**2
POINTS = torch.tensor([[9.0, -6.0, 4.0], [-12.0, 3.0, -8.0], [2.0, 14.0, 6.0]])
WEIGHTS = torch.tensor([1.0, 2.0, 1.5])


def blobs():
    return gaussians.voxelise(POINTS, WEIGHTS, SIGMA, BOX, PIXEL)


def build(**more):
    torch.manual_seed(0)
    amplitude = torch.linspace(2.0, 0.1, BOX // 2 + 1)
    return VoxelDecoder(2, SliceSampler(BOX), PIXEL, SCALE, blobs(), amplitude, n_volumes=3, **more)


@pytest.fixture
def rotations():
    return random_rotations(4, torch.Generator().manual_seed(5)).float()


def test_at_the_start_every_latent_is_the_consensus():
    decoder = build()
    with torch.no_grad():
        maps = decoder.volumes(torch.randn(2, 2))
    assert float((maps - blobs()).abs().max()) < 0.02 * float(blobs().max())


def test_projections_are_those_of_the_gaussians_in_the_units_of_images(rotations):
    """Independent formula: analytic projections of the Gaussians, in unitary coefficients."""
    want = fourier.forward(
        gaussians.project_real(POINTS[None].expand(4, -1, -1), WEIGHTS, SIGMA, rotations, BOX, PIXEL)
    )
    decoder = build()
    for scene in (decoder(torch.zeros(4, 2)), decoder.scene(decoder.reference[None])):
        got = scene.project(rotations, BOX, PIXEL)
        inside = got.abs() > 0
        error = (got - want)[inside].abs().square().mean().sqrt()
        # What trilinear interpolation without padding costs at this size of the particle in its box.
        assert float(error) < 0.05 * float(want[inside].abs().square().mean().sqrt())


def test_a_map_and_its_slices_are_one(rotations):
    """Slices of a random mixture against the analytic slices of the map that is written for it."""
    decoder = build()
    with torch.no_grad():
        decoder.table[..., 1:] = 0.3 * torch.randn_like(decoder.table[..., :3])
        decoder.mask = soft_sphere(BOX, 9.0, 3.0)
        decoder.constrain()
        z = torch.tensor([[0.7, -1.1]])
        slices = decoder(z).project(rotations, BOX, PIXEL)
        again = decoder.scene(decoder.objects(z)).project(rotations, BOX, PIXEL)
    inside = slices.abs() > 0
    error = (slices - again)[inside].abs().square().mean().sqrt()
    assert float(error) < 0.05 * float(slices[inside].abs().square().mean().sqrt())


def test_the_mean_object_is_the_mean_of_the_objects():
    decoder = build()
    with torch.no_grad():
        decoder.table[..., 1:] = torch.randn_like(decoder.table[..., 1:])
        z = torch.randn(5, 2)
        torch.testing.assert_close(decoder.mean_object(z), decoder.objects(z).mean(0), rtol=1e-3, atol=1e-3)


def test_the_mask_empties_the_solvent():
    decoder = build(mask=soft_sphere(BOX, 8.0, 3.0))
    with torch.no_grad():
        decoder.table[..., 1:] = torch.randn_like(decoder.table[..., 1:])
        before = decoder.volumes(torch.ones(1, 2))[0]
        decoder.constrain()
        after = decoder.volumes(torch.ones(1, 2))[0]
    outside = soft_sphere(BOX, 12.0, 3.0) == 0
    assert float(after[outside].square().mean()) < 0.02 * float(before[outside].square().mean())


def test_gradients_reach_table_and_network(rotations):
    decoder = build()
    with torch.no_grad():
        decoder.table[..., 1:] = torch.randn_like(decoder.table[..., 1:])
    z = torch.randn(4, 2, requires_grad=True)
    decoder(z).project(rotations, BOX, PIXEL).abs().square().sum().backward()
    assert float(z.grad.abs().min()) > 0
    assert all(float(p.grad.abs().max()) > 0 for p in decoder.parameters())


def test_radial_functions_are_interpolated():
    values = torch.tensor([1.0, 3.0, 2.0])
    assert radial(values, torch.tensor([0.0, 0.5, 1.25, 2.0, 9.0])).tolist() == [1.0, 2.0, 2.75, 2.0, 2.0]
