"""What every decoder of maps promises. A new one adds a line to DECODERS."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from cryoscape.models.decoders.field import FieldDecoder
from cryoscape.models.decoders.voxels import VoxelDecoder
from cryoscape.physics import fourier
from cryoscape.physics.fourier_voxels import SliceSampler
from cryoscape.physics.rotations import random_rotations

BOX, PIXEL, Z, BAND = 20, 4.0, 3, 8
SCALE = 2.0 * BOX * PIXEL**2
SPOTS = [(0.0, 3.0, -5.0, 1.0), (8.0, -6.0, 2.0, 2.0), (-7.0, 2.0, 6.0, 1.5)]


def consensus():
    axis = (torch.arange(BOX) - BOX // 2) * PIXEL
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    return sum(w * torch.exp(-((x - a) ** 2 + (y - b) ** 2 + (z - c) ** 2) / 80) for a, b, c, w in SPOTS)


def shared():
    amplitude = torch.exp(-0.2 * torch.arange(BOX // 2 + 1.0))
    return Z, SliceSampler(BOX, BAND), PIXEL, SCALE, consensus(), amplitude


DECODERS = {
    "voxels": lambda: VoxelDecoder(*shared(), n_volumes=4, hidden=(8,)),
    "field": lambda: FieldDecoder(*shared(), hidden=(16, 16), n_frequencies=24, sigma=0.08),
}


@pytest.fixture(params=DECODERS)
def build(request):
    def make():
        torch.manual_seed(0)
        return DECODERS[request.param]().eval()

    return make


@pytest.fixture
def decoder(build):
    return build()


def enliven(decoder):
    """Weights as after training: maps that change with z."""
    g = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for p in decoder.parameters():
            p.add_(torch.randn(p.shape, generator=g) * (p.std() if p.std() > 0 else 1.0))
    return decoder


def points(n=2):
    return torch.randn(n, Z, generator=torch.Generator().manual_seed(1))


def poses(n=2):
    return random_rotations(n, torch.Generator().manual_seed(3)).float()


def test_shapes_and_single_precision(decoder):
    image = decoder(points(3)).project(poses(3), BOX, PIXEL)
    assert image.shape == (3, BOX, BOX // 2 + 1)
    assert image.dtype == torch.complex64
    maps = decoder.volumes(points(3))
    assert maps.shape == (3, BOX, BOX, BOX)
    assert maps.dtype == torch.float32


def test_training_starts_near_the_consensus(decoder):
    """Every conformation correlates with the map that was given, in its own scale."""
    want = consensus()
    with torch.no_grad():
        for got in decoder.volumes(points(3)):
            assert float((got * want).sum() / (got.norm() * want.norm())) > 0.95
            assert 0.9 < float((got * want).sum() / want.square().sum()) < 1.1


def test_a_projection_is_that_of_the_decoded_map(decoder):
    """Seen along z, the unitary transform of the map's sum over z, in image units, inside the band."""
    enliven(decoder)
    along_z = torch.eye(3).expand(2, 3, 3)
    with torch.no_grad():
        image = decoder(points()).project(along_z, BOX, PIXEL)
        flat = decoder.volumes(points()).sum(1) * PIXEL
    want = fourier.forward(flat) * (BOX * PIXEL**2 / SCALE)
    shells = fourier.shell_index(BOX)
    low = (shells > 0) & (shells <= 5)
    error = (image - want)[:, low].abs().square().sum().sqrt()
    assert float(error) < 0.2 * float(want[:, low].abs().square().sum().sqrt())


def test_different_latents_decode_differently(decoder):
    maps = enliven(decoder).volumes(points(3)).detach()
    assert float((maps[1:] - maps[:-1]).flatten(1).norm(dim=1).min()) > 0.01 * float(maps[0].norm())


def test_an_image_is_that_of_a_real_object_in_the_band(decoder):
    image = enliven(decoder)(points()).project(poses(), BOX, PIXEL).detach()
    column = image[:, :, 0]
    torch.testing.assert_close(column[:, 1 : BOX // 2], column[:, BOX // 2 + 1 :].flip(1).conj())
    radius = fourier.frequency_grid(BOX, 1 / BOX).norm(dim=-1)
    assert float(image[:, radius > BAND + 0.5].abs().max()) == 0.0
    assert float(image[:, radius <= BAND].abs().min()) > 0.0


def test_one_object_is_seen_in_all_poses(decoder):
    enliven(decoder)
    one = decoder(points(1)).project(poses(3), BOX, PIXEL)
    many = decoder(points(1).expand(3, -1)).project(poses(3), BOX, PIXEL)
    torch.testing.assert_close(one, many, rtol=1e-4, atol=1e-4 * float(many.detach().abs().max()))


def test_gradients_reach_latents_poses_and_all_parameters(decoder):
    enliven(decoder).train()
    z, rotations = points().requires_grad_(), poses().requires_grad_()
    target = torch.randn(2, BOX, BOX // 2 + 1, generator=torch.Generator().manual_seed(5))
    image = decoder(z).project(rotations, BOX, PIXEL)
    ((image.real - target).square().sum() + (image.imag - target).square().sum()).backward()
    for name, value in [("z", z), ("rotations", rotations), *decoder.named_parameters()]:
        assert value.grad is not None, name
        assert torch.isfinite(value.grad).all(), name
        assert float(value.grad.abs().max()) > 0, name


def test_saved_and_loaded_it_decodes_exactly_the_same(build, tmp_path):
    old = enliven(build())
    save_file({k: v.contiguous() for k, v in old.state_dict().items()}, tmp_path / "d.safetensors")
    new = build()
    images = [d(points()).project(poses(), BOX, PIXEL) for d in (old, new)]
    assert not torch.equal(*images)
    new.load_state_dict(load_file(tmp_path / "d.safetensors"))
    assert torch.equal(images[0], new(points()).project(poses(), BOX, PIXEL))


def test_objects_are_the_maps_as_scenes(decoder):
    """Decoded to objects and projected as such, latents give the images they give directly."""
    enliven(decoder)
    with torch.no_grad():
        objects = decoder.objects(points())
        assert objects.shape == (2, *decoder.reference.shape)
        again = decoder.scene(objects).project(poses(), BOX, PIXEL)
        image = decoder(points()).project(poses(), BOX, PIXEL)
        mean = decoder.mean_object(points())
    low = fourier.shell_index(BOX) <= 5
    assert float((again - image)[:, low].norm()) < 0.3 * float(image[:, low].norm())
    torch.testing.assert_close(mean, objects.mean(0), rtol=1e-3, atol=1e-4 * float(objects.abs().max()))


def test_coverage_and_penalty_of_a_decoder_at_rest(decoder):
    assert decoder.coverage == 1.0
    assert float(decoder.penalty()) == 0.0
    fast = {id(p) for p in decoder.fast_parameters()}
    assert fast <= {id(p) for p in decoder.parameters()}
    assert fast
