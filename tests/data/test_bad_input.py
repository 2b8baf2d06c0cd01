"""Every fault of a particle set names the file, the row where one row is at fault, and the remedy."""

from __future__ import annotations

import os

import mrcfile
import numpy as np
import pytest
from numpy.lib.recfunctions import repack_fields

from cryoscape.data.particles import Particles, check_pixels
from cryoscape.errors import InputError
from tests.data.builders import (
    OPTICS,
    ROWS,
    cs_table,
    loop,
    particle_columns,
    save_cs,
    write_cryosparc,
    write_stack,
    write_star,
)


def refused(call, file, row, message, remedy):
    with pytest.raises(InputError) as caught:
        call()
    error = caught.value
    assert message in error.message
    assert remedy in error.remedy
    assert (error.file, error.row) == (file, row)
    assert str(file) in str(error)


def change(columns, tag, row, token):
    columns[tag] = list(columns[tag])
    columns[tag][row - 1] = token
    return columns


def without(*tags):
    return {t: c for t, c in particle_columns().items() if t not in tags}


def test_missing_stack(tmp_path):
    columns = change(particle_columns(), "rlnImageName", 4, "000001@absent.mrcs")
    path = write_star(tmp_path / "p.star", columns)
    refused(lambda: Particles.read(path), path, 4, "absent.mrcs is missing", "--datadir")


@pytest.mark.parametrize("size", [500, 2000])
def test_truncated_stack(tmp_path, size):
    columns = change(particle_columns(), "rlnImageName", 3, "000001@other.mrcs")
    path = write_star(tmp_path / "p.star", columns)
    write_stack(tmp_path / "other.mrcs")
    os.truncate(tmp_path / "other.mrcs", size)
    refused(lambda: Particles.read(path), path, 3, "other.mrcs: the image stack is truncated", "again")


@pytest.mark.parametrize("number", [ROWS + 1, 0])
def test_row_outside_the_stack(tmp_path, number):
    columns = change(particle_columns(), "rlnImageName", 7, f"{number:06d}@particles.mrcs")
    path = write_star(tmp_path / "p.star", columns)
    refused(lambda: Particles.read(path), path, 7, f"image {number} of", "together with this table")


def test_image_name_without_a_number(tmp_path):
    columns = change(particle_columns(), "rlnImageName", 2, "first@particles.mrcs")
    path = write_star(tmp_path / "p.star", columns)
    refused(lambda: Particles.read(path), path, 2, "first@particles.mrcs", "000001@stack.mrcs")


@pytest.mark.parametrize(("shape", "message"), [((8, 6), "6 x 8"), ((7, 7), "7 x 7")])
def test_box_neither_odd_nor_oblong(tmp_path, shape, message):
    path = write_star(tmp_path / "p.star")
    with mrcfile.new(tmp_path / "particles.mrcs", overwrite=True) as mrc:
        mrc.set_data(np.zeros((ROWS, *shape), dtype="f4"))
    refused(lambda: Particles.read(path), path, 1, message, "even number of pixels")


def test_mixed_boxes_among_the_stacks(tmp_path):
    columns = change(particle_columns(), "rlnImageName", 6, "000001@small.mrcs")
    path = write_star(tmp_path / "p.star", columns)
    write_stack(tmp_path / "small.mrcs", box=6)
    refused(lambda: Particles.read(path), path, 6, "mixed box sizes: 6 pixels", "one box size")


def test_box_of_the_table_against_the_stack(tmp_path):
    path = write_star(tmp_path / "p.star", optics=OPTICS | {"rlnImageSize": "16"})
    refused(lambda: Particles.read(path), path, 1, "the table says 16", "together with this table")


def test_mixed_pixel_sizes(tmp_path):
    optics = {tag: [value, value] for tag, value in OPTICS.items()}
    optics |= {"rlnOpticsGroup": ["1", "2"], "rlnImagePixelSize": ["1.25", "1.26"]}
    columns = change(particle_columns(), "rlnOpticsGroup", 5, "2")
    path = write_star(tmp_path / "p.star", columns, optics)
    refused(lambda: Particles.read(path), path, 5, "mixed pixel sizes: 1.26", "one pixel size")


@pytest.mark.parametrize("tag", ["rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"])
def test_no_poses(tmp_path, tag):
    path = write_star(tmp_path / "p.star", without(tag))
    refused(lambda: Particles.read(path), path, None, "no poses", "3D refinement")
    assert Particles.read(path, require_poses=False).rotations is None


def test_poses_never_assigned(tmp_path):
    columns = particle_columns(120)
    for tag in columns:
        if tag.startswith(("rlnAngle", "rlnOrigin")):
            columns[tag] = ["0.000000"] * 120
    path = write_star(tmp_path / "p.star", columns)
    refused(lambda: Particles.read(path), path, None, "all angles and shifts are zero", "3D refinement")


@pytest.mark.parametrize("tag", ["rlnAngleTilt", "rlnOriginYAngst", "rlnDefocusV", "rlnDefocusU"])
def test_not_a_number(tmp_path, tag):
    path = write_star(tmp_path / "p.star", change(particle_columns(), tag, 9, "nan"))
    refused(lambda: Particles.read(path), path, 9, f"{tag} is nan", "Take the row out")


def test_no_ctf(tmp_path):
    path = write_star(tmp_path / "p.star", without("rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle"))
    refused(lambda: Particles.read(path), path, None, "no CTF", "CTF estimation")


@pytest.mark.parametrize("tag", ["rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast"])
def test_no_microscope(tmp_path, tag):
    optics = {t: v for t, v in OPTICS.items() if t != tag}
    path = write_star(tmp_path / "p.star", optics=optics)
    refused(lambda: Particles.read(path), path, None, f"no {tag}", "extraction or refinement job")


@pytest.mark.parametrize(
    ("tag", "token", "message"),
    [
        ("rlnVoltage", "300000", "voltage is 300000 kV"),
        ("rlnSphericalAberration", "-1", "aberration is -1 mm"),
        ("rlnAmplitudeContrast", "10", "contrast is 10"),
        ("rlnImagePixelSize", "0", "pixel size is 0 A"),
    ],
)
def test_absurd_microscope(tmp_path, tag, token, message):
    path = write_star(tmp_path / "p.star", optics=OPTICS | {tag: token})
    refused(lambda: Particles.read(path), path, 1, message, "Give")


def test_no_pixel_size(tmp_path):
    path = write_star(tmp_path / "p.star", optics={t: v for t, v in OPTICS.items() if "Pixel" not in t})
    refused(lambda: Particles.read(path), path, None, "no pixel size", "rlnImagePixelSize")


def test_unknown_optics_group(tmp_path):
    path = write_star(tmp_path / "p.star", change(particle_columns(), "rlnOpticsGroup", 8, "4"))
    refused(lambda: Particles.read(path), path, 8, "rlnOpticsGroup is 4", "data_optics")


@pytest.mark.parametrize("tag", ["rlnDefocusU", "rlnDefocusV"])
@pytest.mark.parametrize(
    ("token", "message"),
    [("0", "is zero"), ("1.5", "is 1.5 A"), ("-15000", "is -15000 A"), ("200000", "is 200000 A")],
)
def test_absurd_defocus(tmp_path, tag, token, message):
    path = write_star(tmp_path / "p.star", change(particle_columns(), tag, 11, token))
    refused(lambda: Particles.read(path), path, 11, message, "CTF fit failed")


def test_half_set_that_is_neither(tmp_path):
    columns = particle_columns()
    columns["rlnRandomSubset"] = ["1", "2", "0"] * (ROWS // 3)
    path = write_star(tmp_path / "p.star", columns)
    refused(lambda: Particles.read(path), path, 3, "rlnRandomSubset is 0", "half set")


@pytest.mark.parametrize("text", ["", "# version 50001\n\ndata_particles\n"])
def test_empty_star(tmp_path, text):
    path = tmp_path / "p.star"
    path.write_text(text)
    refused(lambda: Particles.read(path), path, None, "holds no particles", "particle table")


def test_star_with_a_header_and_no_rows(tmp_path):
    path = tmp_path / "p.star"
    empty = {tag: [] for tag in particle_columns()}
    path.write_text(loop("optics", {t: [v] for t, v in OPTICS.items()}) + loop("particles", empty))
    refused(lambda: Particles.read(path), path, None, "holds no particles", "particle table")


def test_star_of_micrographs(tmp_path):
    path = tmp_path / "p.star"
    path.write_text(loop("micrographs", {"rlnMicrographName": ["a.mrc"]}))
    refused(lambda: Particles.read(path), path, None, "rlnImageName", "particle table")


@pytest.mark.parametrize("tag", ["rlnTomoName", "rlnTomoParticleName", "rlnCtfImage"])
def test_tilt_series(tmp_path, tag):
    columns = particle_columns()
    columns[tag] = ["TS_01/1"] * ROWS
    path = write_star(tmp_path / "p.star", columns)
    refused(lambda: Particles.read(path), path, None, "tilt series", "single-particle")


def test_subtomograms(tmp_path):
    path = write_star(tmp_path / "p.star", optics=OPTICS | {"rlnImageDimensionality": "3"})
    refused(lambda: Particles.read(path), path, None, "tilt series", "single-particle")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_pixels_that_are_no_numbers(tmp_path, value):
    path = write_star(tmp_path / "p.star")
    with mrcfile.open(tmp_path / "particles.mrcs", mode="r+") as mrc:
        mrc.data[4, 2, 3] = value
    particles = Particles.read(path)
    refused(lambda: check_pixels(particles), path, 5, "image 5 of", "Extract the particles again")
    refused(lambda: check_pixels(particles.select([9, 4]), batch=1), path, 5, "NaN or infinite", "row out")
    check_pixels(particles, rows=[0, 1, 2, 3, 5])


def test_constant_image(tmp_path):
    path = write_star(tmp_path / "p.star")
    with mrcfile.open(tmp_path / "particles.mrcs", mode="r+") as mrc:
        mrc.data[7] = 3.5
    particles = Particles.read(path)
    refused(lambda: check_pixels(particles, batch=5), path, 8, "is constant (all pixels are 3.5)", "row out")


@pytest.mark.parametrize("name", ["p.star", "p.cs"])
def test_missing_table(tmp_path, name):
    path = tmp_path / name
    refused(lambda: Particles.read(path), path, None, "does not exist", "Check the path")


def test_other_format(tmp_path):
    path = tmp_path / "p.txt"
    path.write_text("x")
    refused(lambda: Particles.read(path), path, None, ".txt file", ".star")


def test_cs_without_passthrough(tmp_path):
    path = write_cryosparc(tmp_path)
    (tmp_path / "J42" / "J42_passthrough_particles.cs").unlink()
    refused(lambda: Particles.read(path), path, None, "no images (field blob/path)", "passthrough")


def test_cs_passthrough_of_other_particles(tmp_path):
    main, extra = cs_table()
    extra["uid"][5] += 1
    path = write_cryosparc(tmp_path, main, extra)
    refused(lambda: Particles.read(path), path, 6, f"uid {main['uid'][5]} is not in", "same job")


def test_cs_passthrough_with_a_uid_twice(tmp_path):
    main, extra = cs_table()
    extra = np.concatenate([extra, extra[3:4]])
    path = write_cryosparc(tmp_path, main, extra)
    other = tmp_path / "J42" / "J42_passthrough_particles.cs"
    refused(lambda: Particles.read(path), other, None, "uid twice", "same job")


def test_cs_without_poses_takes_no_others(tmp_path):
    main, extra = cs_table()
    keep = ["uid", "alignments3D/split", "alignments_class_0/pose"]
    path = write_cryosparc(tmp_path, repack_fields(main[keep]), extra)
    refused(lambda: Particles.read(path), path, None, "no poses", "3D refinement")
    assert Particles.read(path, require_poses=False).rotations is None


def test_cs_with_other_faults(tmp_path):
    main, extra = cs_table()
    extra["blob/idx"][9] = ROWS
    path = write_cryosparc(tmp_path / "a", main, extra)
    refused(lambda: Particles.read(path), path, 10, f"image {ROWS + 1} of", "together")
    main, extra = cs_table()
    main["alignments3D/pose"][2, 1] = np.nan
    path = write_cryosparc(tmp_path / "b", main, extra)
    refused(lambda: Particles.read(path), path, 3, "alignments3D/pose is not a number", "row out")
    main, extra = cs_table()
    extra["blob/sign"][4] = 1
    path = write_cryosparc(tmp_path / "c", main, extra)
    refused(lambda: Particles.read(path), path, 5, "blob/sign is 1", "Split the table")
    main, extra = cs_table()
    extra["ctf/df1_A"][0] = 0
    path = write_cryosparc(tmp_path / "d", main, extra)
    refused(lambda: Particles.read(path), path, 1, "defocus U is zero", "CTF fit")
    path = save_cs(tmp_path / "e.cs", main[:0])
    refused(lambda: Particles.read(path), path, None, "holds no particles", "refinement")


@pytest.mark.parametrize("content", [b"", b"not a table", b"\x93NUMPY\x01\x00"])
def test_cs_that_is_none(tmp_path, content):
    path = tmp_path / "p.cs"
    path.write_bytes(content)
    refused(lambda: Particles.read(path), path, None, "not a whole .cs file", "again")


def test_cs_that_is_a_plain_array(tmp_path):
    path = save_cs(tmp_path / "p.cs", np.zeros(3))
    refused(lambda: Particles.read(path), path, None, "not a cryoSPARC table", "particle output")
