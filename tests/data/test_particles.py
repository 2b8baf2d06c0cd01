from __future__ import annotations

import pickle
import time

import mrcfile
import numpy as np
import pytest
import starfile

from cryoscape.data.particles import Particles, image_uid, seeded_halves
from cryoscape.errors import InputError
from tests.data.builders import OPTICS, ROWS, loop, particle_columns, write_stack, write_star


def test_relion_values_arrive_in_house_units(tmp_path):
    columns = particle_columns()
    columns["rlnPhaseShift"] = ["30.0"] * ROWS
    columns["rlnCtfBfactor"] = ["12.5"] * ROWS
    columns["rlnCtfScalefactor"] = ["0.9"] * ROWS
    particles = Particles.read(write_star(tmp_path / "p.star", columns))
    assert (len(particles), particles.n, particles.box, particles.pixel_size) == (ROWS, ROWS, 8, 1.25)
    np.testing.assert_array_equal(particles.shifts[:, 0], -np.array(columns["rlnOriginXAngst"], dtype=float))
    np.testing.assert_array_equal(particles.shifts[:, 1], -np.array(columns["rlnOriginYAngst"], dtype=float))
    np.testing.assert_array_equal(particles.defocus_u, np.array(columns["rlnDefocusU"], dtype=float))
    np.testing.assert_array_equal(particles.defocus_angle, np.array(columns["rlnDefocusAngle"], dtype=float))
    assert (particles.phase_shift == 30).all()
    assert (particles.ctf_bfactor == 12.5).all()
    assert (particles.ctf_scale == 0.9).all()
    (group,) = particles.optics
    assert (group.voltage, group.cs, group.amplitude_contrast, group.box) == (300, 2.7, 0.1, 8)
    assert not group.ctf_premultiplied
    assert particles.data_sign == 1
    np.testing.assert_array_equal(particles.row, np.arange(ROWS))
    assert particles.micrograph.tolist() == [i // 3 for i in range(ROWS)]


def test_images_are_read_as_asked_for(tmp_path):
    path = write_star(tmp_path / "p.star")
    with mrcfile.open(tmp_path / "particles.mrcs") as mrc:
        data = mrc.data.copy()
    particles = Particles.read(path)
    np.testing.assert_array_equal(particles.images([4, 1, 4]), data[[4, 1, 4]])
    np.testing.assert_array_equal(particles.with_sign(-1).images([2]), -data[[2]])
    with pytest.raises(ValueError, match="sign"):
        particles.with_sign(0)


def test_selection_carries_everything_along(tmp_path):
    particles = Particles.read(write_star(tmp_path / "p.star"))
    chosen = particles.select([7, 2, 5]).select([2, 0])
    assert chosen.row.tolist() == [5, 7]
    np.testing.assert_array_equal(chosen.uid, particles.uid[[5, 7]])
    np.testing.assert_array_equal(chosen.rotations, particles.rotations[[5, 7]])
    np.testing.assert_array_equal(chosen.images([0, 1]), particles.images([5, 7]))
    mask = np.zeros(ROWS, dtype=bool)
    mask[[1, 3]] = True
    assert particles.select(mask).row.tolist() == [1, 3]
    copy = pickle.loads(pickle.dumps(particles))
    np.testing.assert_array_equal(copy.images([3]), particles.images([3]))


def old_table(path, **changes):
    columns = particle_columns()
    for tag in ("rlnOpticsGroup", "rlnOriginXAngst", "rlnOriginYAngst"):
        del columns[tag]
    columns |= {
        "rlnOriginX": ["2.0"] * ROWS,
        "rlnOriginY": ["-3.0"] * ROWS,
        "rlnVoltage": ["300.0"] * 6 + ["200.0"] * 6,
        "rlnSphericalAberration": ["2.7"] * ROWS,
        "rlnAmplitudeContrast": ["0.1"] * ROWS,
        "rlnMagnification": ["40000.0"] * ROWS,
        "rlnDetectorPixelSize": ["5.0"] * ROWS,
    }
    columns |= changes
    path.write_text(loop("", columns))
    write_stack(path.parent / "particles.mrcs")
    return path


def test_version_3_0_counts_origins_in_pixels(tmp_path):
    particles = Particles.read(old_table(tmp_path / "p.star"))
    # 5 micrometres on the detector at 40000 x are 1.25 A.
    assert particles.pixel_size == 1.25
    np.testing.assert_allclose(particles.shifts, [[-2.5, 3.75]] * ROWS)
    assert [g.voltage for g in particles.optics] == [300, 200]
    assert particles.group.tolist() == [0] * 6 + [1] * 6


def test_version_3_0_stays_version_3_0(tmp_path):
    particles = Particles.read(old_table(tmp_path / "p.star"))
    particles.select([2, 1]).write(tmp_path / "q.star", {"cryoscapeState": np.array([4, 5])})
    # With the line of a later version RELION would miss the optics groups instead of making them.
    assert "version" not in (tmp_path / "q.star").read_text()
    again = Particles.read(tmp_path / "q.star")
    np.testing.assert_array_equal(again.shifts, particles.shifts[[2, 1]])
    np.testing.assert_array_equal(again.uid, particles.uid[[2, 1]])


def test_absent_origins_are_zero(tmp_path):
    columns = particle_columns()
    del columns["rlnOriginXAngst"], columns["rlnOriginYAngst"]
    assert not Particles.read(write_star(tmp_path / "p.star", columns)).shifts.any()


def test_optics_groups_by_number_with_flags_and_aberrations(tmp_path):
    optics = {tag: [value, value] for tag, value in OPTICS.items()}
    optics |= {
        "rlnOpticsGroup": ["5", "3"],
        "rlnOpticsGroupName": ["late", "early"],
        "rlnCtfDataAreCtfPremultiplied": ["0", "1"],
        "rlnCtfDataArePhaseFlipped": ["1", "0"],
        "rlnBeamTiltX": ["0.25", "0"],
        "rlnBeamTiltY": ["-0.5", "0"],
        "rlnEvenZernike": ["[0.1,-0.2,3e-3]", "[0,0,0]"],
        "rlnMagMat01": ["0.001", "0"],
    }
    columns = particle_columns()
    columns["rlnOpticsGroup"] = ["3", "5"] * (ROWS // 2)
    particles = Particles.read(write_star(tmp_path / "p.star", columns, optics))
    first, second = (particles.optics[g] for g in particles.group[:2])
    assert (first.name, first.ctf_premultiplied, first.phase_flipped) == ("early", True, False)
    assert (second.name, second.ctf_premultiplied, second.phase_flipped) == ("late", False, True)
    assert second.beam_tilt == (0.25, -0.5)
    assert second.even_zernike == (0.1, -0.2, 0.003)
    assert second.odd_zernike == ()
    assert second.magnification == (1.0, 0.001, 0.0, 1.0)


def test_halves_of_the_file(tmp_path):
    columns = particle_columns()
    columns["rlnRandomSubset"] = ["2", "1", "1"] * (ROWS // 3)
    particles = Particles.read(write_star(tmp_path / "p.star", columns))
    assert particles.half_source == "file"
    assert particles.half.tolist() == [2, 1, 1] * (ROWS // 3)


@pytest.mark.parametrize("subset", [None, "1", "0"])
def test_seeded_halves_keep_micrographs_whole(tmp_path, subset):
    columns = particle_columns()
    if subset is not None:
        columns["rlnRandomSubset"] = [subset] * ROWS
    path = write_star(tmp_path / "p.star", columns)
    particles = Particles.read(path)
    assert particles.half_source == "seeded"
    assert np.bincount(particles.half).tolist() == [0, 6, 6]
    for m in range(4):
        assert len(set(particles.half[particles.micrograph == m])) == 1
    np.testing.assert_array_equal(particles.half, Particles.read(path).half)


def test_seeded_halves_balance():
    micrographs = np.repeat(np.arange(200), np.random.default_rng(3).integers(1, 50, 200))
    counts = np.bincount(seeded_halves(micrographs))
    assert abs(counts[1] - counts[2]) < 50
    assert np.bincount(seeded_halves(np.zeros(11, dtype=np.int64))).tolist() == [0, 6, 5]


def test_identity_belongs_to_the_image_not_to_the_row(tmp_path):
    columns = particle_columns()
    full = Particles.read(write_star(tmp_path / "p.star", columns))
    part = Particles.read(
        write_star(tmp_path / "q.star", {t: c[::-1][:5] for t, c in columns.items()}, stack=False)
    )
    np.testing.assert_array_equal(part.uid, full.uid[::-1][:5])
    assert len(set(full.uid.tolist())) == ROWS


def test_expanded_images_get_identities_of_their_own():
    uid = image_uid(["a", "b"], np.array([0, 0, 1, 0, 0]), np.array([4, 4, 4, 4, 5]))
    assert len(set(uid.tolist())) == 5
    np.testing.assert_array_equal(uid[[0, 2]], image_uid(["a", "b"], np.array([0, 1]), np.array([4, 4])))


def test_written_rows_are_the_users_own(tmp_path):
    source = write_star(tmp_path / "p.star")
    particles = Particles.read(source).select([8, 2, 3])
    out = tmp_path / "RUN" / "particles" / "chosen.star"
    particles.write(out, {"cryoscapeState": np.array([1, 2, 3]), "rlnClassNumber": np.array([4, 4, 5])})
    before = starfile.read(source, always_dict=True, parse_as_string=list(particle_columns()))["particles"]
    strings = list(particle_columns())
    after = starfile.read(out, always_dict=True, parse_as_string=strings)
    for tag in strings:
        assert after["particles"][tag].tolist() == before[tag].iloc[[8, 2, 3]].tolist(), tag
    assert after["particles"]["cryoscapeState"].tolist() == [1, 2, 3]
    assert after["particles"]["rlnClassNumber"].tolist() == [4, 4, 5]
    assert after["optics"]["rlnImagePixelSize"].tolist() == [1.25]
    assert "# version 50001" in out.read_text()
    again = Particles.read(out)
    np.testing.assert_array_equal(again.uid, particles.uid)
    np.testing.assert_array_equal(again.images([0, 1, 2]), particles.images([0, 1, 2]))


def test_an_existing_column_is_replaced(tmp_path):
    particles = Particles.read(write_star(tmp_path / "p.star"))
    particles.write(tmp_path / "q.star", {"rlnDefocusU": np.full(ROWS, 12345.0)})
    assert (Particles.read(tmp_path / "q.star").defocus_u == 12345).all()


def test_a_table_outside_the_project_still_finds_its_images(tmp_path):
    particles = Particles.read(write_star(tmp_path / "project" / "p.star"))
    particles.write(tmp_path / "elsewhere" / "q.star")
    again = Particles.read(tmp_path / "elsewhere" / "q.star")
    np.testing.assert_array_equal(again.images([3]), particles.images([3]))
    np.testing.assert_array_equal(again.uid, particles.uid)


def test_columns_of_other_lengths_are_refused(tmp_path):
    particles = Particles.read(write_star(tmp_path / "p.star"))
    with pytest.raises(ValueError, match="cryoscapeZ"):
        particles.write(tmp_path / "q.star", {"cryoscapeZ": np.zeros(3)})


def test_a_source_that_changed_is_not_written_back(tmp_path):
    path = write_star(tmp_path / "p.star")
    particles = Particles.read(path)
    path.write_text(path.read_text() + "\n")
    with pytest.raises(InputError, match="changed after it was read") as caught:
        particles.write(tmp_path / "q.star")
    assert caught.value.file == path
    assert not (tmp_path / "q.star").exists()


def test_fifty_thousand_rows_open_in_seconds(tmp_path):
    n = 50_000
    path = write_star(tmp_path / "p.star", particle_columns(n), stack=False)
    header = np.zeros(256, dtype="<i4")
    header[:4] = 8, 8, n, 2
    with open(tmp_path / "particles.mrcs", "wb") as handle:
        handle.write(header.tobytes())
        handle.truncate(1024 + n * 8 * 8 * 4)
    start = time.process_time()
    particles = Particles.read(path)
    assert particles.n == n
    # A tenth of that is usual.
    assert time.process_time() - start < 5
