"""Accuracy of int8 `.tflite` files of small networks, trained here on a folder of photos.

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
import warnings
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from timing import RESULTS, where

import se_keras
from se_keras import export
from se_keras.export.images import real_images
from se_keras.export.inference_form import tflite_form
from se_keras.export.inspect_tflite import read_tflite
from se_keras.export.layer_loss import layer_losses, lossy
from se_keras.export.tflite_runtime import TFLiteRunner
from se_keras.export.to_tflite import converted
from se_keras.images.record import Preprocessing
from se_keras.native_output import native_output_held

EPOCHS = {"mobilenetv3_small_100": 25, "tinynet_e": 25, "se_resnet20.cifar10": 3}  # the last from its checkpoint
SIZES = {"mobilenetv3_small_100": 96, "tinynet_e": 96, "se_resnet20.cifar10": 48}
MARGIN = 16  # pixels that random crops leave out
RATE, DECAY, BATCH, MOMENTUM = 2e-3, 0.05, 32, 0.97
IMAGES = 200
KEPT = (4, 16)


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


def compared(model: keras.Model, images: np.ndarray, test: tuple[np.ndarray, np.ndarray]) -> dict[str, Any]:
    """Returns the figures of every form of a network calibrated on these images."""
    expected = model.predict(test[0], verbose=0).argmax(-1)
    rows: dict[str, Any] = {"float": {"accuracy": 100 * float((expected == test[1]).mean())}}

    def measure(name: str, path: pathlib.Path) -> None:
        found = TFLiteRunner(path, threads=2)(test[0]).argmax(-1)
        rows[name] = {
            "accuracy": 100 * float((found == test[1]).mean()),
            "same class": 100 * float((found == expected).mean()),
            "operations in float": len(read_tflite(path).names_in_float()),
        }
        print(name, rows[name], flush=True)

    with tempfile.TemporaryDirectory() as folder:
        path, twin = pathlib.Path(folder, "model.tflite"), pathlib.Path(folder, "float.tflite")
        by_the_converter_alone(model, images, path)
        measure("TensorFlow's converter alone", path)
        options = {"dtype": "int8", "data": images, "overwrite": True, "verbose": 0}
        export.tflite(model, path, **options)
        measure("int8", path)
        twin.write_bytes(converted(tflite_form(model, {"images": images}, is_quantized=True), "fp32"))
        losses, _ = layer_losses(path, twin, {"images": images[:32]})
        rows["int8"] |= {"operations": len(losses), "that lose more than 1%": len(lossy(losses))}
        for count in KEPT:
            export.tflite(model, path, keep_float=[loss.name for loss in losses[:count]], **options)
            measure(f"the worst {count} in float", path)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            export.tflite(model, path, keep_float="auto", **options)
        measure("auto", path)
        rows["auto"]["warnings"] = [str(one.message) for one in caught if one.category is UserWarning]
    return rows


def main() -> int:
    """Trains the networks, and prints and stores the figures of their int8 files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--runs", type=pathlib.Path, required=True)
    options = parser.parse_args()
    options.runs.mkdir(parents=True, exist_ok=True)
    record: dict[str, Any] = {**where(("tensorflow", "keras", "ai-edge-litert")), "networks": {}}
    for name, size in SIZES.items():
        file = options.runs / f"{name}.keras"
        if not file.exists():
            trained(name, options.data).save(file)
        model = keras.models.load_model(file)
        images, labels = photos(options.data / "val", size)
        order = np.random.default_rng(0).permutation(len(images))
        held, test = np.split(order, [IMAGES])
        seen = photos(options.data / "train", size)[0]
        seen = seen[np.linspace(0, len(seen) - 1, IMAGES).astype(int)]
        for source, chosen in (("training photos", seen), ("other photos", images[held])):
            print(name, source, flush=True)
            rows = compared(model, chosen.astype("float32"), (images[test].astype("float32"), labels[test]))
            record["networks"].setdefault(name, {})[f"calibrated on {source}"] = {"images": len(test), **rows}
            (RESULTS / "int8_networks.json").write_text(json.dumps(record, indent=2) + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
