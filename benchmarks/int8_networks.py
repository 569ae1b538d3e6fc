"""Accuracy of 8-bit files of small networks, trained here, in each runtime.

python benchmarks/int8_networks.py --data flowers --runs runs/int8       # flowers/train, flowers/val
python benchmarks/int8_networks.py --data cifar10.npz --runs runs/int8   # x_train, y_train, x_test, y_test
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import pathlib
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any, NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from timing import RESULTS, where

import se_keras
from se_keras import export
from se_keras.export.calibration import CALIBRATION_IMAGES
from se_keras.export.images import real_images
from se_keras.export.runtime import open_runner
from se_keras.files import replacing
from se_keras.images.record import Preprocessing
from se_keras.native_output import native_output_held


class Setting(NamedTuple):
    """How a network is trained.

    Args:
        pixels: Rows and columns of the images.
        epochs: Epochs of a cosine cycle; 0: the bundled checkpoint is used as it is.
        cycles: Number of cosine cycles (SGDR, arXiv 1608.03983).
        before: Training on smaller images that precedes it (as in arXiv 2104.00298, section 4).
    """

    pixels: int
    epochs: int
    cycles: int = 1
    before: Setting | None = None

    @property
    def all_epochs(self) -> int:
        """Returns the number of epochs of all cycles, and of the training before."""
        return self.epochs * self.cycles + (self.before.all_epochs if self.before else 0)


# On folders and on arrays.
SETTINGS = {
    "mobilenetv3_small_100": {"folder": Setting(96, 25), "arrays": Setting(96, 20, cycles=2)},
    "tinynet_e": {"folder": Setting(64, 12), "arrays": Setting(96, 6, before=Setting(64, 30))},
    "se_resnet20.cifar10": {"folder": Setting(48, 3), "arrays": Setting(32, 0)},
}
MARGIN = 16  # pixels that random crops leave out
RATE, DECAY, MOMENTUM = 2e-3, 0.05, 0.97
BATCHES = {"folder": 32, "arrays": 128}
PARTS = 10  # of the test images, one after the other


def kind_of(data: pathlib.Path) -> str:
    """Returns "arrays" for an `.npz` file, else "folder"."""
    return "arrays" if data.suffix == ".npz" else "folder"


def photos(data: pathlib.Path, split: str, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns all photos of a split, "train" or "val", as bytes, and their labels."""
    record, shape = Preprocessing(crop=1.0), (size, size, 3)
    if kind_of(data) == "folder":
        found = real_images(data / split, None, shape, record=record, most=10**6)
    else:
        key = {"train": "train", "val": "test"}[split]
        with np.load(data) as arrays:
            labels = arrays[f"y_{key}"].astype(int)
            found = real_images(arrays[f"x_{key}"], labels, shape, record=record, most=10**6)
    return found.images.astype("uint8"), np.asarray(found.labels)


def cropped(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Returns a random crop of each image, without `MARGIN` rows and columns, and half of them mirrored."""
    size = images.shape[1] - MARGIN
    starts = rng.integers(0, MARGIN + 1, (len(images), 2))
    crops = np.stack(
        [image[row : row + size, column : column + size] for image, (row, column) in zip(images, starts, strict=True)]
    )
    return np.where(rng.random(len(crops))[:, None, None, None] < 0.5, crops[:, :, ::-1], crops)


def trained(name: str, data: pathlib.Path, setting: Setting, runs: pathlib.Path) -> keras.Model:
    """Returns a network trained on all training photos: AdamW, cosine cycles, random crops, mirrored images.

    It is saved in the folder `runs`, and read from there if it exists. So is an unfinished one after each epoch, from
    which training resumes.
    """
    file = runs / f"{name} on {data.stem} at {setting.pixels} pixels.keras"
    if file.exists():
        return keras.models.load_model(file)
    if not setting.epochs:
        return saved(se_keras.create_model(name), file)
    before = trained(name, data, setting.before, runs) if setting.before else None
    keras.utils.set_random_seed(0)
    unfinished = file.with_suffix(".unfinished.keras")
    images, labels = photos(data, "train", setting.pixels + MARGIN)
    batch = BATCHES[kind_of(data)]
    steps = -(-len(images) // batch)
    if unfinished.exists():
        model = keras.models.load_model(unfinished)
    else:
        model = started(name, (setting.pixels, setting.pixels, 3), int(labels.max()) + 1, setting.epochs * steps)
        if before is not None:
            model.set_weights(before.get_weights())
    done = int(model.optimizer.iterations) // steps
    rng = np.random.default_rng(0)
    for epoch in range(setting.epochs * setting.cycles):
        start, crops = time.perf_counter(), cropped(images, rng)
        if epoch < done:
            continue
        history = model.fit(crops, labels, batch_size=batch, verbose=0).history
        saved(model, unfinished)
        log(name, data.stem, setting.pixels, epoch, history["accuracy"][0])
        print(name, epoch, history["accuracy"], f"{time.perf_counter() - start:.1f} s", flush=True)
    saved(model, file)
    unfinished.unlink(missing_ok=True)
    return model


def log(network: str, data: str, pixels: int, epoch: int, accuracy: float) -> None:
    """Adds a line to `int8_networks_training.csv` in the results."""
    file = RESULTS / "int8_networks_training.csv"
    if not file.exists():
        file.write_text("network,data,pixels,epoch,accuracy\n", "utf-8")
    with file.open("a", encoding="utf-8") as lines:
        lines.write(f"{network},{data},{pixels},{epoch},{accuracy:.4f}\n")


def saved(model: keras.Model, file: pathlib.Path) -> keras.Model:
    """Returns the network, after saving it in a file, which is replaced if it exists."""
    with replacing(file, overwrite=True) as target:
        model.save(target)
    return model


def started(name: str, shape: tuple[int, int, int], classes: int, steps: int) -> keras.Model:
    """Returns a network before its first step, compiled with cosine cycles of `steps`."""
    model = se_keras.create_model(name, input_shape=shape, classes=classes)
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = MOMENTUM
    rate = keras.optimizers.schedules.CosineDecayRestarts(RATE, steps, t_mul=1.0)
    model.compile(
        keras.optimizers.AdamW(rate, weight_decay=DECAY), "sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    return model


def by_the_converter_alone(model: keras.Model, images: np.ndarray, path: pathlib.Path) -> None:
    """Writes the int8 file that TensorFlow's converter makes of a model without this package."""
    with native_output_held(), contextlib.redirect_stdout(io.StringIO()):  # it prints every variable
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
    parser.add_argument("networks", nargs="*", default=list(SETTINGS), help="results of others stay in the JSON")
    options = parser.parse_args()
    unknown = [name for name in options.networks if name not in SETTINGS]
    if unknown:
        parser.error(f"Networks must be among {', '.join(SETTINGS)}; received {', '.join(unknown)}.")
    if not options.data.exists():
        parser.error(f"--data must exist; received {options.data}.")
    options.runs.mkdir(parents=True, exist_ok=True)
    record: dict[str, Any] = {
        **where(("tensorflow", "keras", "ai-edge-litert", "onnxruntime", "openvino", "nncf")),
        "calibration images": CALIBRATION_IMAGES,
        "networks": {},
    }
    results = RESULTS / "int8_networks.json"
    if results.exists():
        record["networks"] = json.loads(results.read_text("utf-8"))["networks"]
    for name in options.networks:
        setting = SETTINGS[name][kind_of(options.data)]
        key = f"{name} on {options.data.stem}"
        model = trained(name, options.data, setting, options.runs)
        images, labels = photos(options.data, "val", setting.pixels)
        seen = photos(options.data, "train", setting.pixels)[0]
        seen = seen[np.linspace(0, len(seen) - 1, CALIBRATION_IMAGES).astype(int)]
        print(key, flush=True)
        rows = compared(model, seen.astype("float32"), (images.astype("float32"), labels))
        record["networks"][key] = {
            "network": name,
            "data": options.data.stem,
            "pixels": setting.pixels,
            "epochs": setting.all_epochs,
            "images": len(labels),
            **rows,
        }
        results.write_text(json.dumps(record, indent=2) + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
