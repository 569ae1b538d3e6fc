"""Log records of other packages that would mislead users, left out for a moment."""

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
