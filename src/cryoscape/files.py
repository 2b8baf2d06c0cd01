"""Files that appear whole or not at all."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cryoscape.errors import InputError

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
_NOT_ALLOWED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR)


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Write a file under a temporary name, then rename it to its own.

    The temporary name lies in the same folder, so that the rename stays within one file system, and ends
    like the final one, so that programs which look at the suffix write the right format. The folder is
    made if need be. When the block ends the file is flushed to the disk and renamed; when it raises, the
    temporary file is removed and a file already at `path` stays as it was.

    Parameters
    ----------
    path : path
        Where the file is to be.

    Yields
    ------
    Path
        Where to write it now.

    Raises
    ------
    InputError
        If the disk is full or the folder cannot be written to.
    """
    target = Path(path)
    temporary = target.with_name(f".{secrets.token_hex(4)}.{target.name}")
    try:
        with explain_os_errors(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            with open(temporary, "rb+") as handle:
                os.fsync(handle.fileno())
            os.replace(temporary, target)
            _sync_folder(target.parent)
    finally:
        # The folder itself may be what could not be made.
        with suppress(OSError):
            temporary.unlink()


def need_space(folder: str | os.PathLike[str], size: int, what: str) -> None:
    """Refuse to begin what will not fit on the disk.

    Parameters
    ----------
    folder : path
        Where it is to be written; need not exist yet.
    size : int
        Bytes.
    what : str
        Named in the message, for example "200 maps".

    Raises
    ------
    InputError
        If the disk has less space left.
    """
    there = Path(folder).absolute()
    while not there.exists():
        there = there.parent
    free = shutil.disk_usage(there).free
    if size > free:
        raise InputError(
            f"{what} take {size / 1e9:.1f} GB and the disk has {free / 1e9:.1f} GB left",
            file=folder,
            remedy="Ask for fewer, free some space or choose another output folder.",
        )


@contextmanager
def explain_os_errors(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turn a full disk or a forbidden folder into a message for the user.

    Parameters
    ----------
    path : path
        The file being written, named in the message.

    Raises
    ------
    InputError
        In place of the `OSError` of a full disk, a missing permission or a folder that is a file.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _DISK_FULL:
            raise InputError(
                "the disk is full", file=path, remedy="Free some space or choose another output folder."
            ) from error
        if error.errno in _NOT_ALLOWED or isinstance(error, FileExistsError):
            raise InputError(
                f"cannot be written ({error.strerror})",
                file=path,
                remedy="Choose an output folder that you may write to.",
            ) from error
        raise


def _sync_folder(folder: Path) -> None:
    # Some network and Windows file systems refuse to open folders; the rename stands all the same.
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def is_run(folder: str | os.PathLike[str]) -> bool:
    """Whether a folder is that of a run."""
    return (Path(folder) / "run.json").is_file()
