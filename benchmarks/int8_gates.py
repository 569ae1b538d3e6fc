"""Gain from keeping the gates of an int8 network in float: accuracy of SE-ResNet-20 on CIFAR-10 in LiteRT.

    python benchmarks/int8_gates.py --data cifar10.npz            # x_train, x_test, y_test as bytes

The bundled checkpoint is quantized with the same training images each time: fully, by ai-edge-quantizer, with the
ranges from TensorFlow's own calibration, and with parts of every SE block kept in float. Accuracies are in percent, and
"same as fp32" is the share of images with the same prediction.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import re
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from timing import RESULTS, where

import se_keras
from se_keras.export.calibration import CALIBRATION_IMAGES, Calibration, calibrate
from se_keras.export.inference_form import tflite_form
from se_keras.export.inspect_tflite import Operation, read_tflite
from se_keras.export.model_ends import inputs_of
from se_keras.export.tensorflow_internals import quantized_to_8_bits
from se_keras.export.tflite_ranges import with_ranges
from se_keras.export.tflite_runtime import TFLiteRunner
from se_keras.export.to_tflite import converted, write_archive
from se_keras.native_output import native_output_held
from se_keras.preprocessing import stored_preprocessing
from se_keras.timing import interleaved, stopwatch

NETWORK = "se_resnet20.cifar10"
ROUNDS = 100  # of calls with one image, one of each file in turn
GATE = re.compile(r"_se(_\d+)?/")  # in the name of a tensor inside an SE block; copies of a layer are numbered
PARTS = {
    "gates (projections, sigmoid) in float": ("CONV_2D", "LOGISTIC"),
    "gates and means in float": ("CONV_2D", "LOGISTIC", "MEAN"),
    "gates, means and scaling in float": ("CONV_2D", "LOGISTIC", "MEAN", "MUL"),
}


def excitation_tensors(file: pathlib.Path, kinds: tuple[str, ...]) -> list[str]:
    """Returns the names of the outputs of operations of these kinds in the SE blocks of a float file."""
    return [
        operation.outputs[0].name
        for operation in read_tflite(file).operations
        if operation.name in kinds and GATE.search(operation.outputs[0].name) and _belongs_to_a_gate(operation)
    ]


def _belongs_to_a_gate(operation: Operation) -> bool:
    height, width = operation.outputs[0].shape[1:3]
    return operation.name == "MUL" or height == width == 1


def quantized_but_for(model: keras.Model, calibration: Calibration, tensors: Sequence[str]) -> bytes:
    """Returns an int8 file in which the operations that compute these tensors stay in float."""
    content = with_ranges(converted(model, "fp32"), calibration.batches(1)).content(0)
    with native_output_held():
        return quantized_to_8_bits(content, denylisted_nodes=list(tensors))


def quantized_by_ai_edge_quantizer(path: pathlib.Path, calibration: Calibration) -> bytes:
    """Returns an int8 file made of a float file with Google's separate quantizer, with its own calibration."""
    from ai_edge_quantizer import quantizer, recipe

    engine = quantizer.Quantizer(os.fspath(path))
    engine.load_quantization_recipe(recipe.static_wi8_ai8())
    ranges = engine.calibrate({"serving_default": calibration.batches(1)})
    return bytes(engine.quantize(ranges).quantized_model)


def quantized_by_tensorflow(model: keras.Model, calibration: Calibration) -> bytes:
    """Returns an int8 file with the ranges from TensorFlow's own calibration."""
    with native_output_held(), tempfile.TemporaryDirectory() as folder:
        converter = converter_of(model, folder)
        converter.representative_dataset = lambda: iter(calibration.batches(1))
        return converter.convert()


def converter_of(model: keras.Model, folder: str) -> tf.lite.TFLiteConverter:
    write_archive(model, folder, batch=1)
    converter = tf.lite.TFLiteConverter.from_saved_model(folder)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    return converter


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="an .npz file with x_train, x_test, and y_test")
    parser.add_argument("--images", type=int, default=10_000, help="test images to classify")
    options = parser.parse_args()
    data = np.load(options.data)
    images, labels = data["x_test"][: options.images], data["y_test"][: options.images].ravel()
    model = se_keras.create_model(NETWORK)
    seen = data["x_train"][:CALIBRATION_IMAGES]
    calibration = calibrate(seen, inputs_of(model), preprocessing=stored_preprocessing(model))
    calibration = calibration.with_extremes()
    network = tflite_form(model, calibration.feed, squeeze="mean", is_quantized=True)
    rows: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        path, float_path = pathlib.Path(folder, "model.tflite"), pathlib.Path(folder, "float.tflite")
        path.write_bytes(converted(network, "fp32"))
        float_path.write_bytes(path.read_bytes())
        tensors = {name: excitation_tensors(path, kinds) for name, kinds in PARTS.items()}
        expected = TFLiteRunner(path, threads=2)(images).argmax(-1)
        rows["fp32"] = {"accuracy": 100 * float((expected == labels).mean()), "MB": path.stat().st_size / 1e6}
        contents = {
            "int8, by ai-edge-quantizer": lambda: quantized_by_ai_edge_quantizer(float_path, calibration),
            "int8, ranges by TensorFlow": lambda: quantized_by_tensorflow(network, calibration),
            "int8": lambda: converted(network, "int8", calibration.batches(1)),
        }
        contents |= {
            name: lambda names=names: quantized_but_for(network, calibration, names) for name, names in tensors.items()
        }
        calls: dict[str, Callable[[], float]] = {}
        for number, (name, convert) in enumerate(contents.items()):
            path = pathlib.Path(folder, f"{number}.tflite")
            path.write_bytes(convert())
            runner = TFLiteRunner(path, threads=2)
            found = runner(images).argmax(-1)
            calls[name] = stopwatch(runner.interpreter.invoke, settling=2)
            rows[name] = {
                "accuracy": 100 * float((found == labels).mean()),
                "same as fp32": 100 * float((found == expected).mean()),
                "MB": path.stat().st_size / 1e6,
                "operations in float": _floats(path),
            }
            print(name, rows[name], flush=True)
        for name, seconds in interleaved(calls, rounds=ROUNDS).items():
            rows[name]["ms"] = 1e3 * statistics.median(seconds)
            print(name, f"{rows[name]['ms']:.3f} ms", flush=True)
    gain = max(rows[name]["accuracy"] for name in PARTS) - rows["int8"]["accuracy"]
    record = {**where(("tensorflow", "keras", "ai-edge-litert")), "network": NETWORK, "images": len(images)}
    record |= {"points gained at most": gain, "forms": rows}
    (RESULTS / "int8_gates.json").write_text(json.dumps(record, indent=2) + "\n", "utf-8")
    print(f"gained at most: {gain:.2f} points")
    return 0


def _floats(path: pathlib.Path) -> int:
    rim = ("QUANTIZE", "DEQUANTIZE")
    operations = [operation for operation in read_tflite(path).operations if operation.name not in rim]
    return sum(operation.outputs[0].dtype == "FLOAT32" for operation in operations)


if __name__ == "__main__":
    sys.exit(main())
