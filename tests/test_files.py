from __future__ import annotations

import errno
import os

import pytest

from cryoscape.errors import InputError
from cryoscape.files import atomic_path, need_space


def interrupted_write(target, fault):
    with atomic_path(target) as temporary:
        temporary.write_text("new")
        raise fault


def test_the_file_appears_whole_with_ordinary_permissions(tmp_path):
    target = tmp_path / "deep" / "map.cif.gz"
    with atomic_path(target) as temporary:
        temporary.write_text("half")
        assert not target.exists()
        assert temporary.parent == target.parent
        assert temporary.name.endswith("map.cif.gz")
    assert target.read_text() == "half"
    assert list(target.parent.iterdir()) == [target]
    umask = os.umask(0)
    os.umask(umask)
    assert target.stat().st_mode & 0o777 == 0o666 & ~umask


@pytest.mark.parametrize("fault", [RuntimeError("bug"), KeyboardInterrupt()])
def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path, fault):
    target = tmp_path / "run.json"
    target.write_text("old")
    with pytest.raises(type(fault)):
        interrupted_write(target, fault)
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize(
    ("code", "message"),
    [(errno.ENOSPC, "disk is full"), (errno.EDQUOT, "disk is full"), (errno.EACCES, "cannot be written")],
)
def test_a_full_disk_is_the_users_to_mend(tmp_path, code, message):
    target = tmp_path / "x.npz"
    with pytest.raises(InputError, match=message) as caught:
        interrupted_write(target, OSError(code, "no"))
    assert caught.value.file == target
    assert caught.value.remedy
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_a_file_is_bad_input(tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(InputError, match="cannot be written") as caught, atomic_path(tmp_path / "out" / "x"):
        pass
    assert caught.value.remedy


def test_other_os_errors_are_not_hidden(tmp_path):
    with pytest.raises(OSError, match="other"), atomic_path(tmp_path / "a.txt"):
        raise OSError(errno.EIO, "other")
    assert not list(tmp_path.iterdir())


def test_what_does_not_fit_is_refused_before_it_begins(tmp_path):
    need_space(tmp_path / "not" / "there", 1000, "two maps")
    with pytest.raises(InputError, match=r"two maps take 1000000000.0 GB"):
        need_space(tmp_path / "not" / "there", 10**18, "two maps")
