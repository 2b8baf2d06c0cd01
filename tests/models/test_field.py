"""The field decoder: symmetry, slices against maps, subsets, units."""

import math

import pytest
import torch

from cryoscape.models.decoders.field import FieldDecoder
from cryoscape.physics import fourier
from cryoscape.physics.fourier_voxels import SliceSampler
from cryoscape.physics.rotations import random_rotations
from cryoscape.physics.slices import transform_volume

BOX, PIXEL, Z = 16, 4.0, 3
SCALE = 2.0 * BOX * PIXEL**2
DOMAINS = pytest.mark.parametrize("domain", ["fourier", "hartley"])


def seeded(n=0):
    return torch.Generator().manual_seed(n)


def blob():
    """A map without symmetry, well inside the box."""
    axis = (torch.arange(BOX) - BOX // 2) * PIXEL
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    spots = [(0.0, 3.0, -5.0, 1.0), (8.0, -6.0, 2.0, 2.0), (-7.0, 2.0, 6.0, 1.5)]
    return sum(w * torch.exp(-((x - a) ** 2 + (y - b) ** 2 + (z - c) ** 2) / 60) for a, b, c, w in spots)


def build(**settings):
    torch.manual_seed(0)
    settings = {"hidden": (16, 16), "n_frequencies": 12, "sigma": 0.1, "window": 4.0, **settings}
    amplitude = torch.linspace(2.0, 0.5, BOX // 2 + 1)
    sampler = SliceSampler(BOX)
    decoder = FieldDecoder(Z, sampler, PIXEL, SCALE, blob(), amplitude, **settings)
    with torch.no_grad():
        decoder.network.last.normal_(generator=seeded(1))
    return decoder.eval()


def latents(n=2):
    return torch.randn(n, Z, generator=seeded(2))


def poses(n=2):
    return random_rotations(n, seeded(3)).float()


@DOMAINS
def test_opposite_frequencies_are_conjugate(domain):
    decoder = build(domain=domain)
    k = 5 * torch.randn(2, 40, 3, generator=seeded(4))
    k[:, :4, 0] = 0.0
    k[:, :2, 1] = 0.0
    conditions = decoder.network.conditions(latents())
    with torch.no_grad():
        here, there = decoder.field(k, conditions), decoder.field(-k, conditions)
    torch.testing.assert_close(here[..., 0], there[..., 0])
    torch.testing.assert_close(here[..., 1], -there[..., 1])
    assert float(here[..., 1].abs().max()) > 0.1


@DOMAINS
def test_a_slice_is_the_transform_of_the_map_at_its_points(domain):
    """The map's own voxels, summed with the waves of the rotated frequencies by hand."""
    decoder = build(consensus=False, domain=domain)
    axis = torch.arange(BOX, dtype=torch.float64) - BOX // 2
    # Poses that map the grid onto itself: no interpolation stands between slice and map.
    turns = torch.tensor(
        [[[0.0, 1, 0], [0, 0, 1], [1, 0, 0]], [[0, -1, 0], [1, 0, 0], [0, 0, 1]]], dtype=torch.float32
    )
    with torch.no_grad():
        maps, images = decoder.volumes(latents()), decoder(latents()).project(turns, BOX, PIXEL)
    voxels = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1).flip(-1).view(-1, 3)
    for b, (i, j) in enumerate([(2, 3), (14, 5)]):
        ky = i if i < BOX // 2 else i - BOX
        k = turns[b, :2].double().T @ torch.tensor([j, ky], dtype=torch.float64)
        phase = 2 * math.pi * (voxels @ k) / BOX
        real = float((maps[b].double().flatten() * phase.cos()).sum()) * PIXEL**3 / SCALE
        imag = -float((maps[b].double().flatten() * phase.sin()).sum()) * PIXEL**3 / SCALE
        assert float(images[b, i, j].real) == pytest.approx(real, abs=1e-4)
        assert float(images[b, i, j].imag) == pytest.approx(imag, abs=1e-4)
        assert abs(real) + abs(imag) > 0.1


def test_a_random_slice_is_the_field_at_its_points():
    decoder = build(consensus=False)
    with torch.no_grad():
        images = decoder(latents()).project(poses(), BOX, PIXEL)
        for b in range(2):
            for i, j in [(0, 4), (3, 0), (12, 0), (13, 2)]:
                ky = i if i < BOX // 2 else i - BOX
                k = poses()[b].T @ torch.tensor([j, ky, 0.0])
                value = decoder.field(k[None, None], decoder.network.conditions(latents()[b : b + 1]))[0, 0]
                assert abs(complex(*value.tolist()) - complex(images[b, i, j])) < 1e-4


def test_images_are_those_of_a_real_object_inside_the_band():
    image = build()(latents()).project(poses(), BOX, PIXEL).detach()
    assert image.shape == (2, BOX, BOX // 2 + 1)
    column = image[:, :, 0]
    torch.testing.assert_close(column[:, 1 : BOX // 2], column[:, BOX // 2 + 1 :].flip(1).conj())
    radius = fourier.frequency_grid(BOX, 1 / BOX).norm(dim=-1)
    assert float(image[:, radius > BOX / 2 - 0.5].abs().max()) == 0.0
    inside = radius < BOX / 2 - 1
    assert float(image[:, inside].abs().min()) > 0.0


def test_a_silent_network_is_the_consensus():
    decoder = build()
    with torch.no_grad():
        decoder.network.last.zero_()
        decoder.network.condition.weight[:2].zero_()
        decoder.network.condition.bias[:2].zero_()
        image = decoder(latents()).project(poses(), BOX, PIXEL)
        maps = decoder.volumes(latents())
    torch.testing.assert_close(image, decoder.scene(decoder.reference[None]).project(poses(), BOX, PIXEL))
    transform = transform_volume(blob(), PIXEL)
    got = transform_volume(maps[0], PIXEL)
    axis = torch.fft.fftfreq(BOX, 1 / BOX)
    grid = torch.meshgrid(axis, axis, torch.arange(BOX // 2 + 1.0), indexing="ij")
    low = torch.stack(grid).norm(dim=0) < 5
    assert float((got - transform)[low].abs().max()) < 0.02 * float(transform.abs().max())


def test_amplitude_scales_the_field_shell_by_shell():
    """With a field of one everywhere, an image is tau of its radius."""
    decoder = build(hidden=(4,))
    with torch.no_grad():
        for p in decoder.network.parameters():
            p.zero_()
        decoder.network.condition.bias[0] = 1.0
        decoder.reference.zero_()
        image = decoder(latents()).project(poses(), BOX, PIXEL)
    for j in range(1, 7):
        assert float(image[0, 0, j].real) == pytest.approx(2.0 - 1.5 * j / 8, abs=1e-5)


def test_maps_change_with_the_latent_and_stay_in_the_window():
    decoder = build(window=0.8)
    maps = decoder.volumes(latents(3)).detach()
    assert maps.shape == (3, BOX, BOX, BOX)
    assert float((maps[1] - maps[0]).abs().max()) > 0.01 * float(maps.abs().max())
    axis = torch.arange(BOX) - BOX // 2
    r = (axis[:, None, None] ** 2 + axis[None, :, None] ** 2 + axis**2).sqrt()
    assert float(maps[:, r > 0.8 * BOX / 2].abs().max()) == 0.0
    assert float(maps[:, r < 3].abs().min()) > 0.0


def test_subsets_are_unbiased_and_only_for_training():
    """Sums over the coefficients, divided by the coverage, average to the sums over all of them."""
    decoder = build(subset=0.25)
    assert decoder.coverage == 1.0
    full = decoder(latents()).project(poses(), BOX, PIXEL).detach()
    want = full.abs().square().sum()
    decoder.train()
    assert decoder.coverage == pytest.approx(0.25, abs=0.01)
    torch.manual_seed(6)
    total, n = 0.0, 200
    for _ in range(n):
        part = decoder(latents()).project(poses(), BOX, PIXEL).detach()
        hit = part != 0
        torch.testing.assert_close(part[hit], full[hit])
        total += float(part.abs().square().sum()) / decoder.coverage / n
    assert total == pytest.approx(float(want), rel=0.06)


def test_subsets_differ_and_follow_the_seed():
    decoder = build(subset=0.5).train()
    hits = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        hits.append(decoder(latents()).project(poses(), BOX, PIXEL) != 0)
    assert torch.equal(hits[0], hits[1])
    assert not torch.equal(hits[0], hits[2])


@DOMAINS
def test_gradients_reach_everything_also_the_poses(domain):
    decoder = build(domain=domain, activation="leaky_relu")
    z, rotations = latents().requires_grad_(), poses().requires_grad_()
    target = torch.randn(2, BOX, BOX // 2 + 1, generator=seeded(5))
    image = decoder(z).project(rotations, BOX, PIXEL)
    ((image.real - target).square().sum() + (image.imag - target).square().sum()).backward()
    for name, value in [("z", z), ("rotations", rotations), *decoder.named_parameters()]:
        assert value.grad is not None, name
        assert torch.isfinite(value.grad).all(), name
        assert float(value.grad.abs().max()) > 0, name


def test_a_batch_seen_from_one_object_is_broadcast():
    decoder = build()
    one = decoder(latents(1)).project(poses(3), BOX, PIXEL)
    many = decoder(latents(1).expand(3, -1)).project(poses(3), BOX, PIXEL)
    torch.testing.assert_close(one, many)
    assert decoder.volumes(latents(0)).shape == (0, BOX, BOX, BOX)
