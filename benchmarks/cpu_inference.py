"""Networks in the runtimes of CPUs: our exports, the plain conversions of the same networks, and timm's networks.

    python benchmarks/cpu_inference.py                                   # our exports and the plain conversions
    python benchmarks/cpu_inference.py --peers peers/bin/python          # and timm's networks
    python benchmarks/cpu_inference.py --networks se_resnet50 --folder build/inference

`inference_files.py` writes the files, and `make_peers.py`, which describes the environment of the peers, timm's. Both
keep what is in the folder, so that a second run with the same folder only times; remove the folder when the exports
change. Each contestant is a separate process with the same number of threads; those of one network, precision, and
runtime take turns, one call each: processes of other runtimes in between would slow down the call after them. They are
started several times, because the ratio of the same two files differs by several percent from one pair of processes to
another, and each time in another order, because those that start first are slower than those that start later. Results
are written after each network; those of other networks stay, if they are of the same machine and packages.
"""

from __future__ import annotations

import argparse
import contextlib
import filecmp
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping

from contestant import installed, started, take_turns
from timing import RESULTS, report, where

HERE = pathlib.Path(__file__).parent
THREADS = 2
STARTS = 8
FEW_STARTS = {"TensorFlow": 2, "PyTorch compiled": 2}
"""Runtimes that take long to start, and whose ratios are far from their limits."""
NETWORKS = {
    "se_resnet50": "legacy_seresnet50",
    "se_resnext50": "legacy_seresnext50_32x4d",
    "regnety_032": "regnety_032",
    "mobilenetv3_large_100": "mobilenetv3_large_100",
    "efficientnet_b0": "efficientnet_b0",
}
"""Our networks, and timm's names for them."""
DTYPES = ("fp32", "int8")
SUFFIXES = {"LiteRT": ".tflite", "ONNX Runtime": ".onnx", "OpenVINO": ".xml", "TensorFlow": ".saved_model"}
COMPILED = "PyTorch compiled"
OTHERS = {
    "plain": "over_plain",
    "timm": "over_timm",
    "without_se": "over_without_se",
    "nothing_in_float": "over_nothing_in_float",
}
"""The files that ours is compared with in each runtime, and the names of the ratios."""
AHEAD = {("se_resnet50", "fp32"): 0.97}  # of the plain conversion; elsewhere level with it
SE_COST = {("LiteRT", "fp32"): 1.02, ("ONNX Runtime", "fp32"): 1.10, ("OpenVINO", "fp32"): 1.10}
SE_COST_INT8 = 1.10
PACKAGES = ("keras", "tensorflow", "jax", "torch", "numpy")

Rows = dict[str, dict[str, float]]


def make_files(network: str, folder: pathlib.Path, peers: str | None) -> None:
    """Writes the missing files of a network; the peers' are left out, with the reason, if they cannot be written."""
    _ran([sys.executable, HERE / "inference_files.py", network, folder])
    if peers:
        try:
            _ran([peers, HERE / "make_peers.py", NETWORKS[network], folder / "timm"])
        except (OSError, RuntimeError) as error:
            print(f"  left out: timm's {NETWORKS[network]} in {peers} ({error})", flush=True)


def _ran(command: list[str | os.PathLike]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1])


def commands(network: str, dtype: str, folder: pathlib.Path, peers: str | None) -> dict[tuple[str, str], list]:
    """Returns the command lines of the contestants of a network, by runtime and origin."""
    origins = [origin for origin in ("ours", *OTHERS) if not _is_copy(folder / "ours", folder / origin)]
    found = {}
    for runtime, suffix in SUFFIXES.items():
        for origin in origins:
            path = folder / origin / f"{dtype}{suffix}"
            python = peers if origin == "timm" else sys.executable
            if python and path.exists():
                found[runtime, origin] = [python, HERE / "inference_worker.py", runtime, path, str(THREADS)]
    if peers and dtype == "fp32":
        worker = HERE / "inference_worker.py"
        found[COMPILED, "timm"] = [peers, worker, COMPILED, NETWORKS[network], str(THREADS)]
    return found


def _is_copy(ours: pathlib.Path, other: pathlib.Path) -> bool:
    """Returns whether another folder has the same `.tflite` file; the other formats number their operations anew."""
    files = [folder / "int8.tflite" for folder in (ours, other)]
    return ours != other and all(map(pathlib.Path.exists, files)) and filecmp.cmp(*files, shallow=False)


def timed(contestants: Mapping[tuple[str, str], list], *, rounds: int) -> dict[tuple[str, str], list[float]]:
    """Returns the seconds of at least `rounds` calls of each contestant, in several processes one after the other."""
    found: dict[tuple[str, str], list[float]] = {}
    for runtime in dict.fromkeys(runtime for runtime, _ in contestants):
        group = [name for name in contestants if name[0] == runtime]
        starts = FEW_STARTS.get(runtime, STARTS)
        orders = ([*group[first:], *group[:first]] for first in (start % len(group) for start in range(starts)))
        parts = [
            take_turns(started({name: contestants[name] for name in order}), rounds=-(-rounds // starts))
            for order in orders
        ]
        complete = [name for name in group if all(name in part for part in parts)]
        found |= {name: [seconds for part in parts for seconds in part[name]] for name in complete}
    return found


def rows_of(seconds: Mapping[tuple[str, str], list[float]]) -> Rows:
    """Returns the median, minimum, and maximum seconds by contestant, and for our files the ratios to the others.

    Args:
        seconds: The seconds of each call, by runtime and origin.

    Returns:
        Numbers by "runtime, origin". Each ratio within a runtime is the median over the rounds. `over_best_peer` stands
        with the fastest of our files; between two runtimes, which do not take turns, it is the ratio of the medians.
    """
    rows: Rows = {}
    for (runtime, origin), taken in seconds.items():
        row = {"median_s": statistics.median(taken), "min_s": min(taken), "max_s": max(taken)}
        if origin == "ours":
            others = {ratio: seconds.get((runtime, other)) for other, ratio in OTHERS.items()}
            row |= {ratio: _ratio(taken, other) for ratio, other in others.items() if other}
        rows[f"{runtime}, {origin}"] = row
    ours, best = (_fastest(seconds, origin) for origin in ("ours", "timm"))
    if ours and best:
        row = rows[f"{ours[0]}, ours"]
        of_medians = statistics.median(seconds[ours]) / statistics.median(seconds[best])
        row["over_best_peer"] = row["over_timm"] if ours[0] == best[0] else of_medians
    return rows


def _ratio(taken: list[float], other: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(taken, other, strict=True))


def _fastest(seconds: Mapping[tuple[str, str], list[float]], origin: str) -> tuple[str, str] | None:
    of_origin = [key for key in seconds if key[1] == origin]
    return min(of_origin, key=lambda key: statistics.median(seconds[key]), default=None)


def title(network: str, dtype: str) -> str:
    """Returns the key of a network's results in a precision."""
    return f"{network}, {dtype}, 224 px, batch 1, {THREADS} threads (s)"


def limits_of(sections: Mapping[str, Rows]) -> dict[str, tuple[float, float]]:
    """Returns the ratios that have a limit, and their limits, for the contestants that took part."""
    limits = {}
    for network in NETWORKS:
        for dtype in DTYPES:
            for contestant, row in sections.get(title(network, dtype), {}).items():
                runtime = contestant.partition(", ")[0]
                cost = SE_COST_INT8 if dtype == "int8" else SE_COST.get((runtime, dtype))
                allowed = {
                    "over_plain": AHEAD.get((network, dtype), 1.0),
                    "over_without_se": cost,
                    "over_best_peer": 1.0,
                }
                for ratio, limit in allowed.items():
                    if ratio in row and limit is not None:
                        limits[f"{network}, {dtype}, {runtime}: {ratio}"] = (row[ratio], limit)
    return limits


def earlier(packages: Mapping[str, str]) -> dict[str, Rows]:
    """Returns the sections of the last results, if they are of this machine and these packages, else {}."""
    path = RESULTS / "cpu_inference.json"
    record = json.loads(path.read_text("utf-8")) if path.exists() else {}
    here = where(PACKAGES, packages)
    if any(record.get(key) != here[key] for key in ("machine", "python", "packages")):
        return {}
    return {key: rows for key, rows in record.items() if key.endswith("(s)")}


@contextlib.contextmanager
def kept_folder(path: pathlib.Path | None) -> Iterator[pathlib.Path]:
    """Yields a folder for files: the one given, or else a temporary one."""
    if path is not None:
        yield path
        return
    with tempfile.TemporaryDirectory() as temporary:
        yield pathlib.Path(temporary)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", help="Python of the peers' environment")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--rounds", type=int, default=64)
    parser.add_argument("--folder", type=pathlib.Path, help="keep the files here; default: a temporary folder")
    return parser.parse_args()


def main() -> int:
    options = _options()
    packages = installed(sys.executable, ("ai-edge-litert", "onnxruntime", "openvino", "nncf"))
    if options.peers:
        packages |= installed(options.peers, ("torch", "timm"))
    sections, code = earlier(packages), 0
    with kept_folder(options.folder) as folder:
        for network in options.networks:
            print(network, flush=True)
            make_files(network, folder / network, options.peers)
            for dtype in DTYPES:
                contestants = commands(network, dtype, folder / network, options.peers)
                sections[title(network, dtype)] = rows_of(timed(contestants, rounds=options.rounds))
            code = report("cpu_inference", sections, limits=limits_of(sections), packages=packages)
    return code


if __name__ == "__main__":
    sys.exit(main())
