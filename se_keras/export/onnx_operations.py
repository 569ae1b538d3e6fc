"""Operations of TensorFlow that tf2onnx does not convert, written in ONNX's own."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import numpy as np

SIGN_BIT = np.iinfo("int32").min
LEAST_OPSET = 9  # of what the operations are written in


def add_operations() -> None:
    """Makes tf2onnx convert the operations in Keras' exact GELU, CELU, `argmax`, `expm1`, and `log1p`."""
    handler = importlib.import_module("tf2onnx.handler")
    for name, convert in CONVERSIONS.items():
        handler.tf_op(name).register_compat_handler(convert, version=LEAST_OPSET)


class _Writer:
    """A writer of the operations that replace a node; their results have its shape."""

    def __init__(self, graph: Any, node: Any) -> None:
        self.graph, self.name = graph, node.name
        self.input, self.output = node.input[0], node.output[0]
        self.ends = {"shapes": [graph.get_shape(self.output)]}
        self.dtype = graph.get_dtype(self.input)
        graph.remove_node(node.name)

    def constant(self, value: float, dtype: int | None = None) -> str:
        """Returns a tensor of one number, with the dtype of the input unless another is given."""
        kind = importlib.import_module("onnx").helper.tensor_dtype_to_np_dtype(dtype or self.dtype)
        name = importlib.import_module("tf2onnx.utils").make_name(self.name)
        return self.graph.make_const(name, np.array(value, kind)).output[0]

    def add(self, operation: str, inputs: Sequence[str], dtype: int | None = None) -> str:
        """Returns the result of an operation, with the dtype of the input unless another is given."""
        return self.graph.make_node(operation, list(inputs), dtypes=[dtype or self.dtype], **self.ends).output[0]

    def end(self, operation: str, inputs: Sequence[str], dtype: int | None = None) -> None:
        """Adds the operation whose result is the node's."""
        end = {"name": self.name, "outputs": [self.output], "dtypes": [dtype or self.dtype]}
        self.graph.make_node(operation, list(inputs), **end, **self.ends)


def _erfc(graph: Any, node: Any, **_: Any) -> None:
    writer = _Writer(graph, node)
    writer.end("Sub", [writer.constant(1), writer.add("Erf", [writer.input])])


def _expm1(graph: Any, node: Any, **_: Any) -> None:
    writer = _Writer(graph, node)
    writer.end("Sub", [writer.add("Exp", [writer.input]), writer.constant(1)])


def _log1p(graph: Any, node: Any, **_: Any) -> None:
    writer = _Writer(graph, node)
    writer.end("Log", [writer.add("Add", [writer.input, writer.constant(1)])])


def _bits(graph: Any, node: Any, **_: Any) -> None:
    """Converts a read of the bits of floats of which only the sign is used; even minus zero has one."""
    types = importlib.import_module("onnx").TensorProto
    if not _gives_the_sign_alone(graph, node):
        return
    writer = _Writer(graph, node)
    zero = writer.constant(0)
    is_below = writer.add("Less", [writer.input, zero], types.BOOL)
    is_minus_zero = writer.add("Less", [writer.add("Reciprocal", [writer.input]), zero], types.BOOL)
    is_negative = writer.add("Or", [is_below, is_minus_zero], types.BOOL)
    values = [writer.constant(value, types.INT32) for value in (SIGN_BIT, 0)]
    writer.end("Where", [is_negative, *values], types.INT32)


def _gives_the_sign_alone(graph: Any, node: Any) -> bool:
    readers = graph.find_output_consumers(node.output[0])
    masks = [one for reader in readers if reader.type == "BitwiseAnd" for one in reader.inputs if one.is_const()]
    is_alone = len(masks) == len(readers) and node.output[0] not in graph.outputs
    return is_alone and all(np.array_equal(mask.get_tensor_value(as_list=False), SIGN_BIT) for mask in masks)


CONVERSIONS = {"Bitcast": _bits, "Erfc": _erfc, "Expm1": _expm1, "Log1p": _log1p}
