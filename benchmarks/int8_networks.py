"""Accuracy of 8-bit files of small networks, trained here on a folder of photos, in each runtime.

python benchmarks/int8_networks.py --data flowers --runs runs/int8       # flowers/train, flowers/val
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from timing import RESULTS, where

import se_keras
from se_keras import export
from se_keras.export.images import real_images
from se_keras.export.runtime import open_runner
from se_keras.images.record import Preprocessing
from se_keras.native_output import native_output_held

EPOCHS = {"mobilenetv3_small_100": 25, "tinynet_e": 12, "se_resnet20.cifar10": 3}  # the last from its checkpoint
SIZES = {"mobilenetv3_small_100": 96, "tinynet_e": 64, "se_resnet20.cifar10": 48}
MARGIN = 16  # pixels that random crops leave out
RATE, DECAY, BATCH, MOMENTUM = 2e-3, 0.05, 32, 0.97
IMAGES = 200
PARTS = 10  # of the test images, one after the other


def photos(folder: pathlib.Path, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns all photos of a folder with one subfolder per class as bytes, and their labels."""
    found = real_images(folder, None, (size, size, 3), record=Preprocessing(crop=1.0), most=10**6)
    return found.images.astype("uint8"), np.asarray(found.labels)


def cropped(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Returns a random crop of each image, without `MARGIN` rows and columns, and half of them mirrored."""
    size = images.shape[1] - MARGIN
    starts = rng.integers(0, MARGIN + 1, (len(images), 2))
    crops = np.stack(
        [image[row : row + size, column : column + size] for image, (row, column) in zip(images, starts, strict=True)]
    )
    return np.where(rng.random(len(crops))[:, None, None, None] < 0.5, crops[:, :, ::-1], crops)


def trained(name: str, data: pathlib.Path) -> keras.Model:
    """Returns a network trained on the photos under `data/train`: AdamW, cosine, random crops, mirrored images."""
    keras.utils.set_random_seed(0)
    images, labels = photos(data / "train", SIZES[name] + MARGIN)
    model = se_keras.create_model(name, input_shape=(SIZES[name], SIZES[name], 3), classes=int(labels.max()) + 1)
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = MOMENTUM
    steps = EPOCHS[name] * (len(images) // BATCH)
    model.compile(
        keras.optimizers.AdamW(keras.optimizers.schedules.CosineDecay(RATE, steps), weight_decay=DECAY),
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    rng = np.random.default_rng(0)
    for epoch in range(EPOCHS[name]):
        start = time.perf_counter()
        history = model.fit(cropped(images, rng), labels, batch_size=BATCH, verbose=0).history
        print(name, epoch, history["accuracy"], f"{time.perf_counter() - start:.1f} s", flush=True)
    return model


def by_the_converter_alone(model: keras.Model, images: np.ndarray, path: pathlib.Path) -> None:
    """Writes the int8 file that TensorFlow's converter makes of a model without this package."""
    with native_output_held():
        converter = tf.lite.TFLiteConverter.from_keras_model(model)
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.representative_dataset = lambda: ([image[None]] for image in images)
        path.write_bytes(converter.convert())


OPTIONS = {"dtype": "int8", "verbose": 0}
FORMS: dict[str, tuple[str, Callable[[keras.Model, np.ndarray, pathlib.Path], Any]]] = {
    "TensorFlow's converter alone": ("plain.tflite", by_the_converter_alone),
    "`.tflite`": ("model.tflite", lambda model, images, path: export.tflite(model, path, data=images, **OPTIONS)),
    "`.onnx`": ("model.onnx", lambda model, images, path: export.onnx(model, path, data=images, **OPTIONS)),
    "OpenVINO": ("model.xml", lambda model, images, path: export.openvino(model, path, data=images, **OPTIONS)),
}
"""File name and writer of each form."""


def compared(model: keras.Model, images: np.ndarray, test: tuple[np.ndarray, np.ndarray]) -> dict[str, Any]:
    """Returns the figures of a network in float, and of its 8-bit files calibrated on these images."""
    expected = model.predict(test[0], verbose=0).argmax(-1)
    rows: dict[str, Any] = {"float": {"accuracy": 100 * float((expected == test[1]).mean())}}
    with tempfile.TemporaryDirectory() as folder:
        for form, (name, write) in FORMS.items():
            path = pathlib.Path(folder, name)
            write(model, images, path)
            runner = open_runner(path, threads=os.cpu_count() or 1)
            found = np.concatenate([runner(part).argmax(-1) for part in np.array_split(test[0], PARTS)])
            rows[form] = {
                "accuracy": 100 * float((found == test[1]).mean()),
                "same class": 100 * float((found == expected).mean()),
            }
            print(form, rows[form], flush=True)
    return rows


def main() -> int:
    """Trains the networks, and prints and stores the figures of their int8 files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--runs", type=pathlib.Path, required=True)
    parser.add_argument("networks", nargs="*", default=list(SIZES), help="results of others stay in the JSON")
    options = parser.parse_args()
    options.runs.mkdir(parents=True, exist_ok=True)
    record: dict[str, Any] = {
        **where(("tensorflow", "keras", "ai-edge-litert", "onnxruntime", "openvino", "nncf")),
        "networks": {},
    }
    results = RESULTS / "int8_networks.json"
    if results.exists():
        record["networks"] = json.loads(results.read_text("utf-8"))["networks"]
    for name in options.networks:
        size = SIZES[name]
        file = options.runs / f"{name}.keras"
        if not file.exists():
            trained(name, options.data).save(file)
        model = keras.models.load_model(file)
        images, labels = photos(options.data / "val", size)
        seen = photos(options.data / "train", size)[0]
        seen = seen[np.linspace(0, len(seen) - 1, IMAGES).astype(int)]
        print(name, flush=True)
        rows = compared(model, seen.astype("float32"), (images.astype("float32"), labels))
        record["networks"][name] = {"pixels": size, "images": len(labels), **rows}
        results.write_text(json.dumps(record, indent=2) + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
