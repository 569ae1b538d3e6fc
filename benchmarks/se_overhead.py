"""Cost of SE in a deployed `.tflite` file: the network with SE relative to the same network without SE, on LiteRT.

    python benchmarks/se_overhead.py                          # SE-ResNet-50
    python benchmarks/se_overhead.py se_resnext50 senet154

For fp32 and int8: the network without SE, with SE after `surgery.deploy` (squeeze hoisted), and with
SE after folding only. All files are loaded in one process and run in turn. Weights are random: time
does not depend on them.
"""

from __future__ import annotations

import os
import pathlib
import sys
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from timing import interleaved, report, summary

import se_keras
from se_keras.export.calibration import Calibration
from se_keras.export.tflite_runtime import TFLiteRunner
from se_keras.export.to_tflite import converted
from se_keras.surgery import deploy
from se_keras.surgery.fold import fold_batch_norms
from se_keras.surgery.graph import build_model, read_graph

THREADS = 2
ROUNDS = 60
LIMITS = {"fp32": 1.015, "int8": 1.08}
REFERENCE = "without SE"


def forms(name: str) -> dict[str, keras.Model]:
    plain, with_se = (se_keras.create_model(name, weights=None, se=se) for se in (None, se_keras.SEConfig()))
    folded, _ = fold_batch_norms(read_graph(with_se))
    return {REFERENCE: deploy(plain), "SE hoisted": deploy(with_se), "SE folded": build_model(folded)}


def time_files(name: str, dtype: str, folder: pathlib.Path) -> dict[str, dict[str, float]]:
    size = se_keras.models.registry.NETWORKS[name].preprocessing.size
    random = np.random.default_rng(0)
    images = random.uniform(0, 255, (8, size, size, 3)).astype("float32")
    calibration = Calibration({"images": images})
    runs = {}
    for form, model in forms(name).items():
        path = folder / f"{form}.tflite"
        path.write_bytes(converted(model, dtype, calibration.batches(1) if calibration else ()))
        runner = TFLiteRunner(path, threads=THREADS)
        runs[form] = lambda runner=runner: runner.interpreter.invoke()
    return summary(interleaved(runs, rounds=ROUNDS, warmups=5, settling=2), reference=REFERENCE)


def main() -> int:
    names = sys.argv[1:] or ["se_resnet50"]
    worst = 0
    for name in names:
        results, limits = {}, {}
        for dtype in ("fp32", "int8"):
            with tempfile.TemporaryDirectory() as folder:
                results[f"{name}, {dtype}, {THREADS} threads, batch 1 (s)"] = rows = time_files(
                    name, dtype, pathlib.Path(folder)
                )
            if name == "se_resnet50":
                limits[f"{name}, {dtype}: SE hoisted over without SE"] = (rows["SE hoisted"]["ratio"], LIMITS[dtype])
            hoisted_over_folded = rows["SE hoisted"]["median_s"] / rows["SE folded"]["median_s"]
            limits[f"{name}, {dtype}: SE hoisted over SE folded"] = (hoisted_over_folded, 1.0)
        worst = max(worst, report(f"se_overhead_{name}", results, limits=limits))
    return worst


if __name__ == "__main__":
    sys.exit(main())
