"""Time and memory of a call of an exported file."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Sequence

import numpy as np


@dataclasses.dataclass(frozen=True, kw_only=True)
class Speed:
    """Time and memory of a call, measured in a new process after a warm-up.

    Args:
        runtime: A key of `RUNTIMES`.
        threads: CPU threads.
        batch: Images per call.
        runs: Number of timed runs.
        median: Median of the runs in seconds.
        least: Minimum of the runs in seconds.
        quartiles: First and third quartiles of the runs in seconds.
        peak_memory: Bytes that opening and running the file added to its idle runtime.
        seconds: Seconds of each run, in order.
    """

    runtime: str
    threads: int
    batch: int
    runs: int
    median: float
    least: float
    quartiles: tuple[float, float]
    peak_memory: int
    seconds: tuple[float, ...] = ()


def speed_of(runtime: str, threads: int, seconds: Sequence[float], peak_memory: int, *, batch: int = 1) -> Speed:
    """Summarizes timed runs.

    Args:
        runtime: A key of `RUNTIMES`.
        threads: CPU threads.
        seconds: Seconds of each run, at least one.
        peak_memory: Peak memory in bytes.
        batch: Images per run.

    Returns:
        A `Speed`.
    """
    quarter, three_quarters = (float(np.quantile(seconds, share)) for share in (0.25, 0.75))
    return Speed(
        runtime=runtime,
        threads=threads,
        batch=batch,
        runs=len(seconds),
        median=statistics.median(seconds),
        least=min(seconds),
        quartiles=(quarter, three_quarters),
        peak_memory=peak_memory,
        seconds=tuple(seconds),
    )
