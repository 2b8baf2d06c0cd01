from __future__ import annotations

import os
import pickle
import subprocess
import sys

import mrcfile
import numpy as np
import pytest

from cryoscape.data.locating import portable_names, resolve_paths
from cryoscape.data.stack import ImageStack, read_stack_header
from cryoscape.errors import InputError
from tests.data.builders import write_stack


@pytest.mark.parametrize("dtype", ["f4", "f2", "i1", "i2", "u2"])
def test_every_mode_gives_the_stored_pixels(tmp_path, dtype):
    data = write_stack(tmp_path / "a.mrcs", dtype=dtype)
    images = ImageStack([tmp_path / "a.mrcs"], [0] * 12, range(12)).images([5, 0, 5])
    assert images.dtype == np.float32
    np.testing.assert_array_equal(images, data[[5, 0, 5]].astype(np.float32))


def test_big_endian_with_extended_header(tmp_path):
    data = np.arange(2 * 16, dtype=">f4").reshape(2, 4, 4)
    header = np.zeros(256, dtype=">i4")
    header[:4] = 4, 4, 2, 2
    header[23] = 160
    raw = bytearray(header.tobytes())
    raw[212:214] = b"\x11\x11"
    (tmp_path / "a.mrcs").write_bytes(bytes(raw) + bytes(160) + data.tobytes())
    stack = ImageStack([tmp_path / "a.mrcs"], [0, 0], [1, 0])
    np.testing.assert_array_equal(stack.images([0, 1]), data[[1, 0]])


def test_many_files_few_of_them_open(tmp_path):
    data = np.stack([write_stack(tmp_path / f"{k}.mrcs", n=3, seed=k) for k in range(40)])
    rng = np.random.default_rng(0)
    file, index = rng.integers(0, 40, 200), rng.integers(0, 3, 200)
    stack = ImageStack([tmp_path / f"{k}.mrcs" for k in range(40)], file, index)
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else None
    for _ in range(2):
        rows = rng.permutation(200)
        np.testing.assert_array_equal(stack.images(rows), data[file[rows], index[rows]])
    if before is not None:
        assert len(os.listdir("/proc/self/fd")) - before <= 32
    chosen = stack.select([7, 3])
    np.testing.assert_array_equal(chosen.images([1, 0]), data[file[[3, 7]], index[[3, 7]]])
    copy = pickle.loads(pickle.dumps(stack))
    np.testing.assert_array_equal(copy.images([1]), data[file[[1]], index[[1]]])


def test_nothing_asked_for(tmp_path):
    write_stack(tmp_path / "a.mrcs")
    assert ImageStack([tmp_path / "a.mrcs"], [0], [0]).images([]).shape == (0, 8, 8)


def test_complex_pixels_are_refused(tmp_path):
    with mrcfile.new(tmp_path / "a.mrcs") as mrc:
        mrc.set_data(np.zeros((2, 4, 4), dtype="c8"))
    with pytest.raises(InputError, match="mode 4") as caught:
        read_stack_header(tmp_path / "a.mrcs")
    assert caught.value.file == tmp_path / "a.mrcs"
    assert caught.value.remedy


@pytest.mark.parametrize("content", [b"", b"\x00" * 2000, b"data_\nloop_\n" * 200])
def test_other_files_are_refused(tmp_path, content):
    (tmp_path / "a.mrcs").write_bytes(content)
    with pytest.raises(InputError):
        read_stack_header(tmp_path / "a.mrcs")


def test_lookup_goes_up_from_the_table_then_to_datadir(tmp_path):
    table = tmp_path / "project" / "Refine3D" / "job1" / "run_data.star"
    beside = tmp_path / "project" / "Refine3D" / "job1" / "Extract" / "a.mrcs"
    root = tmp_path / "project" / "Extract" / "a.mrcs"
    data = tmp_path / "disk" / "Extract" / "a.mrcs"
    flat = tmp_path / "flat" / "a.mrcs"
    for path in (table, beside, root, data, flat):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")

    def found(datadir=None, name="Extract/a.mrcs"):
        return resolve_paths([name], table, datadir)[0]

    assert found(tmp_path / "disk") == beside
    beside.unlink()
    assert found(tmp_path / "disk") == root
    assert found(name=">Extract/a.mrcs") == root
    root.unlink()
    assert found(tmp_path / "disk") == data
    assert found(tmp_path / "flat") == flat
    assert found(tmp_path / "flat", "/gone/a.mrcs") == flat
    with pytest.raises(InputError, match="missing") as caught:
        resolve_paths(["Extract/a.mrcs"], table, None, [4])
    assert (caught.value.file, caught.value.row) == (table, 5)
    assert "--datadir" in caught.value.remedy


def test_names_stay_where_they_still_lead_to_the_file(tmp_path):
    root = tmp_path / "project"
    (root / "Extract").mkdir(parents=True)
    file = root / "Extract" / "a.mrcs"
    file.write_text("x")
    inside, outside = root / "RUN" / "p.star", tmp_path / "elsewhere" / "p.star"
    assert portable_names(["Extract/a.mrcs"], [file], inside) == ["Extract/a.mrcs"]
    assert portable_names(["Extract/a.mrcs"], [file], outside) == [str(file)]


SPARSE = """
import resource, struct, sys
import numpy as np
from cryoscape.data.stack import ImageStack

n, box, path = 30000, 64, sys.argv[1]
header = bytearray(1024)
header[:16] = struct.pack("<4i", box, box, n, 2)
header[28:40] = struct.pack("<3i", box, box, n)
header[208:216] = b"MAP " + bytes([0x44, 0x44, 0, 0])
with open(path, "wb") as handle:
    handle.write(header)
    handle.truncate(1024 + 4 * n * box * box)
stack = ImageStack([path], np.zeros(n), np.arange(n))
order = np.random.default_rng(0).permutation(n)
assert not stack.images(order[:64]).any()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for rows in np.split(order, 300):
    stack.images(rows)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="sparse files and the unit of ru_maxrss are Linux's")
def test_reading_a_large_stack_does_not_fill_the_memory(tmp_path):
    """All of 490 MB (a sparse file) in random order: mapped pages count as memory until given back."""
    done = subprocess.run(
        [sys.executable, "-c", SPARSE, str(tmp_path / "a.mrcs")], capture_output=True, text=True, check=True
    )
    assert float(done.stdout) < 200
