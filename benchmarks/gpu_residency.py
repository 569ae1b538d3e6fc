"""Checks that a GPU runs every operation of every network, with the same outputs as the CPU.

    python benchmarks/gpu_residency.py                    # all networks that are not in the results yet
    python benchmarks/gpu_residency.py se_resnet50 --again

Each network is exported in fp32 and fp16 with a small input, and run in LiteRT on the CPU and, without any operation on
the CPU, on the GPU through WebGPU; without a GPU, Chromium's software driver takes its place. Weights are random, with
batch normalization statistics from noise, so that no map grows from block to block. Each network runs in a separate
process; the results, and the table in docs/exports-on-a-gpu.md, are saved after each.
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
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from tables import replaced
from timing import RESULTS, where

DTYPES = ("fp32", "fp16")
SIZE = 64  # pixels, or the minimum of the network
IMAGES = 2
LIMIT = 0.01  # largest difference divided by the largest logit: a GPU may compute in half precision
SECONDS = 1800  # for one network, with SENet-154 in software
RESULT = RESULTS / "gpu_residency.json"
PAGE = pathlib.Path(__file__).parents[1] / "docs/exports-on-a-gpu.md"


def names() -> list[str]:
    """Returns all networks, the large ones last."""
    from se_keras.models.registry import NETWORKS

    last = ("se_resnet152", "se_resnet152d", "se_resnext101", "se_inception_resnet_v2", "senet154")
    return sorted(NETWORKS, key=lambda name: max((name.startswith(prefix) for prefix in last), default=False))


def settled(name: str, size: int) -> Any:
    """Builds a network with random weights and batch normalization statistics from noise images."""
    import keras

    import se_keras
    from se_keras.export.inputs import random_images

    keras.utils.set_random_seed(0)
    model = se_keras.create_model(name, input_shape=(size, size, 3), classifier_activation=None)
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    momenta = [layer.momentum for layer in norms]
    for layer in norms:
        layer.momentum = 0.0
    model(random_images((size, size, 3), 16), training=True)
    for layer, momentum in zip(norms, momenta, strict=True):
        layer.momentum = momentum
    return model


def compare(path: pathlib.Path, size: int) -> dict[str, Any]:
    """Compares one file on the GPU with the CPU."""
    import numpy as np

    from se_keras.export.inputs import random_images
    from se_keras.export.process import RuntimeRefusedError, Worker, is_missing_driver
    from se_keras.export.tflite_runtime import TFLiteRunner

    images = random_images((size, size, 3), IMAGES)
    expected = TFLiteRunner(path)(images)
    try:
        with Worker(path, runtime="tflite_gpu") as worker:
            (found,) = worker.run({"images": images}).values()
    except RuntimeRefusedError as refusal:
        if is_missing_driver(refusal):
            raise
        return {"resident": False, "reason": str(refusal)}
    difference = float(np.abs(found - expected).max() / np.abs(expected).max())
    return {"resident": True, "relative_difference": difference}


def measure(name: str) -> dict[str, Any]:
    """Exports and compares both files of one network."""
    from se_keras import export
    from se_keras.models.registry import NETWORKS

    network = NETWORKS[name]
    size = min(network.preprocessing.size, max(SIZE, network.min_size))
    started = time.perf_counter()
    model = settled(name, size)
    found: dict[str, Any] = {"size": size}
    with tempfile.TemporaryDirectory() as folder:
        for dtype in DTYPES:
            path = export.tflite(model, pathlib.Path(folder, f"{dtype}.tflite"), dtype=dtype)
            found[dtype] = compare(path, size)
    return {**found, "seconds": round(time.perf_counter() - started)}


def measure_apart(name: str) -> dict[str, Any]:
    """Runs `measure` in a separate process, which may crash or take too long."""
    command = [sys.executable, __file__, name, "--here"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        return {"error": f"took longer than {SECONDS} seconds"}
    if done.returncode:
        return {"error": (done.stderr.strip().splitlines() or [f"ended with code {done.returncode}"])[-1]}
    return json.loads(done.stdout.splitlines()[-1])


def keep(networks: dict[str, Any]) -> None:
    """Writes the results so far."""
    from se_keras.files import replacing

    record = {**where(("ai-edge-litert", "keras", "tensorflow")), "networks": networks}
    with replacing(RESULT, overwrite=True) as target:
        target.write_text(json.dumps(record, indent=2) + "\n", "utf-8")
    page = replaced(PAGE.read_text("utf-8"), "residency", table(record))
    with replacing(PAGE, overwrite=True) as target:
        target.write_text(page, "utf-8")


def table(record: dict[str, Any]) -> str:
    """Returns the results as Markdown."""
    lines = ["| Network | Pixels | fp32, difference | fp16, difference |", "| --- | --: | --: | --: |"]
    for name in sorted(record["networks"]):
        entry = record["networks"][name]
        cells = [entry["error"]] * 2 if "error" in entry else [cell(entry[dtype]) for dtype in DTYPES]
        lines.append(f"| `{name}` | {entry.get('size', '')} | {cells[0]} | {cells[1]} |")
    packages = ", ".join(f"{name} {version}" for name, version in record["packages"].items())
    return "\n".join([*lines, "", f"{record['date']}, {packages}."])


def cell(file: dict[str, Any]) -> str:
    """Returns the result of one file in a few words."""
    if not file["resident"]:
        return "refused: " + file["reason"].splitlines()[-1].replace("|", "\\|")
    return f"{file['relative_difference']:.1e}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="networks; default: all")
    parser.add_argument("--again", action="store_true", help="also measure networks that are in the results")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        print(json.dumps(measure(options.names[0])))
        return 0
    networks = json.loads(RESULT.read_text("utf-8"))["networks"] if RESULT.exists() else {}
    for name in options.names or names():
        if options.again or "fp32" not in networks.get(name, {}):
            networks[name] = measure_apart(name)
            keep(networks)
            print(name, json.dumps(networks[name]), flush=True)
    return int(not all(passes(entry) for entry in networks.values()))


def passes(entry: dict[str, Any]) -> bool:
    """Returns whether a network is resident and correct in every precision."""
    files = [entry.get(dtype, {}) for dtype in DTYPES]
    return all(file.get("resident") and file["relative_difference"] <= LIMIT for file in files)


if __name__ == "__main__":
    sys.exit(main())
