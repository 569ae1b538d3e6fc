"""Suppression of what compiled code prints to the terminal."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import threading
from collections.abc import Iterator

from se_keras.log_records import root_handlers_kept

_MOST = 4000  # bytes that an error shows


class _Redirection:
    """The redirection of standard error to a file, which all threads share: the last one to leave ends it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._holders = 0

    def begin(self) -> None:
        """Redirects standard error, unless it is redirected already."""
        with self._lock:
            if not self._holders:
                if sys.stderr is not None:  # as in a process without a console
                    sys.stderr.flush()
                self._file = tempfile.TemporaryFile()  # noqa: SIM115  open until the last thread leaves
                self._stderr = os.dup(2)
                os.dup2(self._file.fileno(), 2)
            self._holders += 1

    def end(self) -> None:
        """Restores standard error, unless another thread still needs the redirection."""
        with self._lock:
            self._holders -= 1
            if not self._holders:
                os.dup2(self._stderr, 2)
                os.close(self._stderr)
                self._file.close()

    def tell(self, error: BaseException) -> None:
        """Adds the end of what was printed to an error, or prints it."""
        size = os.fstat(self._file.fileno()).st_size
        printed = os.pread(self._file.fileno(), _MOST, max(0, size - _MOST))
        if printed and hasattr(error, "add_note"):  # Python 3.11
            error.add_note(f"Printed meanwhile:\n{printed.decode('utf-8', 'replace')}")
        else:
            os.write(self._stderr, printed)


_redirection = _Redirection()


@contextlib.contextmanager
def native_output_held() -> Iterator[None]:
    """Hides messages that compiled code (TensorFlow, its converter) prints; an error's traceback shows them.

    The root logger keeps its handlers: TensorFlow logs such messages with absl, which would add one.

    Yields:
        Nothing.
    """
    _redirection.begin()
    try:
        with root_handlers_kept():
            yield
    except BaseException as error:
        _redirection.tell(error)
        raise
    finally:
        _redirection.end()
