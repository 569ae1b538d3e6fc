"""Where SE costs time: each kind of operation in our files with SE and without it, by the runtimes' own profilers.

    python benchmarks/se_profile.py
    python benchmarks/se_profile.py --networks se_resnet50 --folder build/inference

The files are those of cpu_inference.py, whose folder can be passed. LiteRT's Python package has no profiler. Profiling
itself takes time, so the sums are larger than the times of cpu_inference.py.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
from collections.abc import Sequence

from cpu_inference import DTYPES, NETWORKS, SUFFIXES, THREADS, kept_folder, make_files
from profile_worker import RUNTIMES
from timing import report

WORKER = pathlib.Path(__file__).parent / "profile_worker.py"
STARTS = 5
ORIGINS = ("ours", "without_se")

Row = dict[str, float]


def profiles(folder: pathlib.Path, runtime: str, dtype: str) -> dict[str, list[Row]]:
    """Returns the microseconds by kind of the files with SE and without, each in several processes that take turns."""
    found: dict[str, list[Row]] = {origin: [] for origin in ORIGINS}
    for _ in range(STARTS):
        for origin, rows in found.items():
            path = folder / origin / f"{dtype}{SUFFIXES[runtime]}"
            command = [sys.executable, WORKER, runtime, path, str(THREADS)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            rows.append(json.loads(done.stdout.splitlines()[-1]))
    return found


def costs(with_se: Sequence[Row], without: Sequence[Row]) -> Row:
    """Returns the milliseconds of a call without SE, and by how many more SE makes each kind of operation take.

    Args:
        with_se: The microseconds by kind of each process.
        without: The same for the network without SE.

    Returns:
        Numbers by kind, from the medians over the processes.
    """
    kinds = dict.fromkeys(kind for row in (*with_se, *without) for kind in row)
    more = {kind: (_median(with_se, kind) - _median(without, kind)) / 1e3 for kind in kinds}
    return {"without_se": _median(without, "all") / 1e3, **more}


def _median(rows: Sequence[Row], kind: str) -> float:
    return statistics.median(row.get(kind, 0.0) for row in rows)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--folder", type=pathlib.Path, help="as in cpu_inference.py")
    return parser.parse_args()


def main() -> int:
    options = _options()
    sections = {}
    with kept_folder(options.folder) as folder:
        for network in options.networks:
            make_files(network, folder / network, None)
            for dtype in DTYPES:
                found = {runtime: profiles(folder / network, runtime, dtype) for runtime in RUNTIMES}
                rows = {runtime: costs(*(both[origin] for origin in ORIGINS)) for runtime, both in found.items()}
                sections[f"{network}, {dtype} (ms)"] = rows
    return report("se_profile", sections)


if __name__ == "__main__":
    sys.exit(main())
