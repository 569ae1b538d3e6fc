"""Steps that a crash cannot split: renaming a finished file or folder, and flushing it to the disk."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import pathlib
import sys

_AT_THE_WORKING_FOLDER, _NO_REPLACE, _EXCHANGE = -100, 1, 2
_NOT_THERE = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EPERM)
# Where a folder cannot be opened or synced (Windows, some network disks), renaming has to suffice.
_UNSYNCED = (errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.EACCES, errno.EPERM, errno.EISDIR)


def exchange(one: pathlib.Path, other: pathlib.Path) -> bool:
    """Exchanges two files or folders in one step.

    Args:
        one: A path at which something exists.
        other: Another such path on the same disk.

    Returns:
        True if they were exchanged; False if the system cannot do this in one step.
    """
    return _renamed(one, other, _EXCHANGE)


def move_if_free(source: pathlib.Path, target: pathlib.Path) -> None:
    """Renames a file or folder unless something exists at the target, checked in the same step.

    Args:
        source: The file or folder.
        target: Its new name.

    Raises:
        FileExistsError: Something is there.
    """
    if _renamed(source, target, _NO_REPLACE):
        return
    if source.is_file() and _linked(source, target):
        source.unlink()
        return
    if os.path.lexists(target):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), os.fspath(target))
    source.rename(target)


def _renamed(source: pathlib.Path, target: pathlib.Path, how: int) -> bool:
    """Renames with Linux' renameat2, which can do more than rename(2); returns False where there is none."""
    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None) if sys.platform == "linux" else None
    if call is None:
        return False
    here = _AT_THE_WORKING_FOLDER
    if call(here, os.fsencode(source), here, os.fsencode(target), ctypes.c_uint(how)) == 0:
        return True
    code = ctypes.get_errno()
    if code in _NOT_THERE:
        return False
    raise OSError(code, os.strerror(code), os.fspath(source), None, os.fspath(target))


def _linked(source: pathlib.Path, target: pathlib.Path) -> bool:
    try:
        os.link(source, target)
    except FileExistsError:
        raise
    except (OSError, AttributeError):  # a disk or system without hard links
        return False
    return True


def sync(path: pathlib.Path) -> None:
    """Waits until a file, or all of a folder, is on the disk, so that it survives a power failure.

    Args:
        path: The file or folder.
    """
    if not path.is_dir():
        with open(path, "r+b") as stream:
            os.fsync(stream.fileno())
        return
    for entry in path.iterdir():
        sync(entry)
    sync_names(path)


def sync_names(folder: pathlib.Path) -> None:
    """Waits until the names in a folder are on the disk.

    Args:
        folder: The folder in which something was created or renamed.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError as error:
        if error.errno not in _UNSYNCED:
            raise
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _UNSYNCED:
            raise
    finally:
        os.close(descriptor)


def signature(path: str | os.PathLike) -> list[int] | None:
    """Returns numbers that stay the same when a file or folder is renamed, and change when it is replaced or modified.

    Args:
        path: The path; a link is not followed.

    Returns:
        Numbers to compare; None if nothing is there.
    """
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        found = os.lstat(path)
        return [found.st_ino, found.st_size, found.st_mtime_ns]
    return None
