"""A contestant that is a process of its own: it says when it is ready, and then how long each call took.

`Contestant` is the side of the benchmark, `answer` that of the worker; neither needs more than Python.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence


class Contestant:
    """A worker process.

    Args:
        command: Its command line. It prints "ready", and after that the seconds of one call for every line it reads.
    """

    def __init__(self, command: Sequence[str | os.PathLike]) -> None:
        with tempfile.TemporaryFile("w+") as complaints:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=complaints, text=True
            )
            if self.process.stdout.readline().strip() != "ready":
                self.process.kill()
                complaints.seek(0)
                last = "".join(complaints.readlines()[-5:]).strip()
                raise RuntimeError(f"{' '.join(map(str, command))} did not start. It ended with:\n{last}")

    def __call__(self) -> float:
        """Seconds of one call."""
        time.sleep(0.05)  # some runtimes' threads go on spinning after a call, at the next one's cost
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())


def answer(make: Callable[[], Callable[[], object]], *, warmups: int, settling: int = 0, parts: int = 1) -> None:
    """Makes what is timed, then times one call for every line on standard input, until it ends.

    Args:
        make: Gives the function to call.
        warmups: Calls before the first that is timed.
        settling: Calls before each timed one, as of `timing.interleaved`.
        parts: What a call's seconds are divided by, where it does the same several times.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints must not be taken for an answer
    run = make()
    for _ in range(warmups):
        run()
    print("ready", file=answers, flush=True)
    for _ in sys.stdin:
        for _ in range(settling):
            run()
        started = time.perf_counter()
        run()
        print((time.perf_counter() - started) / parts, file=answers, flush=True)


def take_turns(runs: Mapping[str, Contestant], *, rounds: int) -> dict[str, list[float]]:
    """Seconds of one call of each in turn, round after round; the processes are ended afterwards.

    Args:
        runs: The contestants by name.
        rounds: How often each is called, at least 1.

    Returns:
        The seconds of each call, by name.
    """
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    try:
        for _ in range(rounds):
            for name, run in runs.items():
                seconds[name].append(run())
    finally:
        for run in runs.values():
            run.process.kill()
    return seconds
