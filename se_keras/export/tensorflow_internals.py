"""The only module that uses private parts of TensorFlow, and the runtime's own parts that replace some of them."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from se_keras.errors import missing_package


def interpreter_module() -> Any:
    """Imports the module of TFLite's interpreter, from `ai_edge_litert` or else from TensorFlow.

    Returns:
        A module with `Interpreter` and `OpResolverType`.

    Raises:
        ImportError: Neither is installed.
    """
    return _first_installed("interpreter", "Running a .tflite file")


def schema_module() -> Any:
    """Imports the classes of the tables of a `.tflite` file; source, result, and error as in `interpreter_module`."""
    return _first_installed("schema_py_generated", "Reading a .tflite file")


def _first_installed(module: str, purpose: str) -> Any:
    for package in ("ai_edge_litert", "tensorflow.lite.python"):
        try:
            return importlib.import_module(f"{package}.{module}")
        except ImportError as error:
            reason = error
    raise missing_package("ai_edge_litert", "litert", purpose) from reason


def for_converter(batch: Mapping[str, np.ndarray]) -> Any:
    """Returns a batch as TensorFlow's calibration takes it.

    Args:
        batch: The value of each input by its name.

    Returns:
        A list for a single input. Several go by name, because the converter orders them as it likes; it then makes an
        interpreter, which warns of its end.
    """
    if len(batch) == 1:
        return list(batch.values())
    warnings.filterwarnings("ignore", r"\s*Warning: tf\.lite\.Interpreter is deprecated", UserWarning)
    return dict(batch)


def quantized_to_8_bits(content: bytes, **options: Any) -> bytes:
    """Quantizes a float `.tflite` file that holds the range of each tensor.

    TensorFlow's `QuantizationDebugger` does so; the step has no public name.

    Args:
        content: The content of the file.
        **options: Options of `mlir_quantize`, such as `input_data_type`.

    Returns:
        The content of the quantized file.
    """
    from tensorflow.lite.python.convert import mlir_quantize

    return mlir_quantize(content, **options)
