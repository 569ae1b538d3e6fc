"""A contestant that is a process of its own: it says when it is ready, and then how long each call took.

`Contestant` is the side of the benchmark, `answer` that of the worker; neither needs more than Python. Who cannot
start (`started`), or ends before the others (`take_turns`), is left out and named: a machine without PyTorch still
times the rest.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import TypeVar

Name = TypeVar("Name", bound=Hashable)


class Contestant:
    """A worker process.

    Args:
        command: Its command line. It prints "ready", and after that the seconds of one call for every line it reads.
    """

    def __init__(self, command: Sequence[str | os.PathLike]) -> None:
        with tempfile.TemporaryFile("w+") as complaints:
            try:
                self.process = subprocess.Popen(
                    command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=complaints, text=True
                )
            except OSError as error:  # no such Python
                raise RuntimeError(f"{command[0]} cannot be run: {error.strerror}") from error
            if self.process.stdout.readline().strip() != "ready":
                self.close()
                complaints.seek(0)
                last = "".join(complaints.readlines()[-5:]).strip()
                raise RuntimeError(f"{' '.join(map(str, command))} did not start. It ended with:\n{last}")

    def __call__(self) -> float:
        """Seconds of one call."""
        time.sleep(0.05)  # some runtimes' threads go on spinning after a call, at the next one's cost
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())

    def close(self) -> None:
        """Ends the process."""
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        with contextlib.suppress(BrokenPipeError):  # what the process did not read
            self.process.stdin.close()


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


def started(commands: Mapping[Name, Sequence[str | os.PathLike]]) -> dict[Name, Contestant]:
    """Starts contestants; those that cannot start are left out, and named with the reason.

    Args:
        commands: Their command lines by name.

    Returns:
        Those that are ready, by name.
    """
    runs = {}
    for name, command in commands.items():
        try:
            runs[name] = Contestant(command)
        except RuntimeError as error:
            _leave_out(name, str(error).splitlines()[-1])
    return runs


def take_turns(runs: Mapping[Name, Contestant], *, rounds: int) -> dict[Name, list[float]]:
    """Seconds of one call of each in turn, round after round; the processes are ended afterwards.

    Args:
        runs: The contestants by name.
        rounds: How often each is called, at least 1.

    Returns:
        The seconds of each call, by name; without those whose process ended in between, which are named.
    """
    seconds: dict[Name, list[float]] = {name: [] for name in runs}
    try:
        for _ in range(rounds):
            for name in list(seconds):
                try:
                    seconds[name].append(runs[name]())
                except (OSError, ValueError):  # a broken pipe, or an empty answer
                    del seconds[name]
                    _leave_out(name, "its process ended")
    finally:
        for run in runs.values():
            run.close()
    return seconds


def _leave_out(name: Hashable, reason: str) -> None:
    title = ": ".join(map(str, name)) if isinstance(name, tuple) else name
    print(f"  left out: {title} ({reason})", flush=True)


def installed(python: str | os.PathLike, packages: Sequence[str]) -> dict[str, str]:
    """Versions of packages in another Python.

    Args:
        python: The interpreter.
        packages: Names of distributions.

    Returns:
        The version of each that is installed there; {} if there is no such Python.
    """
    code = (
        "import json, sys\nfrom importlib.metadata import distributions\n"
        "found = {d.metadata['Name'].lower().replace('_', '-'): d.version for d in distributions()}\n"
        "print(json.dumps({name: found[name] for name in sys.argv[1:] if name in found}))"
    )
    try:
        done = subprocess.run([python, "-c", code, *packages], check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError):
        return {}
    return json.loads(done.stdout)
