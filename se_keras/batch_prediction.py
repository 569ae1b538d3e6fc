"""Prediction of one batch, without TensorFlow's warning about many compilations."""

from __future__ import annotations

import logging
from typing import Any

import keras

from se_keras.log_records import left_out


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
    with left_out("tensorflow", _is_about_retracing):
        return model.predict_on_batch(inputs)


def _is_about_retracing(record: logging.LogRecord) -> bool:
    return "triggered tf.function retracing" in str(record.msg)
