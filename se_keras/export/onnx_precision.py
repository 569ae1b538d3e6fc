"""An ONNX model in half precision or in 8 bits, by ONNX Runtime's own tools."""

from __future__ import annotations

import functools
import importlib
import math
import os
import pathlib
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from se_keras.export.first_layers import LAYERS, Kind, Step, first_layers
from se_keras.export.inputs import Feed, part_of, rows_at, rows_of
from se_keras.export.onnx_ranges import onnx_ranges
from se_keras.export.ranges import Range, closest, compared

KINDS = {
    **dict.fromkeys(("Conv", "ConvTranspose"), Kind.CONVOLUTION),
    **dict.fromkeys(("Gemm", "MatMul"), Kind.DENSE),
    "HardSwish": Kind.SWISH,
    **dict.fromkeys(("HardSigmoid", "Sigmoid"), Kind.SIGMOID),
    "Mul": Kind.PRODUCT,
    **dict.fromkeys(
        ("Add", "Div", "Pad", "Reshape", "Resize", "Squeeze", "Sub", "Transpose", "Unsqueeze"), Kind.SIMPLE
    ),
}
KEPT_IN_FLOAT = ("Softmax",)  # of the outputs, where a step of 8 bits is 0.4%


def optimized(path: str | os.PathLike) -> Any:
    """Reads a model after the optimizations of ONNX Runtime that hold on every machine.

    Args:
        path: An `.onnx` file.

    Returns:
        An `onnx.ModelProto` of ONNX's own operations.

    Raises:
        ValueError: ONNX Runtime does not load the file.
    """
    onnx, runtime = importlib.import_module("onnx"), importlib.import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.log_severity_level = 3
    with tempfile.TemporaryDirectory() as folder:
        result = os.path.join(folder, "model.onnx")
        options.optimized_model_filepath = result
        try:
            runtime.InferenceSession(os.fspath(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its exceptions have no common base class
            raise ValueError(f"ONNX Runtime cannot run the converted file: {error}") from error
        model = onnx.load(result)
    domains = {"", "ai.onnx", *(node.domain for node in model.graph.node), *(one.domain for one in model.functions)}
    imports = [entry for entry in model.opset_import if entry.domain in domains]
    del model.opset_import[:]
    model.opset_import.extend(imports)
    return model


def in_half_precision(model: Any) -> Any:
    """Converts weights and computation to float16; inputs and outputs stay as they are.

    Args:
        model: An `onnx.ModelProto`.

    Returns:
        A new model.
    """
    float16 = importlib.import_module("onnxruntime.transformers.float16")
    helpers = importlib.import_module("onnxruntime.transformers.onnx_model")
    converted = helpers.OnnxModel(float16.convert_float_to_float16(model, keep_io_types=True))
    converted.topological_sort()  # casts of inputs come last
    return converted.model


def in_8_bits(model: Any, feed: Feed, keep_float: Sequence[str] | None) -> Any:
    """Quantizes weights, per channel, and activations; inputs and outputs stay in float.

    What precedes the first convolution or dense layer stays in float, so that the normalized image is quantized once.
    So do the first layers of a network with swishes, and the final softmax. The squeeze, the gates, and their product
    with the map are quantized: in float, they agree no better on the bundled SE-ResNet-20.

    Args:
        model: An `onnx.ModelProto`.
        feed: Values of its inputs by their names, for the ranges of activations.
        keep_float: As in `export.onnx`.

    Returns:
        A new model with pairs of QuantizeLinear and DequantizeLinear, and the ranges that `closest` chooses.
    """
    model = importlib.import_module("onnx").shape_inference.infer_shapes(model)
    _name_all(model.graph)
    kept = _kept(model.graph, keep_float)
    choices = onnx_ranges(model, feed)
    few = rows_at(feed, compared(rows_of(feed)))
    result = functools.cache(lambda place: _quantized(model, feed, choices[place], kept))
    best = closest(range(len(choices)), lambda place: _outputs(result(place), few), lambda: _outputs(model, few))
    return result(best)


def _quantized(model: Any, feed: Feed, ranges: Mapping[str, Range], kept: Sequence[str]) -> Any:
    onnx = importlib.import_module("onnx")
    quantization = importlib.import_module("onnxruntime.quantization")

    with tempfile.TemporaryDirectory() as folder:
        source, result = (pathlib.Path(folder, name) for name in ("float.onnx", "int8.onnx"))
        quantization.quant_utils.add_pre_process_metadata(model)  # or the quantizer advises to optimize the model first
        onnx.save(model, os.fspath(source))
        quantization.quantize_static(
            os.fspath(source),
            os.fspath(result),
            _FirstSample(feed),
            quant_format=quantization.QuantFormat.QDQ,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            per_channel=True,
            nodes_to_exclude=list(kept),
            extra_options={"TensorQuantOverrides": _overrides(ranges)},
        )
        return onnx.load(os.fspath(result))


def _outputs(model: Any, feed: Feed) -> list[np.ndarray]:
    runtime = importlib.import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    session = runtime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return list(session.run(None, feed))


class _FirstSample:
    """One sample for the quantizer's own calibration, whose ranges are replaced."""

    def __init__(self, feed: Feed) -> None:
        self.left = [part_of(feed, 0, 1)]

    def get_next(self) -> dict[str, np.ndarray] | None:
        return self.left.pop() if self.left else None


def _overrides(ranges: Mapping[str, Range]) -> dict[str, list[dict[str, Any]]]:
    """Returns ranges as the quantizer takes them."""
    return {name: [{"rmin": np.float32(low), "rmax": np.float32(high)}] for name, (low, high) in ranges.items()}


def _kept(graph: Any, keep_float: Sequence[str] | None) -> list[str]:
    first = next((place for place, node in enumerate(graph.node) if KINDS.get(node.op_type) in LAYERS), len(graph.node))
    ends = [node.name for place, node in enumerate(graph.node) if place < first or node.op_type in KEPT_IN_FLOAT]
    return [*ends, *first_layers(_steps(graph))] if keep_float is None else ends


def _steps(graph: Any) -> list[Step]:
    computed = {name: node.name for node in graph.node for name in node.output}
    constants = {one.name: math.prod(one.dims) for one in graph.initializer}

    def step(node: Any) -> Step:
        kind = KINDS.get(node.op_type, Kind.OTHER)
        weights = constants.get(node.input[1], 0) if kind in LAYERS else 0
        return Step(node.name, kind, weights, tuple(computed.get(name, name) for name in node.input))

    return [step(node) for node in graph.node]


def _name_all(graph: Any) -> None:
    """Names the nodes without a name, because the quantizer excludes nodes by name."""
    for place, node in enumerate(graph.node):
        node.name = node.name or f"{node.op_type}_at_{place}"
