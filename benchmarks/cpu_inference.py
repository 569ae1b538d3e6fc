"""SE-ResNet-50 on the CPU: our exports beside plain exports of the same network, and beside other runtimes.

    python benchmarks/cpu_inference.py                                   # our exports and Keras' own
    python benchmarks/cpu_inference.py --peers peers/bin/python          # and PyTorch, ONNX Runtime, OpenVINO

The peers' environment is described in make_peers.py. Each contestant is a process of its own with the
same number of threads; they take turns, one call each.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import subprocess
import sys
import tempfile
from importlib.metadata import version

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from contestant import Contestant, take_turns
from timing import report, summary

HERE = pathlib.Path(__file__).parent
THREADS = 2
REFERENCE = "se_keras TFLite fp32"


def _contestant(python: str, kind: str, path: str) -> Contestant:
    return Contestant([python, HERE / "inference_worker.py", kind, path, str(THREADS)])


def make_ours(folder: pathlib.Path) -> dict[str, tuple[str, str]]:
    """Writes our exports and Keras' own; from the name of each to its kind and path."""
    import numpy as np
    import tensorflow as tf

    import se_keras
    from se_keras import export

    model = se_keras.SEResNet50(weights=None)
    images = np.random.default_rng(0).uniform(0, 255, (100, 224, 224, 3)).astype("float32")
    export.tflite(model, folder / "fp32.tflite")
    export.tflite(model, folder / "int8.tflite", dtype="int8", representative_data=images)
    export.saved_model(model, folder / "saved_model")
    model.export(folder / "keras", verbose=False)
    (folder / "plain.tflite").write_bytes(tf.lite.TFLiteConverter.from_saved_model(str(folder / "keras")).convert())
    return {
        REFERENCE: ("tflite", os.fspath(folder / "fp32.tflite")),
        "se_keras TFLite int8": ("tflite", os.fspath(folder / "int8.tflite")),
        "TFLiteConverter fp32": ("tflite", os.fspath(folder / "plain.tflite")),
        "se_keras SavedModel": ("saved_model", os.fspath(folder / "saved_model")),
        "model.export() SavedModel": ("saved_model", os.fspath(folder / "keras")),
    }


def make_peers(python: str, folder: pathlib.Path) -> dict[str, tuple[str, str]]:
    subprocess.run([python, os.fspath(HERE / "make_peers.py"), os.fspath(folder)], check=True, capture_output=True)
    name = "legacy_seresnet50"
    return {
        "PyTorch eager (timm)": ("torch_eager", name),
        "PyTorch compiled (timm)": ("torch_compiled", name),
        "ONNX Runtime fp32": ("onnxruntime", os.fspath(folder / "fp32.onnx")),
        "ONNX Runtime int8": ("onnxruntime", os.fspath(folder / "int8.onnx")),
        "OpenVINO fp32": ("openvino_f32", os.fspath(folder / "fp32.xml")),
        "OpenVINO at its own precision": ("openvino", os.fspath(folder / "fp32.xml")),
        "OpenVINO int8": ("openvino", os.fspath(folder / "int8.xml")),
    }


def versions(python: str) -> dict[str, str]:
    names = ("torch", "timm", "onnxruntime", "openvino", "nncf")
    code = f"from importlib.metadata import version\nfor n in {names}: print(n, version(n))"
    output = subprocess.run([python, "-c", code], check=True, capture_output=True, text=True).stdout
    return dict(line.split() for line in output.splitlines())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", help="Python of the peers' environment")
    parser.add_argument("--rounds", type=int, default=50)
    options = parser.parse_args()
    packages = {"ai-edge-litert": version("ai-edge-litert")}
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        makers = {name: (sys.executable, *made) for name, made in make_ours(folder).items()}
        if options.peers:
            makers |= {name: (options.peers, *made) for name, made in make_peers(options.peers, folder / "p").items()}
            packages |= versions(options.peers)
        runs = {name: _contestant(*made) for name, made in makers.items()}
        rows = summary(take_turns(runs, rounds=options.rounds), reference=REFERENCE)
    median = {name: row["median_s"] for name, row in rows.items()}
    ours, int8 = median[REFERENCE], median["se_keras TFLite int8"]
    limits = {
        "our SavedModel over model.export()": (
            median["se_keras SavedModel"] / median["model.export() SavedModel"],
            0.9,
        ),
        "our TFLite fp32 over TFLiteConverter": (ours / median["TFLiteConverter fp32"], 1.0),
    }
    if options.peers:
        fastest = min(median[name] for name in ("ONNX Runtime fp32", "OpenVINO fp32", "PyTorch compiled (timm)"))
        limits |= {
            "our TFLite fp32 over ONNX Runtime": (ours / median["ONNX Runtime fp32"], 1.0),
            "our TFLite fp32 over OpenVINO": (ours / median["OpenVINO fp32"], 1.0),
            "our TFLite int8 over a third of the fastest fp32 peer": (int8 / (fastest / 3), 1.0),
            "our TFLite int8 over ONNX Runtime int8": (int8 / median["ONNX Runtime int8"], 1.0),
        }
    sections = {f"SE-ResNet-50, 224 px, batch 1, {THREADS} threads (s)": rows}
    return report("cpu_inference", sections, limits=limits, packages=packages)


if __name__ == "__main__":
    sys.exit(main())
