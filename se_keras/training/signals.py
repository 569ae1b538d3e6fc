"""Being told to stop, at a moment that suits."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any, Protocol


class Interruptible(Protocol):
    """What can be told to stop.

    Args:
        interrupted: Whether it was.
    """

    interrupted: bool


@contextlib.contextmanager
def signals_noted(run: Interruptible) -> Iterator[None]:
    """Lets Ctrl-C, and a scheduler's SIGTERM, be noted instead of breaking a step in its middle; the second breaks.

    Args:
        run: Where it is noted.

    Yields:
        Nothing.

    Raises:
        KeyboardInterrupt: At the second signal.
    """
    if threading.current_thread() is not threading.main_thread():  # only there can handlers be set
        yield
        return

    def note(number: int, frame: Any) -> None:
        if run.interrupted:
            raise KeyboardInterrupt
        run.interrupted = True

    old = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
