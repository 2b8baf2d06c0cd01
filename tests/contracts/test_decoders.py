"""What every decoder with atoms promises. A new one adds a line to DECODERS."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from cryoscape.models.decoders.atomic import AtomicDecoder
from cryoscape.models.decoders.modes import ModesDecoder
from cryoscape.models.decoders.segments import SegmentsDecoder
from cryoscape.models.scattering import BeadScatterers, Scatterers
from cryoscape.physics import fourier
from cryoscape.physics.rotations import random_rotations
from cryoscape.structures.normal_modes import anisotropic_network_modes
from cryoscape.structures.segments import initial_segments
from tests.structures.builders import make_model, walk

N, Z, BOX, PIXEL = 24, 3, 24, 3.0
COORDS = walk(N) - walk(N).mean(0)
REFERENCE = torch.from_numpy(COORDS).float()
WEIGHTS = torch.linspace(1.0, 2.0, N)


def beads():
    return BeadScatterers(WEIGHTS)


def carried():
    """Two points a residue, held in the frame of the chain."""
    offset = torch.randn(2, N, 3, generator=torch.Generator().manual_seed(3))
    points = (REFERENCE + offset).reshape(-1, 3)
    return Scatterers(
        REFERENCE, points, WEIGHTS.repeat(2), torch.arange(N).repeat(2), torch.ones(N - 1, dtype=torch.bool)
    )


def modes():
    return torch.as_tensor(anisotropic_network_modes(COORDS, 4, 15.0)[1])


DECODERS = {
    "atomic": lambda s: AtomicDecoder(Z, REFERENCE, s, hidden=(8, 16)),
    "modes": lambda s: ModesDecoder(Z, REFERENCE, s, modes(), hidden=(8, 16)),
    "segments": lambda s: SegmentsDecoder(
        Z, REFERENCE, s, initial_segments(make_model(COORDS), 3), hidden=(8, 16)
    ),
}
SCATTERERS = {"beads": beads, "carried": carried}


@pytest.fixture(params=DECODERS)
def build(request):
    return DECODERS[request.param]


@pytest.fixture
def decoder(build):
    return build(beads())


def points(n=5, spread=1.0):
    return spread * torch.randn(n, Z, generator=torch.Generator().manual_seed(1))


def enliven(decoder):
    """Weights as after training: motions of several Angstrom."""
    with torch.no_grad():
        decoder.network[-1].weight.mul_(30.0)
        decoder.network[-1].bias.normal_(generator=torch.Generator().manual_seed(2))
    return decoder


def test_shapes_and_single_precision(decoder):
    coords = decoder.coordinates(points(5))
    assert coords.shape == (5, N, 3)
    assert coords.dtype == torch.float32
    y = decoder(points(5)).project(random_rotations(5, torch.Generator().manual_seed(0)).float(), BOX, PIXEL)
    assert y.shape == (5, BOX, BOX // 2 + 1)
    assert y.dtype == torch.complex64
    assert decoder.coordinates(points(0)).shape == (0, N, 3)


def test_starts_near_the_reference(decoder):
    moved = (decoder.coordinates(points(64)) - REFERENCE).norm(dim=-1).detach()
    assert float(moved.square().mean().sqrt()) < 1.0
    assert float(moved.max()) > 0.0


def test_different_latents_decode_differently(decoder):
    coords = enliven(decoder).coordinates(points(8))
    assert float((coords[1:] - coords[:-1]).norm(dim=-1).amax(1).min()) > 0.1


@pytest.mark.parametrize("scatterers", SCATTERERS)
def test_gradients_reach_latents_and_all_parameters(build, scatterers):
    decoder = enliven(build(SCATTERERS[scatterers]()))
    z = points(4).requires_grad_()
    rotations = random_rotations(4, torch.Generator().manual_seed(0)).float()
    target = torch.randn(4, BOX, BOX // 2 + 1, generator=torch.Generator().manual_seed(5))
    y = decoder(z).project(rotations, BOX, PIXEL)
    ((y.real - target).square().sum() + (y.imag - target).square().sum()).backward()
    assert torch.isfinite(z.grad).all()
    assert float(z.grad.abs().min()) > 0
    for name, parameter in decoder.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert float(parameter.grad.abs().max()) > 0, name


def test_the_gradient_is_the_slope(build):
    decoder = enliven(build(beads())).double()
    z = points(2, 0.5).double()
    assert torch.autograd.gradcheck(decoder.coordinates, (z.requires_grad_(),), eps=1e-6, atol=1e-5)


@pytest.mark.parametrize("scatterers", SCATTERERS)
def test_saved_and_loaded_it_decodes_exactly_the_same(build, scatterers, tmp_path):
    old = enliven(build(SCATTERERS[scatterers]()))
    save_file({k: v.contiguous() for k, v in old.state_dict().items()}, tmp_path / "decoder.safetensors")
    torch.manual_seed(99)
    new = build(SCATTERERS[scatterers]())
    rotations = random_rotations(5, torch.Generator().manual_seed(0)).float()
    images = [d(points()).project(rotations, BOX, PIXEL) for d in (old, new)]
    assert not torch.equal(*images)
    new.load_state_dict(load_file(tmp_path / "decoder.safetensors"))
    assert torch.equal(images[0], new(points()).project(rotations, BOX, PIXEL))


def test_one_latent_always_decodes_to_one_structure(decoder):
    enliven(decoder)
    first = decoder.train().coordinates(points())
    torch.rand(7)
    assert torch.equal(first, decoder.train().coordinates(points()))
    assert torch.equal(first, decoder.eval().coordinates(points()))
    torch.testing.assert_close(first[2:3], decoder.coordinates(points()[2:3]), rtol=0, atol=1e-5)


@pytest.mark.parametrize("scatterers", SCATTERERS)
def test_a_moved_structure_projects_moved(build, scatterers):
    """Translation: a phase ramp by the view of the vector. Rotation: as if seen in the turned pose."""
    decoder = build(SCATTERERS[scatterers]())
    coords = decoder.coordinates(points(3))
    g = torch.Generator().manual_seed(4)
    rotations, turn = random_rotations(3, g).float(), random_rotations(1, g).float()[0]
    shift = torch.tensor([2.0, -3.0, 1.5])
    y = decoder.scene(coords).project(rotations, BOX, PIXEL)
    scale = float(y.abs().max())
    ramp = fourier.shift_phase((rotations @ shift)[:, :2], fourier.frequency_grid(BOX, PIXEL))
    shifted = decoder.scene(coords + shift).project(rotations, BOX, PIXEL)
    torch.testing.assert_close(shifted, y * ramp, rtol=0, atol=1e-4 * scale)
    turned = decoder.scene(coords @ turn.T).project(rotations, BOX, PIXEL)
    seen = decoder.scene(coords).project(rotations @ turn, BOX, PIXEL)
    if scatterers == "beads":
        torch.testing.assert_close(turned, seen, rtol=0, atol=1e-4 * scale)
    else:
        # All but the points of loose ends turn with the chain.
        assert float((turned - seen).abs().max()) < 1e-3 * scale


def test_the_centre_of_the_transform_is_the_electron_count(decoder):
    y = decoder(points()).project(random_rotations(5, torch.Generator().manual_seed(0)).float(), BOX, PIXEL)
    torch.testing.assert_close(y[:, 0, 0], torch.ones(5, dtype=y.dtype), rtol=0, atol=1e-5)


def test_penalty_is_a_number_per_data_set(decoder):
    assert decoder.penalty().shape == ()
    assert float(decoder.penalty()) == 0.0


# -- what only one of them promises ------------------------------------------------------------


def constant(decoder, out):
    """Make the network answer `out` whatever z is."""
    with torch.no_grad():
        decoder.network[-1].weight.zero_()
        decoder.network[-1].bias.copy_(torch.as_tensor(out))
    return decoder.coordinates(points(1))[0].detach()


def test_a_mode_of_one_angstrom_is_reproduced():
    decoder = DECODERS["modes"](beads())
    patterns = np.asarray(modes())
    for k, amplitude in ((0, 1.0), (2, -3.5)):
        out = torch.zeros(10)
        out[k] = amplitude
        moved = constant(decoder, out).numpy() - REFERENCE.numpy()
        want = amplitude * patterns[k] / np.sqrt((patterns[k] ** 2).sum(-1).mean())
        np.testing.assert_allclose(moved, want, atol=1e-4)
        assert abs(np.sqrt((moved**2).sum(-1).mean()) - abs(amplitude)) < 1e-4


def test_the_rigid_correction_of_modes_keeps_all_distances():
    decoder = DECODERS["modes"](beads())
    out = torch.zeros(10)
    out[4:7], out[7:] = torch.tensor([5.0, -3.0, 8.0]), torch.tensor([1.0, 2.0, -4.0])
    moved = constant(decoder, out)
    torch.testing.assert_close(
        torch.cdist(moved, moved), torch.cdist(REFERENCE, REFERENCE), atol=1e-3, rtol=0
    )
    torch.testing.assert_close(moved.mean(0) - REFERENCE.mean(0), out[7:], atol=1e-4, rtol=0)
    assert float((moved - REFERENCE - out[7:]).norm(dim=1).max()) > 2.0


def test_modes_without_rigid_correction_have_no_outputs_for_it():
    decoder = ModesDecoder(Z, REFERENCE, beads(), modes(), hidden=(8,), rigid=False)
    assert decoder.network[-1].out_features == 4
    torch.testing.assert_close(constant(decoder, torch.zeros(4)), REFERENCE)


def test_segments_move_rigidly():
    """With sharp borders every residue follows its own segment; inside one, distances stay."""
    decoder = SegmentsDecoder(
        Z, REFERENCE, beads(), initial_segments(make_model(COORDS), 3), hidden=(8,), temperature=1e-4
    )
    out = torch.randn(3, 6, generator=torch.Generator().manual_seed(8))
    out[:, 3:] *= 5.0
    moved = constant(decoder, out.flatten())
    owner = decoder.shares().argmax(1)
    assert float(decoder.shares().max(1).values.min()) > 0.999
    assert sorted(owner.unique().tolist()) == [0, 1, 2]
    before, after = torch.cdist(REFERENCE, REFERENCE), torch.cdist(moved, moved)
    same = owner[:, None] == owner
    assert float((after - before)[same].abs().max()) < 5e-2
    assert float((after - before)[~same].abs().max()) > 2.0
    for k in range(3):
        centre = REFERENCE[owner == k].mean(0)
        torch.testing.assert_close(moved[owner == k].mean(0), centre + out[k, 3:], atol=2e-2, rtol=0)


def test_shares_of_segments_add_up_to_one():
    shares = DECODERS["segments"](beads()).shares()
    torch.testing.assert_close(shares.sum(1), torch.ones(N))


# -- what those promise whose chains may be absent ----------------------------------------------

CHAIN = torch.repeat_interleave(torch.arange(3), torch.tensor([6, 11, 7]))
OCCUPIED = {
    "free": {"occupancy": "free"},
    "free, still": {"occupancy": "free", "displace": False},
    "tied": {"occupancy": "tied"},
    "tied, still": {"occupancy": "tied", "displace": False},
}


@pytest.fixture(params=OCCUPIED)
def occupied(request):
    return lambda s: AtomicDecoder(
        Z, REFERENCE, s, hidden=(8, 16), chain=CHAIN, initial=1.0, **OCCUPIED[request.param]
    )


def relaxed(n=5):
    return torch.rand(n, Z, generator=torch.Generator().manual_seed(1))


def seen(decoder, z):
    rotations = random_rotations(len(z), torch.Generator().manual_seed(0)).float()
    return decoder(z).project(rotations, BOX, PIXEL)


@pytest.mark.parametrize("scatterers", SCATTERERS)
def test_occupancies_have_shapes_and_limits(occupied, scatterers):
    decoder = occupied(SCATTERERS[scatterers]())
    z = relaxed()
    occupancy = decoder.occupancy(z)
    assert occupancy.shape == (5, 3)
    assert occupancy.dtype == torch.float32
    assert torch.equal(occupancy[:, 1], torch.ones(5))
    assert 0 <= float(occupancy.detach().min()) <= float(occupancy.detach().max()) <= 1
    assert decoder.coordinates(z).shape == (5, N, 3)
    assert decoder.coordinates(relaxed(0)).shape == (0, N, 3)
    assert seen(decoder, z).dtype == torch.complex64


@pytest.mark.parametrize("scatterers", SCATTERERS)
def test_the_centre_of_the_transform_is_the_share_of_electrons_that_is_there(occupied, scatterers):
    decoder = occupied(SCATTERERS[scatterers]())
    z = relaxed()
    share = torch.stack([WEIGHTS[c == CHAIN].sum() for c in range(3)]) / WEIGHTS.sum()
    want = (decoder.occupancy(z) @ share).to(torch.complex64)
    torch.testing.assert_close(seen(decoder, z)[:, 0, 0], want, rtol=0, atol=1e-5)


@pytest.mark.parametrize("scatterers", SCATTERERS)
def test_gradients_reach_latents_and_parameters_through_occupancies(occupied, scatterers):
    decoder = occupied(SCATTERERS[scatterers]())
    z = relaxed().requires_grad_()
    torch.view_as_real(seen(decoder, z)).square().sum().backward()
    assert torch.isfinite(z.grad).all()
    assert float(z.grad[:, :2].abs().min()) > 0
    for name, parameter in decoder.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert float(parameter.grad.abs().max()) > 0, name


@pytest.mark.parametrize("scatterers", SCATTERERS)
def test_saved_and_loaded_occupancies_are_the_same(occupied, scatterers, tmp_path):
    old = occupied(SCATTERERS[scatterers]())
    save_file({k: v.contiguous() for k, v in old.state_dict().items()}, tmp_path / "decoder.safetensors")
    torch.manual_seed(99)
    new = occupied(SCATTERERS[scatterers]())
    new.load_state_dict(load_file(tmp_path / "decoder.safetensors"))
    assert torch.equal(old.occupancy(relaxed()), new.occupancy(relaxed()))
    assert torch.equal(seen(old, relaxed()), seen(new, relaxed()))


def test_decoders_whose_chains_always_are_there_have_no_occupancy(decoder):
    assert decoder.occupancy(points()) is None
    assert decoder(points()).weights is None
