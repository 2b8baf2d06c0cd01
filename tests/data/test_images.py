from dataclasses import replace

import numpy as np
import pytest
import torch

from cryoscape.data.images import BandImages, band_box
from cryoscape.errors import InputError
from cryoscape.physics import fourier
from cryoscape.physics.ctf import ctf
from tests.training.builders import BOX, PIXEL, make_sample

N = 40


@pytest.fixture(scope="module")
def particles(tmp_path_factory):
    return make_sample(tmp_path_factory.mktemp("images"), n=N).particles


def unmoved(particles):
    return replace(particles, shifts=np.zeros((len(particles), 2)))


class Drawn:
    """A stack that lies in memory."""

    def __init__(self, images):
        self.pixels = np.asarray(images, dtype=np.float32)
        self.box = self.pixels.shape[-1]

    def images(self, rows):
        return self.pixels[np.asarray(rows)].copy()


def optics(particles, **changes):
    return replace(particles, optics=tuple(replace(group, **changes) for group in particles.optics))


@pytest.mark.parametrize(
    ("box", "pixel", "cutoff", "want"), [(128, 1.0, 4.0, 64), (128, 1.0, 2.0, 128), (100, 1.2, 7.0, 36)]
)
def test_the_band_box_is_the_smallest_that_holds_the_band(box, pixel, cutoff, want):
    got = band_box(box, pixel, cutoff)
    assert got == want
    assert got % 2 == 0
    assert 2 * box * pixel / got <= cutoff + 1e-9


def test_cropped_coefficients_are_those_of_the_full_image(particles):
    """By numpy's transform of the whole image, coefficient by coefficient, inside the band."""
    images = BandImages(unmoved(particles), 9.0)
    assert images.box < BOX
    assert images.box * images.pixel_size == pytest.approx(BOX * PIXEL)
    rows = torch.tensor([3, 0, 17])
    got = images.batch(rows).images.numpy()
    pixels = particles.images(rows.numpy()).astype(float)
    full = np.fft.fft2(np.fft.ifftshift(pixels, axes=(1, 2)), norm="ortho")
    half = images.box // 2
    for ky in range(-half + 1, half):
        np.testing.assert_allclose(got[:, ky, :half], full[:, ky, :half], atol=1e-4)


def test_shifts_bring_an_off_centre_particle_to_the_centre(particles):
    """A blob drawn off centre has its centre of mass at the origin afterwards, to 1e-4 of a pixel."""
    g = np.random.default_rng(0)
    shifts = g.uniform(-8, 8, (N, 2))
    axis = (np.arange(BOX) - BOX // 2) * PIXEL
    d2 = (axis[None, None, :] - shifts[:, 0, None, None]) ** 2 + (
        axis[None, :, None] - shifts[:, 1, None, None]
    ) ** 2
    placed = replace(particles, shifts=shifts, stack=Drawn(np.exp(-d2 / (2 * 6.0**2))))
    images = BandImages(placed, 2 * PIXEL)
    centred = fourier.inverse(images.batch(torch.arange(N)).images, images.box).numpy()
    total = centred.sum((1, 2))
    for axis_number in (1, 2):
        position = (centred.sum(3 - axis_number) * (np.arange(BOX) - BOX // 2)).sum(1) / total
        assert np.abs(position).max() < 1e-4


def test_an_image_is_moved_against_its_shift(particles):
    """One white pixel four columns right of the centre and two rows up, with the shift that says so."""
    drawn = np.zeros((N, BOX, BOX))
    drawn[:, BOX // 2 - 2, BOX // 2 + 4] = 1.0
    shifts = np.tile([4 * PIXEL, -2 * PIXEL], (N, 1))
    images = BandImages(replace(particles, shifts=shifts, stack=Drawn(drawn)), 2 * PIXEL)
    centred = fourier.inverse(images.batch(torch.tensor([0])).images, BOX)[0]
    assert divmod(int(centred.argmax()), BOX) == (BOX // 2, BOX // 2)


def test_ctf_is_that_of_physics_on_the_cropped_grid(particles):
    g = np.random.default_rng(1)
    varied = replace(
        particles,
        defocus_v=particles.defocus_u - 900.0,
        defocus_angle=g.uniform(0, 180, N),
        phase_shift=g.uniform(0, 90, N),
        ctf_bfactor=g.uniform(0, 80, N),
        ctf_scale=g.uniform(0.5, 1.5, N),
    )
    images = BandImages(varied, 9.0)
    rows = torch.tensor([5, 1, 30])
    group, i = varied.optics[0], rows.numpy()
    want = ctf(
        fourier.frequency_grid(images.box, images.pixel_size),
        *(torch.from_numpy(v[i]) for v in (varied.defocus_u, varied.defocus_v, varied.defocus_angle)),
        group.voltage,
        group.cs,
        group.amplitude_contrast,
        torch.from_numpy(varied.phase_shift[i]),
        torch.from_numpy(varied.ctf_bfactor[i]),
        torch.from_numpy(varied.ctf_scale[i]),
    )
    torch.testing.assert_close(images.ctf(rows), want, rtol=0, atol=1e-5)
    assert images.ctf(rows).dtype == torch.float32


def test_flipped_phases_have_a_positive_ctf(particles):
    plain, flipped = BandImages(particles, 9.0), BandImages(optics(particles, phase_flipped=True), 9.0)
    rows = torch.arange(6)
    assert float(plain.ctf(rows).min()) < -0.5
    torch.testing.assert_close(flipped.ctf(rows), plain.ctf(rows).abs())


def test_memory_and_stream_give_the_same_batches(particles):
    kept, streamed = BandImages(particles, 9.0), BandImages(particles, 9.0, cache_memory=0.0)
    kept.prepare()
    streamed.prepare()
    rows = torch.tensor([7, 7, 0, 39])
    for name in ("rows", "images", "ctf", "rotations", "group"):
        assert torch.equal(getattr(kept.batch(rows), name), getattr(streamed.batch(rows), name))
    # The stream goes back to the files, the cache does not.
    for images in (kept, streamed):
        images.particles = replace(particles, stack=Drawn(np.ones((N, BOX, BOX))))
    assert torch.equal(kept.batch(rows).images, BandImages(particles, 9.0).batch(rows).images)
    assert not torch.equal(streamed.batch(rows).images, kept.batch(rows).images)


def test_the_cache_is_as_large_as_announced(particles):
    images = BandImages(particles, 9.0)
    images.prepare()
    assert images.cache_bytes == images._cache.numel() * images._cache.element_size()


def test_the_sign_of_the_data_is_applied(particles):
    a, b = (BandImages(particles.with_sign(s), 9.0).batch(torch.arange(3)).images for s in (1, -1))
    torch.testing.assert_close(a, -b)


def test_groups_follow_their_particles(particles):
    group = np.arange(N) % 2
    two = replace(
        particles, group=group, optics=(particles.optics[0], replace(particles.optics[0], voltage=200.0))
    )
    images = BandImages(two, 9.0)
    assert images.n_groups == 2
    rows = torch.tensor([1, 4, 5])
    assert images.batch(rows).group.tolist() == [1, 0, 1]
    one = BandImages(particles, 9.0)
    same = [torch.equal(images.ctf(rows)[i], one.ctf(rows)[i]) for i in range(3)]
    assert same == [False, True, False]


def test_what_cannot_be_trained_on_is_refused(particles):
    with pytest.raises(InputError, match="no poses"):
        BandImages(replace(particles, rotations=None), 9.0)
    with pytest.raises(InputError, match="multiplied by their CTF"):
        BandImages(optics(particles, ctf_premultiplied=True), 9.0)
    with pytest.raises(InputError, match=r"beyond the Nyquist limit of 6\.00 A") as caught:
        BandImages(particles, 5.9)
    assert "--data.cutoff 6.00" in caught.value.remedy
    BandImages(particles, 6.0)


@pytest.mark.parametrize("memory", [2.0, 0.0])
@pytest.mark.parametrize("fault", [np.nan, np.inf])
def test_a_pixel_that_is_no_number_is_refused_by_row(particles, memory, fault):
    pixels = particles.images(np.arange(N))
    pixels[23, 4, 5] = fault
    images = BandImages(replace(particles, stack=Drawn(pixels)), 9.0, cache_memory=memory)
    read = images.prepare if memory else lambda: images.batch(torch.tensor([2, 23, 5]))
    with pytest.raises(InputError, match="not finite") as caught:
        read()
    assert caught.value.row == 24
    assert caught.value.file == particles.source.path
