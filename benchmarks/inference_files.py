"""Writes the files of cpu_inference.py that need no peer: our exports, and the conversions by the runtimes' own tools.

    python benchmarks/inference_files.py se_resnet50 FOLDER

Writes FOLDER/ours, FOLDER/without_se, and FOLDER/nothing_in_float (`keep_float=[]`) with this package, and
FOLDER/plain from the same network with `tf.lite.TFLiteConverter`, `model.export`, ONNX Runtime's quantizer, OpenVINO,
and NNCF. Files that exist are kept. Weights and images are random.
"""

from __future__ import annotations

import os
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from own_tools import convert_to_openvino, quantize_onnx

import se_keras
from se_keras import export
from se_keras.export import calibration, to_tflite

IMAGES = np.random.default_rng(0).uniform(0, 255, (8, 224, 224, 3)).astype("float32")
ONE_BY_ONE = [image[None] for image in IMAGES]
# Exports insist on 100 images, for good ranges; calibrating with them takes most of the time, and ranges do not matter.
to_tflite.CALIBRATION_IMAGES = len(IMAGES)
calibration.calibrate.__kwdefaults__["least"] = len(IMAGES)
EXPORTS = {".tflite": export.tflite, ".onnx": export.onnx, ".xml": export.openvino}


def main() -> None:
    name, folder = sys.argv[1], pathlib.Path(sys.argv[2])
    keras.utils.set_random_seed(0)  # files that are added later then have the same weights
    options = {"weights": None, "input_shape": IMAGES.shape[1:]}
    model = with_statistics(se_keras.create_model(name, **options))
    write_ours(model, folder / "ours")
    write_ours(model, folder / "nothing_in_float", dtypes=("int8",), keep_float=[])
    write_ours(with_statistics(se_keras.create_model(name, se=None, **options)), folder / "without_se")
    write_plain(model, folder / "plain")


def with_statistics(model: keras.Model) -> keras.Model:
    """Gives normalizations the statistics of the images, without which 8 bits are too few for deep random networks."""
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
    model(IMAGES, training=True)
    return model


def write_ours(
    model: keras.Model, folder: pathlib.Path, *, dtypes: Sequence[str] = ("fp32", "int8"), **options: Any
) -> None:
    """Writes the files of this package that are missing in a folder: every format in each of these precisions.

    Args:
        model: The network.
        folder: The folder, which is created.
        dtypes: The precisions.
        **options: Further arguments of the exports.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for suffix, write in EXPORTS.items():
        for dtype in dtypes:
            path = folder / f"{dtype}{suffix}"
            if not path.exists():
                write(model, path, dtype=dtype, data=IMAGES if dtype == "int8" else None, **options)
    if "fp32" in dtypes and not (folder / "fp32.saved_model").exists():
        export.saved_model(model, folder / "fp32.saved_model")


def write_plain(model: keras.Model, folder: pathlib.Path) -> None:
    """Writes the conversions of a model by the runtimes' own tools that are missing in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    saved, graph = folder / "fp32.saved_model", folder / "fp32.onnx"
    if not saved.exists():
        model.export(saved, verbose=False)
    for dtype in ("fp32", "int8"):
        path = folder / f"{dtype}.tflite"
        if not path.exists():
            path.write_bytes(_converted(saved, dtype))
    if not graph.exists():
        model.export(graph, format="onnx", verbose=False)
    if not (folder / "int8.onnx").exists():
        quantize_onnx(graph, folder / "int8.onnx", ONE_BY_ONE)
    if not (folder / "int8.xml").exists():
        convert_to_openvino(saved, folder, ONE_BY_ONE)


def _converted(saved: pathlib.Path, dtype: str) -> bytes:
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_saved_model(os.fspath(saved))
    if dtype == "int8":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.representative_dataset = lambda: ([image] for image in ONE_BY_ONE)
    return converter.convert()


if __name__ == "__main__":
    main()
