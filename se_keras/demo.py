"""The whole way in about two minutes: train on real images, save, reload, export, compare, draw."""

from __future__ import annotations

import dataclasses
import pathlib
import statistics
import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from se_keras import export
from se_keras.blocks.excitation import SEConfig
from se_keras.export.runtime import TFLiteRunner, require_tensorflow
from se_keras.models.registry import create_model
from se_keras.training.data import Sample, load_sample

BATCH_SIZE = 50


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportResult:
    """One saved form of the trained network.

    Args:
        name: What it is.
        path: Where it is.
        size: In bytes.
        latency: Median seconds for one image, after a warm-up.
        difference: Greatest difference from the trained model's probabilities, a fraction of 1.
        agreement: Share of test images with the same most probable class.
    """

    name: str
    path: pathlib.Path
    size: int
    latency: float
    difference: float
    agreement: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class DemoResult:
    """What the demo found.

    Args:
        accuracy: Share of test images classified rightly, by network.
        parameters: Trainable parameters, by network.
        seconds: Seconds of training, by network.
        exports: The saved forms.
        picture: The picture of predictions.
    """

    accuracy: dict[str, float]
    parameters: dict[str, int]
    seconds: dict[str, float]
    exports: list[ExportResult]
    picture: pathlib.Path


def run_demo(
    output: str | pathlib.Path = "demo_output",
    *,
    data: Sample | None = None,
    epochs: int = 15,
    announce: Callable[[str], None] = print,
    callbacks: Callable[[str, int], list[keras.callbacks.Callback]] = lambda name, steps: [],
) -> DemoResult:
    """Trains SE-ResNet-20 and its plain twin on the bundled sample, saves and exports the first, and compares.

    Args:
        output: Folder for the model, the exports and the picture; files in it are replaced.
        data: Images to use instead of the bundled sample.
        epochs: Passes over the training images, at least 1.
        announce: Is told what comes next, a line at a time.
        callbacks: Makes Keras callbacks for a training: (network, steps) -> list.

    Returns:
        A `DemoResult`.

    Raises:
        ValueError: `epochs` < 1, or labels that do not fit the class names.
        RuntimeError: Keras does not run on TensorFlow.
    """
    require_tensorflow("The demo's SavedModel")
    if epochs < 1:
        raise ValueError(f"`epochs` must be at least 1; received epochs={epochs!r}.")
    data = load_sample() if data is None else data
    check_labels(data)
    output = pathlib.Path(output)
    output.mkdir(parents=True, exist_ok=True)

    accuracy, parameters, seconds = {}, {}, {}
    trained: dict[str, keras.Model] = {}
    for name, se in {"SE-ResNet-20": SEConfig(), "ResNet-20": None}.items():
        announce(f"Training {name} for {epochs} epochs on {len(data.x_train):,} images")
        keras.utils.set_random_seed(0)
        model = create_model("se_resnet20", se=se, classes=len(data.class_names), input_shape=data.x_train.shape[1:])
        steps = epochs * (len(data.x_train) // BATCH_SIZE)
        started = time.perf_counter()
        _train(model, data, epochs, callbacks(name, steps))
        seconds[name] = time.perf_counter() - started
        accuracy[name] = float(model.evaluate(data.x_test, data.y_test, verbose=0)[1])
        parameters[name] = sum(int(np.prod(variable.shape)) for variable in model.trainable_variables)
        trained[name] = model

    announce("Saving, reloading, exporting and comparing")
    exports = _export_and_compare(trained["SE-ResNet-20"], data, output)
    (output / "labels.txt").write_text("".join(f"{name}\n" for name in data.class_names), "utf-8")
    probabilities = trained["SE-ResNet-20"].predict(data.x_test, verbose=0)
    picture = output / "predictions.png"
    draw_predictions(data, probabilities).save(picture)
    return DemoResult(accuracy=accuracy, parameters=parameters, seconds=seconds, exports=exports, picture=picture)


def check_labels(data: Sample) -> None:
    """Raises a ValueError if a label of the data has no class name."""
    for part, labels in (("y_train", data.y_train), ("y_test", data.y_test)):
        if labels.min() < 0 or labels.max() >= len(data.class_names):
            raise ValueError(
                f"Labels must lie between 0 and {len(data.class_names) - 1}, one for each of {len(data.class_names)} "
                f"class names; `{part}` holds {labels.min()} to {labels.max()}. Add class names or mend the labels."
            )


def _train(model: keras.Model, data: Sample, epochs: int, callbacks: list[keras.callbacks.Callback]) -> None:
    steps = epochs * (len(data.x_train) // BATCH_SIZE)
    schedule = keras.optimizers.schedules.CosineDecay(
        0.01, decay_steps=steps - steps // 10, warmup_target=0.1, warmup_steps=steps // 10
    )
    model.compile(
        optimizer=keras.optimizers.SGD(schedule, momentum=0.9, nesterov=True, weight_decay=5e-4),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
        jit_compile=False,  # compiling takes longer than it saves in so short a training
    )
    model.fit(_augmented(data), epochs=epochs, shuffle=False, verbose=0, callbacks=callbacks)


def _augmented(data: Sample) -> Any:
    import tensorflow as tf

    shift = 1 / 8  # of the image's size: 4 pixels of 32, as in the CIFAR recipe of the ResNet paper
    augment = keras.Sequential(
        [
            keras.layers.RandomFlip("horizontal", seed=1),
            keras.layers.RandomTranslation(shift, shift, fill_mode="constant", seed=2),
        ]
    )
    images: Any = tf.data.Dataset.from_tensor_slices((data.x_train.astype("float32"), data.y_train))
    batches = images.shuffle(len(data.x_train), seed=0).batch(BATCH_SIZE, drop_remainder=True)
    return batches.map(lambda x, y: (augment(x, training=True), y)).prefetch(2)


def _export_and_compare(model: keras.Model, data: Sample, output: pathlib.Path) -> list[ExportResult]:
    import tensorflow as tf

    images: np.ndarray = data.x_test.astype("float32")
    expected = model.predict(images, verbose=0)

    model.save(output / "model.keras")
    reloaded = keras.models.load_model(output / "model.keras")
    export.saved_model(model, output / "saved_model", overwrite=True)
    served = tf.saved_model.load(str(output / "saved_model")).signatures["serving_default"]
    export.tflite(model, output / "model.tflite", overwrite=True)
    runner = TFLiteRunner(output / "model.tflite")
    runs = {
        "Keras": ("model.keras", lambda x: reloaded.predict_on_batch(x)),
        "SavedModel": ("saved_model", lambda x: served(images=tf.constant(x))["probabilities"].numpy()),
        "TFLite": ("model.tflite", runner),
    }
    return [_compared(name, output / file, run, images, expected) for name, (file, run) in runs.items()]


def _compared(name: str, path: pathlib.Path, run: Any, images: np.ndarray, expected: np.ndarray) -> ExportResult:
    actual = np.asarray(run(images))
    return ExportResult(
        name=name,
        path=path,
        size=_size(path),
        latency=_latency(run, images[:1]),
        difference=float(np.abs(actual - expected).max()),
        agreement=float((actual.argmax(1) == expected.argmax(1)).mean()),
    )


def _latency(run: Any, image: np.ndarray, repeats: int = 20) -> float:
    seconds = []
    for _ in range(repeats + 3):
        started = time.perf_counter()
        run(image)
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds[3:])


def _size(path: pathlib.Path) -> int:
    return sum(file.stat().st_size for file in [path, *path.rglob("*")] if file.is_file())


def draw_predictions(data: Sample, probabilities: np.ndarray, *, columns: int = 5, rows: int = 4) -> Image.Image:
    """Draws test images with their true class, the most probable class and its probability.

    Args:
        data: The images and the class names.
        probabilities: Of each test image, shape (n, classes), each a fraction of 1.
        columns: Images side by side.
        rows: Images below each other.

    Returns:
        A picture: right answers have a blue bar and a tick, wrong ones an orange bar and a cross.
    """
    side, text, gap = 144, 56, 16
    font, small = ImageFont.load_default(size=16), ImageFont.load_default(size=14)
    canvas = Image.new("RGB", (columns * (side + gap) + gap, rows * (side + text + gap) + gap), "white")
    draw = ImageDraw.Draw(canvas)
    chosen = np.linspace(0, len(data.x_test) - 1, columns * rows).astype(int)
    for place, index in enumerate(chosen):
        left = gap + place % columns * (side + gap)
        top = gap + place // columns * (side + text + gap)
        image = Image.fromarray(data.x_test[index]).resize((side, side), Image.Resampling.NEAREST)
        canvas.paste(image, (left, top))
        best, truth = int(probabilities[index].argmax()), int(data.y_test[index])
        share = float(probabilities[index, best])
        right = best == truth
        color = (0, 114, 178) if right else (213, 94, 0)  # apart for colour-blind readers too
        draw.rectangle((left, top + side + 4, left + side, top + side + 10), fill=(225, 225, 225))
        draw.rectangle((left, top + side + 4, left + int(side * share), top + side + 10), fill=color)
        draw.text((left, top + side + 13), f"{data.class_names[best]} {share:.0%}", fill=color, font=font)
        verdict = "right" if right else f"is: {data.class_names[truth]}"
        draw.text((left, top + side + 34), verdict, fill=(70, 70, 70), font=small)
    return canvas
