"""Keeping what compiled code prints off the terminal."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator


@contextlib.contextmanager
def native_output_held() -> Iterator[None]:
    """Keeps what compiled code prints (TensorFlow, its converter) off the terminal; shows it if the block fails."""
    with tempfile.TemporaryFile() as held:
        saved = os.dup(2)
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            os.dup2(saved, 2)
            held.seek(0)
            os.write(2, held.read()[-4000:])
            raise
        finally:
            os.dup2(saved, 2)
            os.close(saved)
