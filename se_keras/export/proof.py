"""Proof of a written file: it runs in its own runtime and must match its model before it is moved to its path."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Sequence

import keras
import numpy as np

from se_keras.export.inference_form import perturbed
from se_keras.export.inputs import Feed, few_of, part_of, random_feed, rows_of, takes_text
from se_keras.export.model_ends import answers_of, inputs_of, output_scores
from se_keras.export.process import RuntimeRefusedError, Worker
from se_keras.export.runner import Runner
from se_keras.export.runtime import RUNTIMES, format_of, open_runner

FEW = 8  # samples like those the model will see
PART = 2  # of them at a time: their maps are in memory together


@dataclasses.dataclass(frozen=True)
class Tolerance:
    """How far the outputs of a file may differ from its model's.

    Args:
        most: The norm of the difference divided by the norm of the model's outputs.
        rounding: Relative perturbation of the input that stands for the rounding in a file of this precision.
        times: How often its effect on the model's outputs may be exceeded, where that is more than `most`: the softmax
            of a random network can amplify the last bit.
        step: How far each value may differ in any case: 8 bits show a probability below 1/256 as 0.
    """

    most: float
    rounding: float
    times: float
    step: float = 0.0


EXACT = Tolerance(1e-3, 2.0**-20, 50)
HALF = Tolerance(2e-2, 2.0**-9, 50)
# Some classes may differ, which `verify` judges; the outputs of a broken file are beyond this.
EIGHT_BITS = Tolerance(0.5, 2.0**-7, 10, step=1 / 256)
FINITE = Tolerance(math.inf, 0.0, 0)
TOLERANCES = {"fp32": EXACT, "fp16": HALF, "int8": EIGHT_BITS, "int16x8": EIGHT_BITS}
"""By precision; the outputs of other files, which are not calibrated, must be finite."""


def check_file(
    path: str | os.PathLike, model: keras.Model, *, tolerance: Tolerance = EXACT, feed: Feed | None = None
) -> None:
    """Runs a file and its model on the same inputs, and rejects the file if they differ.

    Args:
        path: The file or folder, under a name with its own suffix.
        model: The model that it was written from.
        tolerance: How far their outputs may differ.
        feed: Inputs like those the model will see, in their order. Default: random ones. Files of models that take
            text are only opened.

    Raises:
        ValueError: The runtime does not open the file, or the outputs differ.
        ImportError: The runtime is not installed.
    """
    try:
        runner = open_runner(path)
    except (RuntimeError, ValueError) as error:
        raise ValueError(
            f"The converted file does not load: {error}. If it is quantized, the outputs of a layer were nearly "
            "constant on `data`; pass photos like those the model was trained on."
        ) from error
    inputs = inputs_of(model)
    if takes_text(inputs):
        return
    feed = random_feed(inputs, 2) if feed is None else few_of(feed, FEW)
    found, expected = _found(runner, list(output_scores(model)), feed), _answers(model, feed)
    differences = [_distance(a, b, tolerance.step) for a, b in zip(found, expected, strict=True)]
    for number, difference in enumerate(differences):
        if np.isfinite(expected[number]).all() and not _is_tolerated(difference, model, feed, tolerance, number):
            where = f"values of output {number}" if len(expected) > 1 else "outputs"
            raise ValueError(
                f"In {RUNTIMES[format_of(path)]}, the converted file does not match {model.name!r}, so it is not "
                f"written: the {where} {_how(found[number], expected[number], difference, tolerance)}."
            )


def check_opens(path: str | os.PathLike) -> None:
    """Opens a file in its runtime in another process, because the runtime may crash.

    Args:
        path: As in `check_file`.

    Raises:
        ValueError: The runtime refuses the file, or crashes.
    """
    try:
        with Worker(path):
            pass
    except RuntimeRefusedError as error:
        raise ValueError(f"The converted file does not load: {error}. Export it in another precision.") from error


def _how(found: np.ndarray, expected: np.ndarray, difference: float, tolerance: Tolerance) -> str:
    if found.shape != expected.shape:
        return f"have the shape {found.shape} instead of {expected.shape}"
    return f"differ by {difference:.2g} of their norm; at most {tolerance.most:.2g} is allowed"


def _found(runner: Runner, names: Sequence[str], feed: Feed) -> list[np.ndarray]:
    """Returns the outputs of a file in the order of the model's."""
    answers = runner.run(feed)
    return [answers[name] for name in names] if len(names) > 1 else [answers[runner.answer]]


def _is_tolerated(difference: float, model: keras.Model, feed: Feed, tolerance: Tolerance, number: int) -> bool:
    if math.isfinite(difference) and difference <= tolerance.most:
        return True
    shaken = _answers(model, perturbed(feed, tolerance.rounding))[number]
    return difference <= tolerance.times * _distance(shaken, _answers(model, feed)[number])


def _distance(found: np.ndarray, expected: np.ndarray, step: float = 0.0) -> float:
    """Returns the norm of the differences above `step`, divided by the norm of `expected`; NaN if shapes differ."""
    if found.shape != expected.shape:
        return float("nan")
    tiny = float(np.finfo("float32").tiny)
    beyond = np.maximum(np.abs(found - expected) - step, 0)
    return float(np.linalg.norm(beyond) / max(float(np.linalg.norm(expected)), tiny))


def _answers(model: keras.Model, feed: Feed) -> list[np.ndarray]:
    # A random generator in the model must continue as if nothing had been exported.
    states = [(variable, keras.ops.convert_to_numpy(variable).copy()) for variable in model.non_trainable_variables]
    parts = [part_of(feed, start, start + PART) for start in range(0, rows_of(feed), PART)]
    answers = zip(*(answers_of(model, part) for part in parts), strict=True)
    joined = [np.concatenate([np.asarray(part, "float32") for part in answer]) for answer in answers]
    for variable, value in states:
        variable.assign(value)
    return joined
