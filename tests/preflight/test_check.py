"""The check finds how simulated particles must be read, and refuses what does not fit."""

import json
from dataclasses import replace
from types import SimpleNamespace

import mrcfile
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from cryoscape.errors import InputError
from cryoscape.preflight import report as words
from cryoscape.preflight.check import preflight
from cryoscape.preflight.working_set import load_working_set
from tests.preflight.sample import BOX, CORNER, PIXEL, SIGMA, as_model, chain, write_set

COORDS = chain()
# Away from the centre, so that the frames differ from the centroid's.
PLACED = COORDS + np.array([6.0, -9.0, 4.5])


@pytest.fixture(scope="module")
def particles(tmp_path_factory):
    return write_set(tmp_path_factory.mktemp("set"), PLACED)


@pytest.fixture(scope="module")
def noise(tmp_path_factory):
    return write_set(tmp_path_factory.mktemp("noise"), PLACED, signal=0.0)


@pytest.mark.parametrize(
    ("frame", "coords", "offset"),
    [
        ("corner", PLACED + CORNER, [CORNER] * 3),
        ("centre", PLACED, [0.0] * 3),
        ("moved", COORDS + np.array([70.0, -20.0, 11.0]), [64.0, -11.0, 6.5]),
    ],
)
def test_the_frame_of_the_model_is_found(particles, frame, coords, offset):
    found = preflight(particles, as_model(coords))
    found.require()
    assert (found.verdict, found.frame, found.hand, found.poses) == ("fits", frame, "as read", "as read")
    assert found.data_sign == 1
    assert not found.sign_changed
    assert np.allclose(found.offset, offset, atol=0.75 if frame == "moved" else 1e-6)
    assert np.allclose(found.to_world(coords), PLACED, atol=0.75)


def test_a_centred_particle_with_a_model_from_anywhere(tmp_path):
    found = preflight(write_set(tmp_path, COORDS), as_model(COORDS + np.array([200.0, 33.0, -71.0])))
    assert (found.verdict, found.frame) == ("fits", "centroid")
    assert np.allclose(found.offset, [200.0, 33.0, -71.0], atol=1e-4)


def test_another_conformation_is_kept_in_its_frame(particles):
    bent = PLACED.copy()
    bent[24:] = (bent[24:] - bent[24]) @ Rotation.from_rotvec([0.0, 0.8, 0.0]).as_matrix().T + bent[24]
    assert np.linalg.norm(bent - PLACED, axis=1).max() > 5
    found = preflight(particles, as_model(bent + CORNER))
    found.require()
    assert found.verdict in ("fits", "doubtful")
    assert found.score < 0.95
    assert (found.frame, found.hand, found.data_sign) == ("corner", "as read", 1)


def test_inverted_images_are_found(particles):
    inverted = particles.with_sign(-1)
    found = preflight(inverted, as_model(PLACED + CORNER))
    assert (found.verdict, found.frame, found.data_sign, found.sign_changed) == ("fits", "corner", 1, True)
    assert found.apply(inverted).data_sign == 1
    again = preflight(found.apply(inverted), as_model(PLACED + CORNER))
    assert (again.data_sign, again.sign_changed) == (1, False)


@pytest.mark.parametrize("factors", [(1, 1, -1), (-1, 1, 1), (-1, -1, -1)])
def test_a_mirrored_model_is_found_and_its_poses_mended(particles, factors):
    model = as_model(PLACED * factors + CORNER)
    found = preflight(particles, model)
    assert found.verdict == "fits"
    assert words.HANDS[found.hand] == factors
    with pytest.raises(InputError, match="mirror image"):
        found.require()
    mended = found.apply(particles)
    assert np.allclose(np.linalg.det(mended.rotations), 1.0)
    again = preflight(mended, model)
    again.require()
    assert (again.verdict, again.hand) == ("fits", "as read")


def test_transposed_rotations_are_diagnosed(particles):
    wrong = replace(particles, rotations=particles.rotations.transpose(0, 2, 1))
    found = preflight(wrong, as_model(PLACED + CORNER))
    assert (found.poses, found.verdict) == (words.TRANSPOSED, "fits")
    with pytest.raises(InputError, match="transposed rotations"):
        found.require()
    assert np.allclose(found.apply(wrong).rotations, particles.rotations)
    assert preflight(wrong).poses == words.TRANSPOSED


@pytest.mark.parametrize(
    ("reading", "factor"),
    [(words.OTHER_SIGN, -1.0), (words.TOO_SMALL, 1 / PIXEL), (words.TOO_LARGE, PIXEL)],
)
def test_misread_shifts_are_diagnosed(particles, reading, factor):
    wrong = replace(particles, shifts=particles.shifts * factor)
    found = preflight(wrong, as_model(PLACED + CORNER))
    assert found.poses == reading
    with pytest.raises(InputError, match="shifts"):
        found.require()
    assert np.allclose(found.apply(wrong).shifts, particles.shifts)


def test_another_structure_is_refused(particles):
    found = preflight(particles, as_model(chain(seed=11) + CORNER))
    assert found.verdict == "does not fit"
    assert (found.hand, found.data_sign, found.frame) == ("as read", 1, "corner")
    with pytest.raises(InputError, match="do not fit these images") as error:
        found.require()
    assert "--force" in error.value.remedy


def test_poses_of_other_particles_are_refused(particles):
    order = np.random.default_rng(0).permutation(len(particles))
    found = preflight(replace(particles, rotations=particles.rotations[order]), as_model(PLACED + CORNER))
    with pytest.raises(InputError, match="do not fit these images"):
        found.require()


def test_noise_is_refused(noise):
    found = preflight(noise, as_model(PLACED + CORNER))
    assert found.verdict == "does not fit"
    assert found.nats_per_image < 0.2
    assert any("too little signal" in note for note in found.notes)
    with pytest.raises(InputError, match="do not fit these images"):
        found.require()


def test_without_a_model_the_map_speaks(particles, noise):
    found = preflight(particles)
    found.require()
    assert (found.verdict, found.poses, found.data_sign, found.sign_source) == (
        "no model",
        "as read",
        1,
        "density",
    )
    assert preflight(particles.with_sign(-1)).data_sign == 1
    assert 2 * PIXEL <= found.map_resolution < 10
    assert preflight(noise).map_resolution > 30


def test_figures_of_the_data(particles):
    found = preflight(particles, as_model(PLACED + CORNER))
    assert found.noise_sd == pytest.approx(1.0, abs=0.03)
    # Simulated: variance ratio 0.1, hence 0.1 * 32^2 / 2 = 51 nats, little of it in the constant term.
    assert found.snr == pytest.approx(0.1, rel=0.2)
    assert found.nats_per_image == pytest.approx(51, rel=0.2)
    assert found.halves == (150, 150)
    assert found.half_source == "file"
    assert found.repeated == 0
    assert 8000 <= found.defocus[0] < found.defocus[1] <= 20000
    assert found.orientation_efficiency > 0.85
    assert found.band == pytest.approx(2 * PIXEL)


def test_repeated_images_are_counted(particles):
    doubled = particles.select(np.r_[np.arange(300), np.arange(7)])
    assert preflight(doubled, limit=100).repeated == 7


def test_the_report_in_words_and_json(particles):
    found = preflight(particles.with_sign(-1), as_model(PLACED + CORNER))
    text = str(found)
    for phrase in (
        "300, 32 px at 3.000 A",
        "half maps agree",
        "which the files do not say",
        "corner of the box",
    ):
        assert phrase in text
    values = json.loads(found.to_json())
    assert values["text"] == text
    assert values["band"] == found.band
    assert values["candidates"][0]["frame"] == "corner"


def test_the_same_seed_gives_the_same_report(particles):
    first, second = (preflight(particles, as_model(PLACED + CORNER), limit=200, seed=5) for _ in range(2))
    assert first.n_used == 200
    assert replace(first, seconds=0.0, reading_seconds=0.0) == replace(
        second, seconds=0.0, reading_seconds=0.0
    )


def test_a_model_larger_than_the_box_is_refused(particles):
    with pytest.raises(InputError, match="does not fit in the box of 96 A"):
        preflight(particles, as_model(8 * PLACED))


def test_all_particles_in_one_half_are_split_for_the_check(particles):
    found = preflight(replace(particles, half=np.ones(300, np.int8)), as_model(PLACED + CORNER))
    assert found.verdict == "fits"
    assert found.halves == (300, 0)
    assert any("one half" in note for note in found.notes)


def gaussian_map(coords, origin, shape=(40, 36, 34), voxel=2.0):
    """A map drawn from its definition; voxel (0, 0, 0) lies at `origin`, and coords are in that frame."""
    z, y, x = (np.arange(n) * voxel for n in shape)
    data = np.zeros(shape, np.float32)
    for p in coords - origin:
        ez, ey, ex = (np.exp(-((a - c) ** 2) / (2 * SIGMA**2)) for a, c in ((z, p[2]), (y, p[1]), (x, p[0])))
        data += ez[:, None, None] * ey[None, :, None] * ex
    return SimpleNamespace(data=data, voxel_size=voxel, origin=np.array(origin), voxel_size_known=True)


def test_a_map_fixes_the_frame_and_tells_the_sign(particles):
    origin = np.array([100.0, -50.0, 20.0])
    middle = origin + np.array([34, 36, 40]) // 2 * 2.0
    volume = gaussian_map(PLACED + middle, origin)
    found = preflight(particles, as_model(PLACED + middle), volume)
    assert (found.verdict, found.frame) == ("fits", "map")
    assert np.allclose(found.offset, middle)
    alone = preflight(particles.with_sign(-1), None, volume)
    assert (alone.data_sign, alone.sign_source) == (1, "map")
    mirrored = gaussian_map(PLACED * [1, 1, -1] + middle, origin)
    assert any("mirrored in z" in note for note in preflight(particles, None, mirrored).notes)
    other = gaussian_map(chain(seed=11) + middle, origin)
    assert any("does not belong" in note for note in preflight(particles, None, other).notes)


def test_unusable_pixels_are_named(tmp_path):
    particles = write_set(tmp_path, COORDS, n=20)
    with mrcfile.mmap(tmp_path / "particles.mrcs", mode="r+") as mrc:
        mrc.data[12, 3, 4] = np.nan
    with pytest.raises(InputError, match="NaN") as error:
        preflight(particles)
    assert error.value.row == 13


def test_images_blanked_outside_the_particle_are_noticed(particles, tmp_path):
    masked = write_set(tmp_path, PLACED)
    axis = np.arange(BOX) - BOX // 2
    with mrcfile.mmap(tmp_path / "particles.mrcs", mode="r+") as mrc:
        mrc.data[:] *= axis[:, None] ** 2 + axis**2 < 13**2
    found = preflight(masked, as_model(PLACED + CORNER))
    assert found.verdict == "fits"
    assert found.nats_per_image < 60
    assert any("blank outside" in note for note in found.notes)
    assert not any("blank outside" in note for note in preflight(particles).notes)


def test_the_numbers_of_one_particle_stay_together(particles):
    working = load_working_set(particles, limit=50, seed=4)
    rows = np.random.default_rng(4).permutation(300)[:50]
    assert np.allclose(working.rotations, particles.rotations[rows], atol=1e-6)
    assert np.allclose(working.shifts, particles.shifts[rows], atol=1e-5)
    assert (working.halves.numpy() == particles.half[rows]).all()
    image = particles.images(rows[[7]])[0]
    assert working.coefficients[7, 0, 0].real == pytest.approx(image.sum() / BOX, abs=1e-3)
