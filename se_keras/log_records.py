"""What other packages do to the user's logging: misleading records, and handlers that nobody asked for."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def left_out(logger: str | None, unwanted: Callable[[logging.LogRecord], bool]) -> Iterator[None]:
    """Leaves out records of a logger; levels and handlers stay as they are, in all threads.

    Args:
        logger: Name of the logger. None selects the root logger. Records of its children are not left out.
        unwanted: A function that returns whether to leave out a record.

    Yields:
        Nothing.
    """

    def wanted(record: logging.LogRecord) -> bool:
        return not unwanted(record)

    found = logging.getLogger(logger)
    found.addFilter(wanted)
    try:
        yield
    finally:
        found.removeFilter(wanted)


@contextlib.contextmanager
def root_handlers_kept() -> Iterator[None]:
    """Removes the handler that absl, which TensorFlow logs with, adds to a root logger without any.

    With that handler, a later `logging.basicConfig` would do nothing. What other threads set up meanwhile stays,
    unless it is exactly the same: a plain handler, and the level as before.

    Yields:
        Nothing.
    """
    had_some, level = bool(logging.root.handlers), logging.root.level
    try:
        yield
    finally:
        if not had_some and logging.root.level == level:
            for handler in logging.root.handlers[:]:
                if type(handler) is logging.StreamHandler:
                    logging.root.removeHandler(handler)
