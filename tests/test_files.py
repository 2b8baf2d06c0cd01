from __future__ import annotations

import errno
import os

import pytest

from cryoscape.errors import InputError
from cryoscape.files import atomic_path


def test_the_file_appears_whole_with_ordinary_permissions(tmp_path):
    target = tmp_path / "deep" / "a.txt"
    with atomic_path(target) as temporary:
        temporary.write_text("half")
        assert not target.exists()
        assert temporary.parent == target.parent
        assert temporary.name.endswith("a.txt")
    assert target.read_text() == "half"
    umask = os.umask(0)
    os.umask(umask)
    assert target.stat().st_mode & 0o777 == 0o666 & ~umask


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")

    def fail():
        with atomic_path(target) as temporary:
            temporary.write_text("new")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert target.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.parametrize(
    ("code", "message"), [(errno.ENOSPC, "disk is full"), (errno.EACCES, "cannot be written")]
)
def test_a_full_disk_is_the_users_to_mend(tmp_path, code, message):
    with pytest.raises(InputError, match=message), atomic_path(tmp_path / "a.txt"):
        raise OSError(code, "no")
    with pytest.raises(OSError, match="other"), atomic_path(tmp_path / "a.txt"):
        raise OSError(errno.EIO, "other")
    assert not list(tmp_path.iterdir())
