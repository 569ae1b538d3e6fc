"""Prediction of one batch, without TensorFlow's warning about many compilations."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import Any

import keras


def predict_batch(model: keras.Model, inputs: Any) -> Any:
    """Computes the outputs of a model for one batch.

    TensorFlow compiles each model once, and warns about that when a process predicts with its fifth model, as if
    one model were compiled again and again. That warning is not shown.

    Args:
        model: The model.
        inputs: One batch, in the structure of the model's inputs.

    Returns:
        Arrays in the structure of the model's outputs.
    """
    with _compiling_is_expected():
        return model.predict_on_batch(inputs)


@contextlib.contextmanager
def _compiling_is_expected() -> Iterator[None]:
    logger = logging.getLogger("tensorflow")
    logger.addFilter(_is_not_about_retracing)
    try:
        yield
    finally:
        logger.removeFilter(_is_not_about_retracing)


def _is_not_about_retracing(record: logging.LogRecord) -> bool:
    return "triggered tf.function retracing" not in str(record.msg)
