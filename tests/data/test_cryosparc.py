from __future__ import annotations

import sys

import numpy as np
import pytest
import starfile
from scipy.spatial.transform import Rotation

from cryoscape.data.cryosparc_files import find_passthrough, read_cs
from cryoscape.data.particles import Particles
from cryoscape.errors import InputError
from tests.data.builders import OPTICS, ROWS, cs_table, save_cs, write_cryosparc, write_stack, write_star


def test_values_arrive_in_house_units(tmp_path):
    main, extra = cs_table()
    particles = Particles.read(write_cryosparc(tmp_path))
    np.testing.assert_array_equal(particles.uid, main["uid"])
    # Pixels of the alignment (2.5 A), not of the stored images (1.25 A).
    np.testing.assert_allclose(particles.shifts, -2.5 * main["alignments3D/shift"], rtol=1e-6)
    expected = Rotation.from_rotvec(main["alignments3D/pose"]).inv().as_matrix()
    np.testing.assert_allclose(particles.rotations, expected, atol=1e-6)
    np.testing.assert_allclose(particles.defocus_u, extra["ctf/df1_A"])
    np.testing.assert_allclose(particles.defocus_angle, extra["ctf/df_angle_rad"] * 180 / np.pi, rtol=1e-6)
    np.testing.assert_allclose(particles.phase_shift, 0.5 * 180 / np.pi)
    assert particles.half.tolist() == [1, 2] * (ROWS // 2)
    assert particles.half_source == "file"
    (group,) = particles.optics
    assert (group.pixel_size, group.voltage, group.cs, group.box) == (1.25, 300.0, 2.7, 8)
    assert group.amplitude_contrast == 0.1
    # sin(angle) = length / Cs: 2700 A of 2.7 mm are 0.1 mrad.
    np.testing.assert_allclose(group.beam_tilt, [0.1, -0.05], rtol=1e-5)
    assert particles.micrograph.tolist() == [i // 3 for i in range(ROWS)]


def test_optics_groups_are_the_distinct_conditions(tmp_path):
    _, extra = cs_table()
    extra["ctf/exp_group_id"] = [3, 3, 1] * (ROWS // 3)
    extra["ctf/cs_mm"][1::3] = 0.01
    particles = Particles.read(write_cryosparc(tmp_path, extra=extra))
    of_rows = [particles.optics[g] for g in particles.group]
    assert [g.name for g in of_rows] == ["3", "3", "1"] * (ROWS // 3)
    assert [g.cs for g in of_rows] == [2.7, 0.01, 2.7] * (ROWS // 3)
    assert len(particles.optics) == 3


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_stored_sign_is_undone(tmp_path, sign):
    _, extra = cs_table(sign=sign)
    particles = Particles.read(write_cryosparc(tmp_path, extra=extra))
    data = write_stack(tmp_path / "J3" / "extract" / "particles.mrc")
    assert particles.data_sign == sign
    np.testing.assert_array_equal(particles.images([3, 1]), sign * data[[3, 1]])


def test_passthrough_is_joined_by_uid_and_can_be_named(tmp_path):
    main, extra = cs_table()
    order = np.random.default_rng(0).permutation(ROWS)
    path = write_cryosparc(tmp_path, main, extra[:0])
    shuffled = save_cs(tmp_path / "elsewhere.cs", extra[order])
    for named in (shuffled, [str(shuffled)]):
        particles = Particles.read(path, passthrough=named)
        np.testing.assert_array_equal(particles.defocus_u, extra["ctf/df1_A"])
        np.testing.assert_array_equal(particles.stack.index, np.arange(ROWS))


@pytest.mark.parametrize(
    ("table", "passthrough"),
    [
        ("J42_particles.cs", "J42_passthrough_particles.cs"),
        ("cryosparc_P1_J42_004_particles.cs", "P1_J42_passthrough_particles.cs"),
        ("particles_selected.cs", "J42_passthrough_particles_selected.cs"),
    ],
)
def test_passthrough_is_found_by_name(tmp_path, table, passthrough):
    main, extra = cs_table()
    save_cs(tmp_path / "J4_passthrough_particles.cs", extra)
    path, wanted = save_cs(tmp_path / table, main), save_cs(tmp_path / passthrough, extra)
    assert find_passthrough(path, main) == [wanted]


def test_of_several_passthroughs_the_one_with_the_particles_is_taken(tmp_path):
    main, extra = cs_table()
    path = save_cs(tmp_path / "J42_particles.cs", main)
    save_cs(tmp_path / "J42_passthrough_particles_class_0.cs", extra[:5])
    right = save_cs(tmp_path / "J42_passthrough_particles_class_1.cs", extra)
    assert find_passthrough(path, main) == [right]
    save_cs(tmp_path / "J42_passthrough_particles_all_classes.cs", extra)
    with pytest.raises(InputError, match="several passthrough files fit") as caught:
        find_passthrough(path, main)
    assert caught.value.file == path
    assert "Name the one" in caught.value.remedy


def test_a_whole_table_needs_no_passthrough(tmp_path):
    path = write_cryosparc(tmp_path)
    Particles.read(path).write(tmp_path / "J50" / "whole.cs")
    assert Particles.read(tmp_path / "J50" / "whole.cs").n == ROWS


def test_written_rows_are_the_users_own(tmp_path):
    main, extra = cs_table()
    particles = Particles.read(write_cryosparc(tmp_path)).select([9, 0, 4])
    out = tmp_path / "RUN" / "chosen.cs"
    z = np.arange(6, dtype=np.float32).reshape(3, 2)
    particles.write(out, {"cryoscape/z": z, "cryoscape/state": np.array(["a", "bb", "c"])})
    table = np.load(out, allow_pickle=False)
    for source in (main, extra):
        for name in source.dtype.names:
            assert table[name].dtype == source[name].dtype
            np.testing.assert_array_equal(table[name], source[name][[9, 0, 4]])
    np.testing.assert_array_equal(table["cryoscape/z"], z)
    assert table["cryoscape/state"].tolist() == [b"a", b"bb", b"c"]
    again = Particles.read(out)
    np.testing.assert_array_equal(again.images([0]), particles.images([0]))


def test_converted_to_relion(tmp_path):
    particles = Particles.read(write_cryosparc(tmp_path))
    out = tmp_path / "p.star"
    particles.write(out, {"cryoscapeState": np.arange(ROWS)})
    tables = starfile.read(out, always_dict=True)
    frame = tables["particles"]
    assert frame["rlnImageName"][2] == "000003@J3/extract/particles.mrc"
    assert frame["rlnRandomSubset"].tolist() == [1, 2] * (ROWS // 2)
    assert frame["cryoscapeState"].tolist() == list(range(ROWS))
    main, extra = cs_table()
    euler = frame[["rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"]].to_numpy()
    expected = Rotation.from_rotvec(main["alignments3D/pose"])
    assert (Rotation.from_euler("ZYZ", euler, degrees=True) * expected.inv()).magnitude().max() < 1e-6
    np.testing.assert_allclose(frame["rlnOriginXAngst"], 2.5 * main["alignments3D/shift"][:, 0], atol=1e-6)
    np.testing.assert_allclose(frame["rlnDefocusV"], extra["ctf/df2_A"], atol=1e-5)
    assert tables["optics"]["rlnImagePixelSize"].tolist() == [1.25]
    again = Particles.read(out)
    assert again.data_sign == -1
    np.testing.assert_array_equal(again.uid, particles.uid)
    np.testing.assert_array_equal(again.images([5]), particles.images([5]))


def test_relion_to_cryosparc_and_back(tmp_path):
    particles = Particles.read(write_star(tmp_path / "p.star"))
    particles.write(tmp_path / "p.cs", {"cryoscape/z": np.zeros((ROWS, 3))})
    again = Particles.read(tmp_path / "p.cs")
    np.testing.assert_allclose(again.rotations, particles.rotations, atol=1e-6)
    np.testing.assert_allclose(again.shifts, particles.shifts, atol=1e-5)
    np.testing.assert_allclose(again.defocus_u, particles.defocus_u, rtol=1e-7)
    np.testing.assert_allclose(again.defocus_angle, particles.defocus_angle, atol=1e-4)
    np.testing.assert_array_equal(again.uid, particles.uid)
    np.testing.assert_array_equal(again.half, particles.half)
    np.testing.assert_array_equal(again.images([5]), particles.images([5]))
    assert read_cs(tmp_path / "p.cs")["cryoscape/z"].shape == (ROWS, 3)


def test_what_cryosparc_cannot_say_is_not_dropped_in_silence(tmp_path):
    optics = OPTICS | {"rlnCtfDataAreCtfPremultiplied": "1"}
    particles = Particles.read(write_star(tmp_path / "p.star", optics=optics))
    with pytest.raises(InputError, match="premultiplied") as caught:
        particles.write(tmp_path / "p.cs")
    assert caught.value.file == tmp_path / "p.cs"
    assert ".star" in caught.value.remedy


def test_other_suffix_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"cannot be written as \.txt"):
        Particles.read(write_star(tmp_path / "p.star")).write(tmp_path / "p.txt")


def test_csdat_is_read_through_cryosparc_tools(tmp_path):
    dataset = pytest.importorskip("cryosparc.dataset")
    main, extra = cs_table()
    path = write_cryosparc(tmp_path)
    expected = Particles.read(path)
    for table, name in ((main, path.name), (extra, "J42_passthrough_particles.cs")):
        columns = {n: table[n] for n in table.dtype.names}
        columns |= {n: c.astype(str) for n, c in columns.items() if c.dtype.kind == "S"}
        newer = dataset.Dataset(columns)
        newer.save(str(path.with_name(name)), format=dataset.CSDAT_FORMAT)
        assert path.with_name(name).read_bytes()[:6] == b"\x95CSDAT"[:6]
    particles = Particles.read(path)
    np.testing.assert_array_equal(particles.rotations, expected.rotations)
    np.testing.assert_array_equal(particles.uid, expected.uid)
    np.testing.assert_array_equal(particles.images([1]), expected.images([1]))


def test_csdat_without_cryosparc_tools_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "cryosparc.dataset", None)
    path = tmp_path / "p.cs"
    path.write_bytes(b"\x95CSDAT and more")
    with pytest.raises(InputError, match="CSDAT") as caught:
        Particles.read(path)
    assert caught.value.file == path
    assert "pip install cryosparc-tools" in caught.value.remedy
