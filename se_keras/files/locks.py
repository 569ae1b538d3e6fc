"""Locks between processes, which the system releases however a process ends."""

from __future__ import annotations

import contextlib
import os
import pathlib
import stat
from collections.abc import Iterator

import filelock

from se_keras.errors import InUseError

# A lock file looks taken for a moment while it is being removed.
_PATIENCE = 0.3
_ATTEMPTS = 100


@contextlib.contextmanager
def locked(file: pathlib.Path, subject: str | os.PathLike, *, patience: float = _PATIENCE) -> Iterator[None]:
    """Holds a lock while a block runs.

    Args:
        file: The lock file. Its folder is created if necessary; the file is removed at the end.
        subject: What is locked, for the message.
        patience: Seconds to wait for another process; -1 waits as long as it takes.

    Yields:
        Nothing.

    Raises:
        InUseError: Another process, or another thread of this one, holds the lock.
        FileExistsError: Something that is not a lock has the lock file's name, or a file is where its folder belongs.
    """
    refuse_no_folder(file, subject)
    _refuse_strangers(file, subject)
    lock = _acquired(file, subject, patience)
    try:
        yield
    finally:
        # Removed while it is held: a process that has opened it meanwhile sees that it is gone, and creates a new one.
        try:
            with contextlib.suppress(OSError):
                file.unlink()
        finally:
            lock.release()
        if os.name == "nt":  # where an open file cannot be removed
            with contextlib.suppress(OSError):
                file.unlink()


def refuse_no_folder(file: pathlib.Path, subject: str | os.PathLike) -> None:
    """Rejects a path that goes through a file.

    Args:
        file: The file to write; its folder need not exist.
        subject: The path as it was given, for the message.

    Raises:
        FileExistsError: Something other than a folder is where one would be created.
    """
    for above in file.absolute().parents:
        # One look at each, because another process may remove the folder of a lock at any moment.
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            if stat.S_ISDIR(above.stat().st_mode):
                return
            raise FileExistsError(
                f"{os.fspath(subject)!r} cannot be written: {os.fspath(above)!r} is not a folder. Choose another path."
            )


def _refuse_strangers(file: pathlib.Path, subject: str | os.PathLike) -> None:
    """Rejects a file that is not empty: locks are empty, and using the file as one would truncate and remove it."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        found = file.lstat()
        if not stat.S_ISREG(found.st_mode) or found.st_size:
            raise FileExistsError(
                f"{os.fspath(file)!r} is needed as the lock of {os.fspath(subject)!r}, but holds something else. Move "
                "it away, or choose another folder."
            )


def _acquired(file: pathlib.Path, subject: str | os.PathLike, patience: float) -> filelock.BaseFileLock:
    lock = filelock.FileLock(file)
    for attempt in range(_ATTEMPTS):
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=patience, poll_interval=0.02)
            break
        except (FileNotFoundError, FileExistsError):  # another process has just removed or created the folder
            if attempt == _ATTEMPTS - 1:
                raise
        except filelock.Timeout as error:
            raise InUseError(
                f"Another process is at work on {os.fspath(subject)!r}. Wait until it is done, or choose another name."
            ) from error
    return lock
