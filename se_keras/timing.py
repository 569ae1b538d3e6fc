"""Side-by-side timing: the contestants take turns, so a drift in the machine's speed affects all equally."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping
from typing import Any, TypeVar

from se_keras.progress import tracked

Name = TypeVar("Name", bound=Hashable)


def stopwatch(run: Callable[[], Any], *, settling: int = 0) -> Callable[[], float]:
    """Makes a timer for a function.

    Args:
        run: The function.
        settling: Untimed calls before each timed call. Without them, a short call would find the
            data of other contestants in the caches.

    Returns:
        A function that calls `run`, and returns the seconds that the last call took.
    """

    def timed() -> float:
        for _ in range(settling):
            run()
        started = time.perf_counter()
        run()
        return time.perf_counter() - started

    return timed


def interleaved(
    timers: Mapping[Name, Callable[[], float]],
    *,
    rounds: int,
    warmups: int = 1,
    title: str = "Timing",
    verbose: str | int = 0,
) -> dict[Name, list[float]]:
    """Calls each timer in turn, round after round, in every second round in the reverse order.

    A call is slower or faster after some than after others, and with one order it would always follow the same.

    Args:
        timers: Functions that time one call, such as those of `stopwatch`, by name.
        rounds: Rounds whose times count, at least 1.
        warmups: Rounds before them.
        title: Title of the progress bar.
        verbose: "auto" or 1 to show a progress bar over the rounds, 0 to show nothing.

    Returns:
        The seconds of each call that counts, by name.
    """
    seconds: dict[Name, list[float]] = {name: [] for name in timers}
    for number in tracked(range(warmups + rounds), title, verbose=verbose):
        for name in list(timers)[:: -1 if number % 2 else 1]:
            taken = timers[name]()
            if number >= warmups:
                seconds[name].append(taken)
    return seconds
