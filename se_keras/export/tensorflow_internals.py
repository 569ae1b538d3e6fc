"""The only module that uses private parts of TensorFlow, and the runtime's own parts that replace some of them."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
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
        A list for a single input. Several are passed by name, because the converter chooses their order; it then makes
        an interpreter, which warns of its deprecation.
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


def self_contained(function: Callable[..., Any], signature: Sequence[Any]) -> Callable[..., Any]:
    """Returns a function whose graph contains the values of variables and of all other tensors that it reads.

    Converters, including TensorFlow's own, go through this step, but it has no public name. Code to be compiled by XLA,
    as Keras' grouped convolutions are, becomes ordinary operations.

    Args:
        function: A function of tensors.
        signature: A `tf.TensorSpec` for each of them.

    Returns:
        A function of the same tensors, which returns a list of tensors, and adds its operations to the graph of a
        calling `tf.function`.
    """
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    concrete = tf.function(function, autograph=False).get_concrete_function(*signature)
    frozen = convert_variables_to_constants_v2(concrete, lower_control_flow=False)
    content = frozen.graph.as_graph_def()
    for owner in (*content.library.function, *nodes_of(content)):
        owner.attr.pop("_XlaMustCompile", None)

    def call(*values: Any) -> Any:
        given = {tensor.name: value for tensor, value in zip(frozen.inputs, values, strict=True)}
        outputs = [tensor.name for tensor in frozen.outputs]
        return tf.graph_util.import_graph_def(content, input_map=given, return_elements=outputs)

    return call


def nodes_of(graph: Any) -> Iterator[Any]:
    """Yields the nodes of a `tf.compat.v1.GraphDef`, and those of its functions."""
    yield from graph.node
    for function in graph.library.function:
        yield from function.node_def
