"""Signals that stop a run at the end of a step."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any, Protocol


class Interruptible(Protocol):
    """A run that can be stopped.

    Args:
        interrupted: Whether a signal asked it to stop.
    """

    interrupted: bool


@contextlib.contextmanager
def signals_noted(run: Interruptible) -> Iterator[None]:
    """Records Ctrl-C, or a scheduler's SIGTERM, in the run instead of interrupting a step; a second signal interrupts.

    Args:
        run: The run in which the signal is recorded.

    Yields:
        Nothing.

    Raises:
        KeyboardInterrupt: A second signal arrived.
    """
    if threading.current_thread() is not threading.main_thread():  # handlers can be set only in the main thread
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
