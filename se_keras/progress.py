"""Progress of functions that take a while, shown as Keras shows it.

Functions with an argument `verbose` go through `steps` or `tracked`. A program with a display of its own, such as the
command line, installs it with `shown_by`.
"""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Callable, Collection, Iterator
from typing import TypeVar

Item = TypeVar("Item")
Advance = Callable[[], None]
Display = Callable[[str, "int | None"], contextlib.AbstractContextManager[Advance]]
"""Shows a bar with this title and number of steps, if known, and returns a function to call after each step."""


@contextlib.contextmanager
def steps(title: str, total: int | None, *, verbose: str | int = "auto") -> Iterator[Advance]:
    """Shows a progress bar while its block runs.

    Args:
        title: Title of the bar: the work in progress.
        total: Number of steps, or None if unknown.
        verbose: "auto" or 1 to show the bar, 0 to show nothing.

    Yields:
        A function to call after each step.

    Raises:
        ValueError: `verbose` is something else.
    """
    if verbose not in ("auto", 0, 1):
        raise ValueError(f"`verbose` must be 'auto', 0, or 1; received verbose={verbose!r}.")
    display = _display.get() if verbose and total != 0 else _nothing
    with display(title, total) as advance:
        yield advance


def tracked(items: Collection[Item], title: str, *, verbose: str | int = "auto") -> Iterator[Item]:
    """Yields items, and shows a progress bar.

    Args:
        items: The items.
        title: Title of the bar: the work in progress.
        verbose: As in `steps`.

    Yields:
        Each item.
    """
    with steps(title, len(items), verbose=verbose) as advance:
        for item in items:
            yield item
            advance()


@contextlib.contextmanager
def shown_by(display: Display) -> Iterator[None]:
    """Shows progress in another way while its block runs.

    Args:
        display: Shows a bar with a title and a number of steps; None is an unknown number.

    Yields:
        Nothing.
    """
    before = _display.set(display)
    try:
        yield
    finally:
        _display.reset(before)


@contextlib.contextmanager
def _keras_bar(title: str, total: int | None) -> Iterator[Advance]:
    import keras

    if keras.config.is_interactive_logging_enabled():
        print(title)
    bar, done = keras.utils.Progbar(total), 0

    def advance() -> None:
        nonlocal done
        done += 1
        bar.update(done)

    try:
        yield advance
    finally:
        if done != total:
            bar.update(done, finalize=True)  # ends the line


@contextlib.contextmanager
def _nothing(_title: str, _total: int | None) -> Iterator[Advance]:
    yield lambda: None


_display: contextvars.ContextVar[Display] = contextvars.ContextVar("display", default=_keras_bar)
