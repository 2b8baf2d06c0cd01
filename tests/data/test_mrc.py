from __future__ import annotations

import errno
import io
import os

import mrcfile
import numpy as np
import pytest

from cryoscape.data.mrc import open_stack_writer, read_map, write_map
from cryoscape.data.stack import ImageStack
from cryoscape.errors import InputError


def volume():
    """Values that tell their own place: 100 z + 10 y + x, with sides 2, 3 and 4."""
    z, y, x = np.meshgrid(range(2), range(3), range(4), indexing="ij")
    return (100 * z + 10 * y + x).astype("f4")


@pytest.mark.parametrize("axes", [(1, 2, 3), (3, 2, 1), (2, 1, 3), (3, 1, 2), (2, 3, 1), (1, 3, 2)])
def test_axes_in_any_order_come_out_as_zyx(tmp_path, axes):
    """`axes` are mapc, mapr, maps: the array's last, middle and first axis."""
    zyx = {3: 0, 2: 1, 1: 2}
    starts = {1: 5, 2: 6, 3: 7}
    with mrcfile.new(tmp_path / "a.mrc") as mrc:
        mrc.set_data(np.ascontiguousarray(volume().transpose([zyx[a] for a in reversed(axes)])))
        mrc.header.mapc, mrc.header.mapr, mrc.header.maps = axes
        mrc.header.nxstart, mrc.header.nystart, mrc.header.nzstart = (starts[a] for a in axes)
        mrc.header.mx, mrc.header.my, mrc.header.mz = 4, 3, 2
        mrc.header.cella = (4 * 1.5, 3 * 1.5, 2 * 1.5)
    read = read_map(tmp_path / "a.mrc")
    np.testing.assert_array_equal(read.data, volume())
    assert read.data.flags.c_contiguous
    assert read.voxel_size == 1.5
    assert read.voxel_size_known
    np.testing.assert_allclose(read.origin, [7.5, 9.0, 10.5])


def test_origin_wins_over_start(tmp_path):
    with mrcfile.new(tmp_path / "a.mrc") as mrc:
        mrc.set_data(volume())
        mrc.voxel_size = 2.0
        mrc.header.nxstart = 9
        mrc.header.origin = (-4.0, 0.0, 6.0)
    np.testing.assert_allclose(read_map(tmp_path / "a.mrc").origin, [-4.0, 0.0, 6.0])


@pytest.mark.parametrize("voxel", [0.0, 1.0])
def test_unknown_voxel_size_is_flagged(tmp_path, voxel):
    with mrcfile.new(tmp_path / "a.mrc") as mrc:
        mrc.set_data(volume())
        mrc.voxel_size = voxel
    read = read_map(tmp_path / "a.mrc")
    assert (read.voxel_size, read.voxel_size_known) == (1.0, False)


@pytest.mark.parametrize("name", ["a.mrc", "a.mrc.gz"])
def test_written_map_is_a_map_with_origin_zero(tmp_path, name):
    cube = np.random.default_rng(0).normal(size=(4, 4, 4))
    write_map(tmp_path / name, cube, 1.1)
    with mrcfile.open(tmp_path / name) as mrc:
        assert mrc.is_volume()
        assert (mrc.header.origin.x, mrc.header.nxstart, mrc.header.ispg, mrc.header.mode) == (0, 0, 1, 2)
        np.testing.assert_array_equal(mrc.data, cube.astype("f4"))
        np.testing.assert_allclose(mrc.voxel_size.z, 1.1, rtol=1e-6)
    read = read_map(tmp_path / name)
    np.testing.assert_array_equal(read.data, cube.astype("f4"))
    assert read.voxel_size == 1.1
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_a_map_keeps_its_place(tmp_path):
    write_map(tmp_path / "a.mrc", np.zeros((4, 4, 4)), 1.5, origin=(1.0, -2.5, 30.0))
    np.testing.assert_allclose(read_map(tmp_path / "a.mrc").origin, [1.0, -2.5, 30.0])


def test_image_is_no_map_to_write(tmp_path):
    with pytest.raises(ValueError, match="three axes"):
        write_map(tmp_path / "a.mrc", np.zeros((4, 4)), 1.0)


def test_bad_maps_are_refused(tmp_path):
    path = tmp_path / "a.mrc"
    with pytest.raises(InputError, match="cannot be read") as caught:
        read_map(path)
    assert caught.value.file == path
    path.write_bytes(b"x" * 3000)
    with pytest.raises(InputError, match="not a whole map"):
        read_map(path)
    write_map(path, np.ones((4, 4, 4)), 1.0)
    os.truncate(path, 1100)
    with pytest.raises(InputError, match="not a whole map") as caught:
        read_map(path)
    assert caught.value.remedy
    with mrcfile.new(path, overwrite=True) as mrc:
        mrc.set_data(volume())
        mrc.voxel_size = (1.0, 1.0, 1.2)
    with pytest.raises(InputError, match="not cubes") as caught:
        read_map(path)
    assert "Resample" in caught.value.remedy
    with mrcfile.new(path, overwrite=True) as mrc:
        mrc.set_data(np.zeros((4, 4), dtype="f4"))
    with pytest.raises(InputError, match="not a density map"):
        read_map(path)


@pytest.mark.parametrize("dtype", ["f4", "f2", "i2"])
def test_written_stack_is_valid_and_reads_back(tmp_path, dtype):
    path = tmp_path / "new" / "particles.mrcs"
    pixels = open_stack_writer(path, 5, 6, 1.25, dtype)
    pixels[2:4] = np.arange(72).reshape(2, 6, 6)
    pixels.flush()
    assert mrcfile.validate(path, print_file=io.StringIO())
    with mrcfile.open(path) as mrc:
        assert mrc.is_image_stack()
        np.testing.assert_allclose(mrc.voxel_size.x, 1.25)
        assert mrc.data.shape == (5, 6, 6)
        assert mrc.data.dtype == dtype
    images = ImageStack([path], [0, 0], [1, 3]).images([0, 1])
    np.testing.assert_array_equal(images, [np.zeros((6, 6)), np.arange(36, 72).reshape(6, 6)])


def test_full_disk_is_found_before_the_first_image(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(InputError, match="disk is full"):
        open_stack_writer(tmp_path / "a.mrcs", 5, 6, 1.25)
    assert list(tmp_path.iterdir()) == []


def test_double_precision_has_no_mode(tmp_path):
    with pytest.raises(ValueError, match="float64"):
        open_stack_writer(tmp_path / "a.mrcs", 5, 6, 1.25, "f8")
