"""Suppression of messages that compiled code prints to the terminal."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator

_MOST = 4000  # bytes that an error shows


@contextlib.contextmanager
def native_output_held() -> Iterator[None]:
    """Hides messages that compiled code (TensorFlow, its converter) prints; an error's traceback shows them."""
    sys.stderr.flush()
    with tempfile.TemporaryFile() as held:
        saved = os.dup(2)
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException as error:
            held.seek(0)
            _tell(error, held.read()[-_MOST:], saved)
            raise
        finally:
            os.dup2(saved, 2)
            os.close(saved)


def _tell(error: BaseException, printed: bytes, stderr: int) -> None:
    if printed and hasattr(error, "add_note"):  # Python 3.11
        error.add_note(f"Printed meanwhile:\n{printed.decode('utf-8', 'replace')}")
    else:
        os.write(stderr, printed)
