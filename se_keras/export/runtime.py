"""The runtimes that exports are made with and checked in."""

from __future__ import annotations

import os
from typing import Any

import keras
import numpy as np

from se_keras.errors import missing_package
from se_keras.export.files import native_output_held


def require_tensorflow(what: str) -> Any:
    """The TensorFlow module, for a Keras that runs on it.

    Args:
        what: What needs it, as the start of a sentence.

    Returns:
        The module `tensorflow`.

    Raises:
        RuntimeError: Keras runs on another backend.
    """
    backend = keras.backend.backend()
    if backend != "tensorflow":
        raise RuntimeError(
            f"{what} is written by TensorFlow, and Keras runs on {backend!r}. Save the model as .keras, and export it "
            "in a process with KERAS_BACKEND=tensorflow."
        )
    import tensorflow

    return tensorflow


class TFLiteRunner:
    """A `.tflite` file in its own runtime.

    Args:
        path: The file.
        threads: CPU threads, at least 1.

    Raises:
        ImportError: Neither `ai_edge_litert` nor TensorFlow is installed.
        ValueError: The file is no TFLite model.
    """

    def __init__(self, path: str | os.PathLike, *, threads: int = 1) -> None:
        with native_output_held():
            self.interpreter = _interpreter_class()(model_path=os.fspath(path), num_threads=threads)
            self.interpreter.allocate_tensors()
        self.input = self.interpreter.get_input_details()[0]
        self.output = self.interpreter.get_output_details()[0]

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Runs the images one by one.

        Args:
            images: Array of shape (n, height, width, channels) in the scale of the model's input.

        Returns:
            Array of shape (n, classes).
        """
        return np.concatenate([self.run_one(image[None]) for image in images])

    def run_one(self, image: np.ndarray) -> np.ndarray:
        """Runs a batch of the model's own size; arguments and result as in a call."""
        self.interpreter.set_tensor(self.input["index"], image.astype(self.input["dtype"]))
        self.interpreter.invoke()
        return self.interpreter.get_tensor(self.output["index"])


def _interpreter_class() -> Any:
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        try:
            from tensorflow.lite import Interpreter
        except ImportError as error:
            raise missing_package("ai_edge_litert", "litert", "Running a .tflite file") from error
    return Interpreter
