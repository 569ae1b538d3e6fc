"""A training of twenty steps, run by the tests as one of several processes: see `main`."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import sys

import keras

from se_keras.layers import BatchNormalization, ImagePreprocessing, SqueezeExcite
from se_keras.training import distribute
from se_keras.training.augment import PadAndCrop, RandomFlip
from se_keras.training.loop import train
from se_keras.training.recipes import Phase, Recipe
from se_keras.training.sources import ArraySource, Data, load_sample

RECIPE = Recipe(
    name="tiny",
    phases=(Phase(epochs=2, learning_rate=0.1),),
    batch_size=16,
    weight_decay=1e-4,
    average=0.9,
    transforms=(PadAndCrop(padding=4), RandomFlip()),
    source="none",
)


def tiny_data() -> Data:
    """160 images to train on, ten steps an epoch; 21 to validate on, which two devices cannot share evenly."""
    sample = load_sample()
    train_source = ArraySource(sample.x_train[:640:4], sample.y_train[:640:4], sample.class_names)
    return Data("tiny", train_source, ArraySource(sample.x_test[:21], sample.y_test[:21], sample.class_names))


def tiny_model(synchronized: bool) -> keras.Model:
    """A small network with batch norm and SE, the same weights every time."""
    keras.utils.set_random_seed(7)
    norm = keras.layers.BatchNormalization(synchronized=True) if synchronized else BatchNormalization()
    inputs = keras.Input((32, 32, 3))
    x = ImagePreprocessing(mean=(0.5,) * 3, std=(0.25,) * 3)(inputs)
    x = keras.layers.Conv2D(8, 3, strides=2, use_bias=False)(x)
    x = keras.layers.Activation("relu")(norm(x))
    x = SqueezeExcite(reduction=4)(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, keras.layers.Dense(10, activation="softmax")(x), name="tiny")


class Losses(keras.callbacks.Callback):
    """Keeps the loss of every step, of which Keras gives the mean over the epoch so far; sends itself a signal."""

    def __init__(self, signals: dict[str, int] | None) -> None:
        super().__init__()
        self.losses: list[float] = []
        self.epoch = 0
        self.signals = signals or {}

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self.total, self.epoch = 0.0, epoch

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        total = float(logs["loss"]) * (batch + 1)
        self.losses.append(total - self.total)
        self.total = total
        if batch == 4 and self.epoch == self.signals.get("epoch"):
            os.kill(os.getpid(), self.signals["number"])


def run(
    folder: pathlib.Path,
    scope: contextlib.AbstractContextManager[distribute.Processes],
    *,
    resume: bool = False,
    signals: dict[str, int] | None = None,
    synchronized: bool = False,
) -> dict:
    """Trains inside of a scope; gives the losses of the steps, the metrics of the epochs and the model's answers."""
    with scope as processes:
        recorder = Losses(signals)
        result = train(
            tiny_model(synchronized),
            tiny_data(),
            RECIPE,
            folder,
            resume=resume,
            threads=1,
            callbacks=[recorder],
            processes=processes,
        )
    answers: list = []
    if processes.writes:  # as the command line does after a training, when the others have ended
        image = tiny_data().validation[0][None]
        answers = keras.saving.load_model(folder / "model.keras").predict(image, verbose=0).tolist()
    return {
        "losses": recorder.losses,
        "history": result.history,
        "processes": dataclasses.asdict(processes),
        "answers": answers,
    }


def main() -> None:
    """Reads keyword arguments as JSON: `folder`, then what the way of training needs."""
    options = json.loads(sys.argv[1])
    folder = pathlib.Path(options.pop("folder"))
    way, results = options.pop("way"), []
    if way == "process":
        scope = distribute.join(options.pop("coordinator"), options.pop("process_id"), options.pop("num_processes"))
        results.append(run(folder, scope, **options))
    elif way == "one":
        results.append(run(folder, contextlib.nullcontext(distribute.ALONE), **options))
    elif way == "alone and all devices":
        results.append(run(folder / "alone", contextlib.nullcontext(distribute.ALONE)))
        results.append(run(folder / "devices", distribute.join(num_processes=1)))
    elif way == "alone and mirrored":
        import tensorflow as tf

        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
        results.append(run(folder / "alone", contextlib.nullcontext(distribute.ALONE)))
        results.append(run(folder / "mirrored", distribute.mirrored(["CPU:0", "CPU:1"]), synchronized=True))
    print("RESULTS " + json.dumps(results), flush=True)


if __name__ == "__main__":
    main()
