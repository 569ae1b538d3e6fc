"""Contestants in separate processes: each reports when it is ready, and then the time of each call.

`Contestant` is the side of the benchmark, `answer` that of the worker; both need only Python. A contestant that cannot
start (`started`), or ends before the others (`take_turns`), is skipped and named: a machine without PyTorch still
times the others.
"""

from __future__ import annotations

import contextlib
import json
import math
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
        command: Its command line. It prints "ready", and then the seconds of one call for every line it reads.
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
        """Returns the seconds of one call; NaN if the process has ended."""
        time.sleep(0.05)  # threads of some runtimes keep spinning after a call, which slows down the next one
        try:
            self.process.stdin.write("\n")
            self.process.stdin.flush()
            return float(self.process.stdout.readline())
        except (OSError, ValueError):  # a broken pipe, or an empty answer
            return math.nan

    def close(self) -> None:
        """Ends the process."""
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        with contextlib.suppress(BrokenPipeError):  # input that the process did not read
            self.process.stdin.close()


def answer(make: Callable[[], Callable[[], object]], *, warmups: int, settling: float = 0.0) -> None:
    """Creates a function, then times one call of it for every line on standard input.

    Args:
        make: Returns the function to call.
        warmups: Calls before the first timed call.
        settling: Seconds before each timed call within which further calls begin. Without them, a short call would
            find the data of other contestants in the caches.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # keeps output of libraries out of the answers
    run = make()
    for _ in range(warmups):
        run()
    print("ready", file=answers, flush=True)
    for _ in sys.stdin:
        settled = time.perf_counter() + settling
        while time.perf_counter() < settled:
            run()
        started = time.perf_counter()
        run()
        print(time.perf_counter() - started, file=answers, flush=True)


def started(commands: Mapping[Name, Sequence[str | os.PathLike]]) -> dict[Name, Contestant]:
    """Starts contestants; those that cannot start are skipped and named with the reason.

    Args:
        commands: Command lines of the contestants by name.

    Returns:
        The contestants that are ready, by name.
    """
    runs = {}
    for name, command in commands.items():
        try:
            runs[name] = Contestant(command)
        except RuntimeError as error:
            _leave_out(name, str(error).splitlines()[-1])
    return runs


def take_turns(runs: Mapping[Name, Contestant], *, rounds: int) -> dict[Name, list[float]]:
    """Times one call of each contestant in turn, round after round, and then ends the processes.

    Args:
        runs: The contestants by name.
        rounds: Number of calls of each, at least 1.

    Returns:
        The seconds of each call, by name. Contestants whose process ended early are skipped and named.
    """
    from se_keras.timing import interleaved  # the workers, which also import this module, may lack se_keras

    try:
        seconds = interleaved(runs, rounds=rounds, warmups=0)
    finally:
        for run in runs.values():
            run.close()
    ended = [name for name, taken in seconds.items() if any(map(math.isnan, taken))]
    for name in ended:
        _leave_out(name, "its process ended")
    return {name: taken for name, taken in seconds.items() if name not in ended}


def _leave_out(name: Hashable, reason: str) -> None:
    title = ": ".join(map(str, name)) if isinstance(name, tuple) else name
    print(f"  left out: {title} ({reason})", flush=True)


def installed(python: str | os.PathLike, packages: Sequence[str]) -> dict[str, str]:
    """Returns versions of packages in another Python.

    Args:
        python: The interpreter.
        packages: Names of distributions.

    Returns:
        The version of each installed package; {} if the interpreter does not exist.
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
