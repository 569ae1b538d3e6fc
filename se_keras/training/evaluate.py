"""Evaluation of a classifier: accuracy, accuracy per class, and confusion."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Iterable
from typing import Any

import keras
import numpy as np

from se_keras.export.images import preparation_of
from se_keras.export.runtime import KerasRunner, Runner, open_runner
from se_keras.files import json_with, replacing
from se_keras.images.record import Preprocessing
from se_keras.preprocessing import preprocessing_of
from se_keras.scores import Scores
from se_keras.training.batches import EVALUATION_BATCH, in_order
from se_keras.training.sources import ImageSource

METRICS = json_with("images", "accuracy", "by_class", "confusion")


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """The result of classifying labeled images.

    Args:
        class_names: Name of each class.
        confusion: Number of images by true class (rows) and answer (columns).
        top5: Fraction of images whose class is among the first five answers; None with five classes or fewer.
    """

    class_names: tuple[str, ...]
    confusion: np.ndarray
    top5: float | None

    @property
    def images(self) -> int:
        """Returns the number of images."""
        return int(self.confusion.sum())

    @property
    def accuracy(self) -> float:
        """Returns the fraction of the images classified correctly."""
        return float(np.trace(self.confusion) / self.images)

    @property
    def by_class(self) -> dict[str, float]:
        """Returns the fraction of each class's images classified correctly; NaN for a class without images."""
        with np.errstate(invalid="ignore"):
            shares = np.diag(self.confusion) / self.confusion.sum(axis=1)
        return dict(zip(self.class_names, map(float, shares), strict=True))

    def as_dict(self) -> dict[str, Any]:
        """Returns the evaluation as a dictionary for JSON."""
        return {
            "images": self.images,
            "accuracy": self.accuracy,
            "top5": self.top5,
            "by_class": self.by_class,
            "confusion": self.confusion.tolist(),
        }


def write_metrics(evaluation: Evaluation, path: str | os.PathLike) -> None:
    """Writes an evaluation as JSON.

    Args:
        evaluation: The evaluation.
        path: The file; that of an earlier evaluation is replaced.

    Raises:
        FileExistsError: The path holds another file.
    """
    with replacing(path, overwrite=True, kind=METRICS) as temporary:
        temporary.write_text(json.dumps(evaluation.as_dict(), indent=2) + "\n", "utf-8")


def evaluate(
    model: keras.Model | str | os.PathLike,
    images: ImageSource,
    *,
    prepared: Preprocessing | None = None,
    threads: int = 2,
    progress: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> Evaluation:
    """Classifies labeled images with a model, or with an exported file in its own runtime.

    Args:
        model: A Keras model, or a SavedModel, `.tflite`, `.onnx`, or `.keras` file.
        images: The images.
        prepared: The preprocessing of the images. None uses that of the model or file.
        threads: Number of CPU threads.
        progress: Wraps the iterable of batch numbers.

    Returns:
        The `Evaluation`.

    Raises:
        ValueError: The model's answers have another number of classes than the images, or are not finite.
        FileNotFoundError: There is no such file.
    """
    runner = KerasRunner(model) if isinstance(model, keras.Model) else open_runner(model, threads=threads)
    if prepared is None:
        keras_model, (height, width) = getattr(runner, "model", None), runner.input_shape[1:3]
        if height is None or width is None:
            prepared = preprocessing_of(keras_model) if keras_model is not None else Preprocessing()
        else:
            prepared = preparation_of(keras_model, (height, width))
    classes = len(images.class_names)
    confusion: np.ndarray = np.zeros((classes, classes), np.int64)
    among_five = 0
    batches = iter(in_order(images, prepared, threads=threads))
    for _ in progress(range(-(-len(images) // EVALUATION_BATCH))):
        batch, labels = next(batches)
        answers = _probabilities(runner, batch)
        if answers.shape[-1] != classes:
            raise ValueError(
                f"The model has {answers.shape[-1]} classes, but the images have {classes}: "
                f"{', '.join(images.class_names[:10])}."
            )
        truth = labels.argmax(axis=-1)
        np.add.at(confusion, (truth, answers.argmax(axis=-1)), 1)
        among_five += int((np.argsort(answers, axis=-1)[:, -5:] == truth[:, None]).any(axis=-1).sum())
    return Evaluation(images.class_names, confusion, among_five / len(images) if classes > 5 else None)


def _probabilities(runner: Runner, batch: np.ndarray) -> np.ndarray:
    """Returns the probability of each class; one column becomes two classes."""
    answers = np.asarray(runner(batch))
    if answers.shape[-1] == 1 and runner.kind == "output":
        raise ValueError(
            "The model has one output, and does not say whether it is a probability or a logit of the second of two "
            "classes. End it in a sigmoid or a dense layer, and export it with se_keras, which records that."
        )
    if not np.isfinite(answers).all():
        raise ValueError("The model's answers must be finite; received NaN or infinite values for some image.")
    return keras.ops.convert_to_numpy(Scores(runner.kind, answers.shape[-1]).probabilities(answers))
