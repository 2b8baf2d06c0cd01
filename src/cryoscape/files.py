"""Files that appear whole or not at all."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cryoscape.errors import InputError


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary name to write to, and rename it to `path` when the block ends well.

    The temporary file lies in the folder of `path`, so that the rename stays within one file system,
    and ends in the name of `path`, so that writers that look at the extension see the right one.

    Parameters
    ----------
    path : path
        The name that the finished file shall have. Its folder is created where it is missing.

    Yields
    ------
    Path
        The temporary name.

    Raises
    ------
    InputError
        If the disk is full or the folder cannot be written. Nothing is left behind.
    """
    path = Path(path)
    temporary = path.with_name(f".partial-{secrets.token_hex(4)}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with open(temporary, "rb+") as stream:
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except OSError as error:
        reason = _reason(error)
        if reason is None:
            raise
        raise InputError(reason[0], file=path, remedy=reason[1]) from error
    finally:
        # The folder itself may be what could not be made.
        with suppress(OSError):
            temporary.unlink()


def _reason(error: OSError) -> tuple[str, str] | None:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "the disk is full", "Free some space or write to another disk."
    if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
        return "the folder cannot be written", "Choose a folder that you may write to."
    return None
