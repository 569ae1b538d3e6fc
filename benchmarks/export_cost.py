"""Cost of exporting a `.tflite` file: seconds and peak memory, each in a new process.

    python benchmarks/export_cost.py
    python benchmarks/export_cost.py se_resnet50:int8 --images 100

Times are those of `export.tflite`, including calibration and checks, and of the whole process, including imports and
building the network. Memory is the largest sum over the process and its children. Weights are random, with batch
normalization statistics of the calibration images, which are noise: in 8 bits, the outputs of such a network are far
from those in float, so both choices of ranges are tried. A network whose outputs are close needs one only.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from timing import report

from se_keras.export.calibration import CALIBRATION_IMAGES

CASES = (
    "se_resnet50:fp32",
    "se_resnet50:fp16",
    "se_resnet50:int8",
    "se_resnext50:int8",
    "senet154:fp32",
    "senet154:int8",
)
LIMITED = "se_resnet50:int8"
SECONDS, GIGABYTES = 25, 2.5
STATISTICS = 2  # images for batch normalization
EVERY = 0.05  # seconds between two samples of the memory


def export_here(name: str, dtype: str, images: int) -> dict[str, float]:
    """Exports a network and measures the time."""
    import se_keras
    from se_keras import export

    model = se_keras.create_model(name)
    data = None
    if dtype in ("int8", "int16x8"):
        data = np.random.default_rng(0).integers(0, 256, (images, *model.input_shape[1:]), "uint8")
        normalize(model, data[:STATISTICS])
    before = resident(os.getpid())
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        path = export.tflite(model, pathlib.Path(folder, "model.tflite"), dtype=dtype, data=data)
        seconds = time.perf_counter() - started
        return {"export_s": seconds, "GB_before": before / 1e9, "file_MB": path.stat().st_size / 1e6}


def normalize(model: keras.Model, images: np.ndarray) -> None:
    """Gives batch normalization the statistics of these images: without any, 8 bits lose all of a random network."""
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    for norm in norms:
        norm.momentum = 0.0
    model(images, training=True)


def export_apart(case: str, images: int) -> dict[str, float]:
    """Runs `export_here` in a new process and monitors its memory."""
    command = [sys.executable, __file__, case, "--images", str(images), "--here"]
    started = time.perf_counter()
    with tempfile.TemporaryFile("w+") as messages:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=messages, text=True)
        peak = 0
        while process.poll() is None:
            peak = max(peak, sum(map(resident, family(process.pid))))
            time.sleep(EVERY)
        seconds = time.perf_counter() - started
        answer = process.stdout.read() if process.stdout else ""
        if process.returncode:
            messages.seek(0)
            raise RuntimeError(f"{case} ended with code {process.returncode}: {messages.read()[-2000:]}")
    found = json.loads(answer.splitlines()[-1])
    return {"export_s": found.pop("export_s"), "process_s": seconds, "peak_GB": peak / 1e9, **found}


def family(process: int) -> list[int]:
    """Returns a process and all its descendants."""
    found = [process]
    for member in found:
        for task in pathlib.Path(f"/proc/{member}/task").glob("*/children"):
            try:
                found += map(int, task.read_text().split())
            except OSError:  # the process has just ended
                continue
    return found


def resident(process: int) -> int:
    """Returns the resident memory of a process in bytes; 0 if it has ended."""
    try:
        pages = pathlib.Path(f"/proc/{process}/statm").read_text().split()[1]
    except (OSError, IndexError):
        return 0
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", default=CASES, help="network:dtype")
    parser.add_argument("--images", type=int, default=CALIBRATION_IMAGES, help="images for calibration")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        print(json.dumps(export_here(*options.cases[0].split(":"), options.images)))
        return 0
    rows = {}
    for case in options.cases:
        rows[case] = export_apart(case, options.images)
        print(case, json.dumps(rows[case]), flush=True)
    limits = {}
    if LIMITED in rows:
        limits["seconds to export SE-ResNet-50 to int8"] = (rows[LIMITED]["export_s"], SECONDS)
        limits["peak memory to export SE-ResNet-50 to int8, GB"] = (rows[LIMITED]["peak_GB"], GIGABYTES)
    return report("export_cost", {"export.tflite": rows}, limits=limits)


if __name__ == "__main__":
    sys.exit(main())
