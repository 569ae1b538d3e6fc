"""A contestant that is a process of its own: it says when it is ready, and then how long each call took."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Sequence


class Contestant:
    """A worker process.

    Args:
        command: Its command line. It prints "ready", and after that the seconds of one call for every line it reads.
    """

    def __init__(self, command: Sequence[str | os.PathLike]) -> None:
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        if self.process.stdout.readline().strip() != "ready":
            raise RuntimeError(f"{' '.join(map(str, command))} did not start; run it by hand to see why.")

    def __call__(self) -> float:
        """Seconds of one call."""
        time.sleep(0.05)  # some runtimes' threads go on spinning after a call, at the next one's cost
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())
