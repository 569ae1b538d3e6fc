"""Evaluation of a classifier: accuracy, accuracy per class, and confusion."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from se_keras.class_names import check_class_names
from se_keras.export.images import preparation_of
from se_keras.export.runner import Runner
from se_keras.export.runtime import KerasRunner, open_runner
from se_keras.export.samples import is_of_images
from se_keras.files import json_with, replacing
from se_keras.images.record import Preprocessing
from se_keras.preprocessing import preprocessing_of
from se_keras.progress import tracked
from se_keras.scores import Scores
from se_keras.training.batches import EVALUATION_BATCH, in_order
from se_keras.training.sources import ImageSource

METRICS = json_with("images", "accuracy", "by_class", "confusion")


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """The result of classifying labeled images.

    Args:
        class_names: Name of each class.
        confusion: Number of images by true class (rows) and predicted class (columns).
        top5: Fraction of images whose class is among the five most probable; None with five classes or fewer.
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
        path: The file to write; an earlier evaluation is replaced.

    Raises:
        FileExistsError: The path holds another file.
    """
    with replacing(path, overwrite=True, kind=METRICS) as temporary:
        temporary.write_text(json.dumps(evaluation.as_dict(), indent=2) + "\n", "utf-8")


def evaluate(
    model: keras.Model | str | os.PathLike,
    data: ImageSource,
    *,
    preprocessing: Preprocessing | None = None,
    class_names: Sequence[str] | None = None,
    threads: int = 2,
    verbose: str | int = "auto",
) -> Evaluation:
    """Classifies labeled images with a model, or with an exported file in its own runtime.

    Args:
        model: A Keras model, or a SavedModel, `.tflite`, `.onnx`, `.xml` (OpenVINO), or `.keras` file.
        data: The images, such as `open_data(...).validation`.
        preprocessing: The preprocessing of the images. None uses that of the model or file.
        class_names: Class names in the order of the model's outputs. None uses those in the model or file. If the
            images have the same names in another order, the outputs are assigned by name.
        threads: Number of CPU threads.
        verbose: "auto" or 1 to show a progress bar, 0 to show none.

    Returns:
        The `Evaluation`.

    Raises:
        ValueError: `data` is not a source of images, the model or `class_names` have a different number of classes than
            the images, only some of the names are the same and these stand in another order, or the outputs are not
            finite.
        FileNotFoundError: There is no such file.
    """
    if not hasattr(data, "class_names") or not hasattr(data, "labels"):
        raise ValueError(
            f"`data` must be labeled images, such as `open_data('photos').validation`; received {type(data).__name__}."
        )
    runner = KerasRunner(model) if isinstance(model, keras.Model) else open_runner(model, threads=threads)
    preprocessing = preprocessing or _preprocessing(runner)
    classes = len(data.class_names)
    names = runner.class_names if class_names is None else check_class_names(class_names, classes)
    columns = _columns(names, data.class_names)  # reports errors before anything is computed
    confusion: np.ndarray = np.zeros((classes, classes), np.int64)
    among_five = 0
    batches = iter(in_order(data, preprocessing, threads=threads))
    for _ in tracked(range(-(-len(data) // EVALUATION_BATCH)), "Evaluating", verbose=verbose):
        batch, labels = next(batches)
        answers = _probabilities(runner, batch)
        if answers.shape[-1] != classes:
            raise ValueError(
                f"The model has {answers.shape[-1]} classes, but the images have {classes}: "
                f"{', '.join(data.class_names[:10])}."
            )
        answers = answers[:, columns]
        truth = labels.argmax(axis=-1)
        np.add.at(confusion, (truth, answers.argmax(axis=-1)), 1)
        among_five += int((np.argsort(answers, axis=-1)[:, -5:] == truth[:, None]).any(axis=-1).sum())
    known = names if len(names) == classes and _are_numbers(data.class_names) else data.class_names
    return Evaluation(known, confusion, among_five / len(data) if classes > 5 else None)


def _are_numbers(names: Sequence[str]) -> bool:
    """Returns whether names only count the classes, as those of arrays do."""
    return tuple(names) == tuple(map(str, range(len(names))))


def _columns(own: Sequence[str], names: Sequence[str]) -> list[int]:
    """Returns the column of a model's outputs for each class of the images.

    Args:
        own: The class names of the model; () if it has none.
        names: The class names of the images.

    Raises:
        ValueError: Some names are the same, and stand in another order.
    """
    if len(own) != len(names) or _are_numbers(names):
        return list(range(len(names)))
    if set(own) == set(names):
        return [own.index(name) for name in names]
    moved = [name for name, own_name in zip(names, own, strict=True) if name != own_name and name in own]
    if moved:
        raise ValueError(
            f"The images have {len(moved)} of the model's classes in another order: {', '.join(names[:10])} instead of "
            f"{', '.join(own[:10])}. Name the folders of the images as in training."
        )
    return list(range(len(names)))


def _preprocessing(runner: Runner) -> Preprocessing:
    if not is_of_images(runner.inputs):
        names = ", ".join(repr(one.name) for one in runner.inputs)
        raise ValueError(f"Only networks that take images can be evaluated on images; this one takes {names}.")
    model, (height, width) = getattr(runner, "model", None), runner.input_shape[1:3]
    if height is not None and width is not None:
        return preparation_of(model, (height, width), runner.resizing)
    return Preprocessing() if model is None else preprocessing_of(model)


def _probabilities(runner: Runner, batch: np.ndarray) -> np.ndarray:
    """Returns the probability of each class; one column becomes two classes."""
    answers = np.asarray(runner(batch))
    if answers.shape[-1] == 1 and runner.kind == "output":
        raise ValueError(
            "The model has one output, and does not say whether it is a probability or a logit of the second of two "
            "classes. End it in a sigmoid or a dense layer, and export it with se_keras, which records that."
        )
    if not np.isfinite(answers).all():
        raise ValueError("The model's outputs must be finite; received NaN or infinite values for some image.")
    return keras.ops.convert_to_numpy(Scores(runner.kind, answers.shape[-1]).probabilities(answers))
