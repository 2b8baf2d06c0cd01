"""New poses in the user's own tables: the rest is as it was, to the token."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from cryoscape.data.particles import Particles
from cryoscape.data.poses import write_with_poses
from cryoscape.data.star import read_star
from tests.data.builders import cs_table, particle_columns, write_cryosparc, write_star


def changed(particles, rows):
    rotations, shifts = particles.rotations.copy(), particles.shifts.copy()
    rotations[rows] = Rotation.random(len(rows), random_state=0).as_matrix()
    shifts[rows] += [2.5, -1.25]
    return rotations, shifts


def test_star_rows_that_stay_are_untouched(tmp_path):
    particles = Particles.read(write_star(tmp_path / "a" / "particles.star"))
    rotations, shifts = changed(particles, [1, 4])
    path = tmp_path / "a" / "new.star"
    write_with_poses(particles, path, rotations, shifts, {"cryoscapeScore": np.arange(particles.n)})
    again = Particles.read(path)
    np.testing.assert_allclose(again.rotations, rotations, atol=1e-7)
    np.testing.assert_allclose(again.shifts, shifts, atol=1e-6)
    before, after = (read_star(p)[1] for p in (tmp_path / "a" / "particles.star", path))
    poses = {"rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi", "rlnOriginXAngst", "rlnOriginYAngst"}
    for tag in before.tags:
        old, new = before.tokens(tag), after.tokens(tag)
        if tag in poses:
            assert [i for i in range(particles.n) if old[i] != new[i]] == [1, 4]
        else:
            assert old == new
    assert after.tokens("cryoscapeScore") == [str(i) for i in range(particles.n)]


def test_version_3_0_keeps_its_pixels(tmp_path):
    columns = particle_columns()
    for axis in "XY":
        columns[f"rlnOrigin{axis}"] = columns.pop(f"rlnOrigin{axis}Angst")
    path = write_star(tmp_path / "particles.star", columns)
    particles = Particles.read(path)
    rotations, shifts = changed(particles, [0])
    write_with_poses(particles, tmp_path / "new.star", rotations, shifts)
    again = Particles.read(tmp_path / "new.star")
    np.testing.assert_allclose(again.shifts, shifts, atol=2e-6)
    assert "rlnOriginXAngst" not in read_star(tmp_path / "new.star")[1]


@pytest.mark.parametrize("suffix", [".cs", ".star"])
def test_cryosparc_poses(tmp_path, suffix):
    main, _ = cs_table()
    particles = Particles.read(write_cryosparc(tmp_path))
    rotations, shifts = changed(particles, [2])
    path = tmp_path / "J42" / f"new{suffix}"
    write_with_poses(particles, path, rotations, shifts)
    again = Particles.read(path)
    np.testing.assert_allclose(again.rotations, rotations, atol=1e-6)
    np.testing.assert_allclose(again.shifts, shifts, atol=1e-5)
    if suffix == ".cs":
        with open(path, "rb") as handle:
            written = np.load(handle)
        stay = np.arange(particles.n) != 2
        for name in main.dtype.names:
            np.testing.assert_array_equal(written[name][stay], main[name][stay])
