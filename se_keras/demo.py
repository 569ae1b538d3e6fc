"""A complete tour in about a minute: classify real images, adapt to other classes, export, compare, and draw."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import statistics
import time
from collections.abc import Callable

import keras
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from se_keras import export
from se_keras.blocks.excitation import SEConfig
from se_keras.class_names_file import NAMES_FILE, write_class_names
from se_keras.errors import check_count
from se_keras.export.exportable import require_tensorflow
from se_keras.export.runtime import open_runner
from se_keras.export.structure import size_of
from se_keras.export.to_tflite import tflite_targets
from se_keras.files import SAVED_MODEL, Kind, check_targets, kind_of, replacing
from se_keras.models.registry import create_model
from se_keras.spacing import evenly
from se_keras.timing import interleaved, stopwatch
from se_keras.training.sources import Sample, load_sample

# New classes, which the bundled network was not trained to distinguish.
GROUPS = {
    "flying": ("airplane", "bird"),
    "on the ground": ("automobile", "truck", "cat", "dog", "deer", "horse", "frog"),
    "on the water": ("ship",),
}
IMAGES_A_GROUP = 50


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportResult:
    """A saved form of the adapted network.

    Args:
        name: Name of the form.
        path: Its file or folder.
        size: Size in bytes.
        latency: Median seconds per image, after a warm-up.
        difference: Largest difference from the Keras model's probabilities, a fraction of 1.
        agreement: Share of test images with the same most probable class.
        accuracy: Share of test images classified correctly.
    """

    name: str
    path: pathlib.Path
    size: int
    latency: float
    difference: float
    agreement: float
    accuracy: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class DemoResult:
    """The results of the demo.

    Args:
        accuracy: Share of the bundled test images classified correctly, by bundled network.
        parameters: Trainable parameters, by bundled network.
        adapted: Share of the test images classified correctly after adapting, by starting point.
        seconds: Seconds of training, by starting point.
        images: Number of images used for adapting.
        exports: The saved forms of the adapted network.
        picture: The figure of predictions.
    """

    accuracy: dict[str, float]
    parameters: dict[str, int]
    adapted: dict[str, float]
    seconds: dict[str, float]
    images: int
    exports: list[ExportResult]
    picture: pathlib.Path


def run_demo(
    output: str | pathlib.Path = "demo_output",
    *,
    epochs: int = 20,
    announce: Callable[[str], None] = print,
    callbacks: Callable[[str, int], list[keras.callbacks.Callback]] = lambda name, steps: [],
) -> DemoResult:
    """Classifies with the bundled networks, adapts one to other classes, exports it, and compares the exports.

    Args:
        output: Folder for the model, the exports, and the figure; those of an earlier demo are replaced.
        epochs: Epochs of adapting, at least 1.
        announce: Called with one line before each step.
        callbacks: Returns Keras callbacks for a training run: (name, steps) -> list.

    Returns:
        A `DemoResult`.

    Raises:
        FileExistsError: Another file in the folder has one of their names.
        ValueError: `epochs` < 1.
        RuntimeError: Keras does not run on TensorFlow.
    """
    require_tensorflow("The demo's SavedModel")
    epochs = check_count("epochs", epochs)
    sample = load_sample()
    output = pathlib.Path(output)
    check_targets(_targets(output), overwrite=True)

    announce(f"Classifying {len(sample.x_test):,} images that the bundled networks have not seen")
    networks = {"SE-ResNet-20": "se_resnet20.cifar10", "ResNet-20": "se_resnet20.cifar10_plain"}
    accuracy, parameters = {}, {}
    for name, identifier in networks.items():
        model = create_model(identifier)
        probabilities = _answers(model, sample.x_test)
        accuracy[name] = float(np.mean(probabilities.argmax(axis=1) == sample.y_test))
        parameters[name] = sum(int(np.prod(variable.shape)) for variable in model.trainable_variables)
        if name == "SE-ResNet-20":
            picture = output / "predictions.png"
            with replacing(picture, overwrite=True) as temporary:
                draw_predictions(sample, probabilities).save(temporary)

    task = grouped(sample, IMAGES_A_GROUP)
    adapted, seconds = {}, {}
    for name, weights in {"from the bundled weights": "cifar10", "from random weights": None}.items():
        announce(f"Learning {len(GROUPS)} other classes {name}, from {len(task.x_train)} images")
        keras.utils.set_random_seed(0)
        model = create_model("se_resnet20", weights=weights, classes=len(GROUPS), se=SEConfig(reduction=4))
        started = time.perf_counter()
        _adapt(model, task, epochs, frozen=weights is not None, callbacks=callbacks)
        seconds[name] = time.perf_counter() - started
        adapted[name] = float(np.mean(_answers(model, task.x_test).argmax(axis=1) == task.y_test))
        if weights:
            kept = model

    announce("Saving, reloading, exporting, and comparing")
    exports = _export_and_compare(kept, task, output)
    write_class_names(output / NAMES_FILE, task.class_names)
    return DemoResult(
        accuracy=accuracy,
        parameters=parameters,
        adapted=adapted,
        seconds=seconds,
        images=len(task.x_train),
        exports=exports,
        picture=picture,
    )


def _targets(output: pathlib.Path) -> dict[str | os.PathLike, Kind]:
    files = [output / name for name in ("predictions.png", NAMES_FILE, "model.keras")]
    exports = {**tflite_targets(output / "model.tflite"), **tflite_targets(output / "model_int8.tflite")}
    return {**{file: kind_of(file) for file in files}, output / "saved_model": SAVED_MODEL, **exports}


def grouped(sample: Sample, images_a_group: int) -> Sample:
    """Relabels the sample with the classes of `GROUPS`.

    Args:
        sample: The bundled images.
        images_a_group: Number of training images per group to keep, from the start.

    Returns:
        A `Sample` with one label per group.
    """
    numbers = {name: number for number, names in enumerate(GROUPS.values()) for name in names}
    table = np.array([numbers[name] for name in sample.class_names], np.uint8)
    y_train = table[sample.y_train]
    kept = np.sort(np.concatenate([np.flatnonzero(y_train == group)[:images_a_group] for group in range(len(GROUPS))]))
    return dataclasses.replace(
        sample,
        x_train=sample.x_train[kept],
        y_train=y_train[kept],
        y_test=table[sample.y_test],
        class_names=tuple(GROUPS),
    )


def _answers(model: keras.Model, images: np.ndarray) -> np.ndarray:
    return keras.ops.convert_to_numpy(model(images, training=False))


def _adapt(
    model: keras.Model,
    task: Sample,
    epochs: int,
    *,
    frozen: bool,
    callbacks: Callable[[str, int], list[keras.callbacks.Callback]],
) -> None:
    for layer in model.layers:
        layer.trainable = layer.name == "logits" or not frozen
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy", jit_compile=False)
    steps = epochs * -(-len(task.x_train) // 32)
    model.fit(task.x_train, task.y_train, epochs=epochs, verbose=0, callbacks=callbacks("Learning", steps))


def _export_and_compare(model: keras.Model, data: Sample, output: pathlib.Path) -> list[ExportResult]:
    expected = _answers(model, data.x_test)
    with replacing(output / "model.keras", overwrite=True) as temporary:
        model.save(temporary)
    class_names = data.class_names
    export.saved_model(model, output / "saved_model", class_names=class_names, overwrite=True)
    export.tflite(model, output / "model.tflite", class_names=class_names, overwrite=True)
    export.tflite(
        model,
        output / "model_int8.tflite",
        dtype="int8",
        data=load_sample().x_train,
        class_names=class_names,
        overwrite=True,
    )
    files = {
        "Keras": "model.keras",
        "SavedModel": "saved_model",
        "TFLite": "model.tflite",
        "TFLite, int8": "model_int8.tflite",
    }
    return [_compared(name, output / file, data, expected) for name, file in files.items()]


def _compared(name: str, path: pathlib.Path, data: Sample, expected: np.ndarray) -> ExportResult:
    images: np.ndarray = data.x_test.astype("float32")
    run = open_runner(path)
    actual = run(images)
    seconds = interleaved({"": stopwatch(lambda: run(images[:1]))}, rounds=20, warmups=3)[""]
    return ExportResult(
        name=name,
        path=path,
        size=size_of(path),
        latency=statistics.median(seconds),
        difference=float(np.abs(actual - expected).max()),
        agreement=float((actual.argmax(1) == expected.argmax(1)).mean()),
        accuracy=float((actual.argmax(1) == data.y_test).mean()),
    )


def draw_predictions(data: Sample, probabilities: np.ndarray) -> Image.Image:
    """Draws test images with their true class, the most probable class, and its probability.

    Args:
        data: The images and the class names.
        probabilities: Probabilities of each test image, shape (n, classes), each a fraction of 1.

    Returns:
        An image. Correct predictions have a blue bar, wrong ones an orange bar and the true class.
    """
    columns, rows, side, text, gap = 5, 4, 144, 56, 16
    font, small = ImageFont.load_default(size=16), ImageFont.load_default(size=14)
    canvas = Image.new("RGB", (columns * (side + gap) + gap, rows * (side + text + gap) + gap), "white")
    draw = ImageDraw.Draw(canvas)
    for place, index in enumerate(evenly(len(data.x_test), columns * rows)):
        left = gap + place % columns * (side + gap)
        top = gap + place // columns * (side + text + gap)
        image = Image.fromarray(data.x_test[index]).resize((side, side), Image.Resampling.NEAREST)
        canvas.paste(image, (left, top))
        best, truth = int(probabilities[index].argmax()), int(data.y_test[index])
        share = float(probabilities[index, best])
        right = best == truth
        color = (0, 114, 178) if right else (213, 94, 0)  # distinct for color-blind readers
        draw.rectangle((left, top + side + 4, left + side, top + side + 10), fill=(225, 225, 225))
        draw.rectangle((left, top + side + 4, left + int(side * share), top + side + 10), fill=color)
        draw.text((left, top + side + 13), f"{data.class_names[best]} {share:.0%}", fill=color, font=font)
        verdict = "right" if right else f"is: {data.class_names[truth]}"
        draw.text((left, top + side + 34), verdict, fill=(70, 70, 70), font=small)
    return canvas
