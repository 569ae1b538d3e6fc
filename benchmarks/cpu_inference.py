"""SE-ResNet-50 on the CPU: exports of this package compared with plain exports and with other runtimes.

    python benchmarks/cpu_inference.py                                   # our exports and Keras' own
    python benchmarks/cpu_inference.py --peers peers/bin/python          # and PyTorch, ONNX Runtime, OpenVINO

make_peers.py describes the environment of the peers. Each contestant is a separate process with the
same number of threads; they take turns, one call each.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import subprocess
import sys
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from contestant import installed, started, take_turns
from timing import report, summary

HERE = pathlib.Path(__file__).parent
THREADS = 2
REFERENCE = "se_keras TFLite fp32"
INT8 = "se_keras TFLite int8"
FP32_PEERS = ("ONNX Runtime fp32", "OpenVINO fp32", "PyTorch compiled (timm)")


def _command(python: str, kind: str, path: str) -> list[str | os.PathLike]:
    return [python, HERE / "inference_worker.py", kind, path, str(THREADS)]


def make_ours(folder: pathlib.Path) -> dict[str, tuple[str, str]]:
    """Writes our exports and Keras' own; returns kind and path of each by name."""
    import numpy as np
    import tensorflow as tf

    import se_keras
    from se_keras import export

    model = se_keras.SEResNet50(weights=None)
    images = np.random.default_rng(0).uniform(0, 255, (100, 224, 224, 3)).astype("float32")
    export.tflite(model, folder / "fp32.tflite")
    export.tflite(model, folder / "int8.tflite", dtype="int8", data=images)
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
    """Writes the peers' files with their own Python; returns them by name, or {} if it lacks a package."""
    command = [python, os.fspath(HERE / "make_peers.py"), os.fspath(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
        failure = done.stderr.strip().splitlines()[-1] if done.returncode else ""
    except OSError as error:
        failure = str(error)
    if failure:
        print(f"  left out: the peers of {python} ({failure})", flush=True)
        return {}
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


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", help="Python of the peers' environment")
    parser.add_argument("--rounds", type=int, default=50)
    options = parser.parse_args()
    packages = installed(sys.executable, ("ai-edge-litert",))
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        makers = {name: (sys.executable, *made) for name, made in make_ours(folder).items()}
        if options.peers:
            makers |= {name: (options.peers, *made) for name, made in make_peers(options.peers, folder / "p").items()}
            packages |= installed(options.peers, ("torch", "timm", "onnxruntime", "openvino", "nncf"))
        commands = {name: _command(*made) for name, made in makers.items()}
        seconds = take_turns(started(commands), rounds=options.rounds)
        rows = summary(seconds, reference=REFERENCE if REFERENCE in seconds else next(iter(seconds)))
    sections = {f"SE-ResNet-50, 224 px, batch 1, {THREADS} threads (s)": rows}
    return report("cpu_inference", sections, limits=_limits(rows), packages=packages)


# Our contestant, its competitors, the largest allowed ratio, and the label.
_COMPARISONS = (
    ("se_keras SavedModel", ("model.export() SavedModel",), 0.9, "our SavedModel over model.export()"),
    (REFERENCE, ("TFLiteConverter fp32",), 1.0, "our TFLite fp32 over TFLiteConverter"),
    (REFERENCE, ("ONNX Runtime fp32",), 1.0, "our TFLite fp32 over ONNX Runtime"),
    (REFERENCE, ("OpenVINO fp32",), 1.0, "our TFLite fp32 over OpenVINO"),
    (INT8, FP32_PEERS, 1 / 3, "our TFLite int8 over the fastest fp32 peer"),
    (INT8, ("ONNX Runtime int8",), 1.0, "our TFLite int8 over ONNX Runtime int8"),
)


def _limits(rows: dict[str, dict[str, float]]) -> dict[str, tuple[float, float]]:
    """Returns the ratios and their limits, for the contestants that took part."""
    limits = {}
    for ours, peers, limit, label in _COMPARISONS:
        present = [rows[peer]["median_s"] for peer in peers if peer in rows]
        if ours in rows and present:
            limits[label] = (rows[ours]["median_s"] / min(present), limit)
    return limits


if __name__ == "__main__":
    sys.exit(main())
