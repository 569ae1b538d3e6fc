"""Side-by-side timing: the contestants take turns, so a drift in the machine's speed affects all equally."""

from __future__ import annotations

import datetime
import json
import os
import pathlib
import platform
import statistics
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from se_keras.timing import interleaved as in_turns
from se_keras.timing import stopwatch

RESULTS = pathlib.Path(__file__).parent / "results"


def interleaved(
    contestants: Mapping[str, Callable[[], Any]], *, rounds: int, warmups: int = 1, settling: int = 0
) -> dict[str, list[float]]:
    """Times functions in turn, with `settling` untimed calls before each, as `se_keras.timing.interleaved` does."""
    timers = {name: stopwatch(run, settling=settling) for name, run in contestants.items()}
    return in_turns(timers, rounds=rounds, warmups=warmups)


def summary(seconds: Mapping[str, list[float]], *, reference: str) -> dict[str, dict[str, float]]:
    """Returns the median, minimum, and maximum seconds, and the median over rounds of the ratio to the reference.

    Args:
        seconds: Result of `interleaved`.
        reference: The contestant that the ratios refer to.

    Returns:
        A dictionary by contestant.
    """
    return {
        name: {
            "median_s": statistics.median(values),
            "min_s": min(values),
            "max_s": max(values),
            "ratio": statistics.median(a / b for a, b in zip(values, seconds[reference], strict=True)),
        }
        for name, values in seconds.items()
    }


def report(
    name: str,
    sections: Mapping[str, Any],
    *,
    limits: Mapping[str, tuple[float, float]] | None = None,
    packages: Mapping[str, str] | None = None,
) -> int:
    """Prints the results, writes them to `benchmarks/results/<name>.json`, and compares values with their limits.

    Args:
        name: Name of the benchmark.
        sections: Results to write, by section.
        limits: Values and the largest allowed values: label -> (value, limit).
        packages: Versions of additional packages that took part.

    Returns:
        Exit code: 1 if a value exceeds its limit.
    """
    limits = limits or {}
    record = {
        **where(("keras", "tensorflow", "jax", "torch", "numpy"), packages),
        "limits": {label: {"value": value, "limit": limit} for label, (value, limit) in limits.items()},
        **sections,
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(record, indent=2) + "\n", "utf-8")
    for title, section in sections.items():
        print(title)
        for contestant, row in section.items():
            print(f"  {contestant:<44}" + "  ".join(f"{key} {value:.4g}" for key, value in row.items()))
    failed = [label for label, (value, limit) in limits.items() if value > limit]
    for label, (value, limit) in limits.items():
        print(f"{'over' if label in failed else 'ok':<5}{label}: {value:.3f}, limit {limit}")
    print(f"written: {path}")
    return 1 if failed else 0


def where(names: Sequence[str], further: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Returns the date and environment of a measurement.

    Args:
        names: Packages whose installed versions matter.
        further: Versions of packages installed elsewhere.

    Returns:
        Date, machine, Python, and packages, for JSON.
    """
    return {
        "date": datetime.date.today().isoformat(),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}",
        "python": platform.python_version(),
        "packages": {**{name: _version(name) for name in names}, **(further or {})},
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
