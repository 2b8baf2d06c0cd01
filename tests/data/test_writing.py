from __future__ import annotations

import errno

import pytest

from cryoscape.data.writing import atomic_path
from cryoscape.errors import InputError


def interrupted_write(target, fault):
    with atomic_path(target) as temporary:
        temporary.write_text("new")
        raise fault


def test_file_appears_only_when_whole(tmp_path):
    target = tmp_path / "new" / "map.cif.gz"
    with atomic_path(target) as temporary:
        temporary.write_text("half")
        assert temporary.parent == target.parent
        assert temporary.name.endswith("map.cif.gz")
        assert not target.exists()
    assert target.read_text() == "half"
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("fault", [RuntimeError("bug"), KeyboardInterrupt()])
def test_former_file_survives_a_fault(tmp_path, fault):
    target = tmp_path / "run.json"
    target.write_text("old")
    with pytest.raises(type(fault)):
        interrupted_write(target, fault)
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_full_disk_is_bad_input(tmp_path, number):
    target = tmp_path / "x.npz"
    with pytest.raises(InputError, match="disk is full") as caught:
        interrupted_write(target, OSError(number, "No space left on device"))
    assert caught.value.file == target
    assert "space" in caught.value.remedy
    assert list(tmp_path.iterdir()) == []


def test_folder_that_is_a_file_is_bad_input(tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(InputError, match="cannot be written") as caught, atomic_path(tmp_path / "out" / "x"):
        pass
    assert caught.value.remedy


def test_other_os_errors_are_not_hidden(tmp_path):
    with pytest.raises(OSError, match="Input/output"), atomic_path(tmp_path / "x"):
        raise OSError(errno.EIO, "Input/output error")
