"""Structure of a `.tflite` file, and operations that target hardware does not run. Nothing is executed."""

from __future__ import annotations

import collections
import dataclasses
import os
import pathlib
from collections.abc import Iterator
from typing import Any

from se_keras.export.runtime import format_of
from se_keras.export.tensorflow_internals import schema_module
from se_keras.export.tflite_file import damage_reported, holds_data, read_model

TARGETS = {
    "cpu": "LiteRT with its built-in operations",
    "gpu": "GPUs: every operation must run there, in half precision",
    "edgetpu": "Edge TPU and similar NPUs: 8-bit integers throughout",
    "serving": "servers whose TensorFlow is built without XLA",
}

# Operations of LiteRT's GPU compiler (ML Drift): those of TFLite's older delegate, and those that version 2.3 accepted.
_GPU = """
    ABS ADD ARG_MAX ATAN2 AVERAGE_POOL_2D BATCH_MATMUL CAST CEIL CONCATENATION CONV_2D COS CUMSUM DEPTHWISE_CONV_2D
    DEPTH_TO_SPACE DEQUANTIZE DIV ELU EMBEDDING_LOOKUP EQUAL EXP EXPAND_DIMS FLOOR FLOOR_DIV FLOOR_MOD FULLY_CONNECTED
    GATHER GELU GREATER GREATER_EQUAL HARD_SWISH LEAKY_RELU LESS LESS_EQUAL LOG LOGICAL_AND LOGISTIC LSTM MAXIMUM
    MAX_POOL_2D MEAN MINIMUM MIRROR_PAD MUL NEG NOT_EQUAL ONE_HOT PACK PAD PADV2 POW PRELU QUANTIZE REDUCE_ANY
    REDUCE_MAX REDUCE_MIN REDUCE_PROD RELU RELU6 RELU_N1_TO_1 RESHAPE RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR
    REVERSE_V2 ROUND RSQRT SELECT SELECT_V2 SIGN SIN SLICE SOFTMAX SPACE_TO_DEPTH SPLIT SPLIT_V SQRT SQUARE
    SQUARED_DIFFERENCE SQUEEZE STRIDED_SLICE SUB SUM TANH TILE TOPK_V2 TRANSPOSE TRANSPOSE_CONV UNPACK"""
GPU_OPERATIONS = frozenset(_GPU.split())
GPU_REASONS = {
    "BROADCAST_TO": "the GPU compiler rejects it at any rank; let the operation after it broadcast",
    "RELU_0_TO_1": "rejected since LiteRT 2.1.5; write a hard sigmoid as relu6(x + 3) / 6",
}
# Observed with LiteRT 2.3 through WebGPU: the result is the upper left part of the convolution without its stride.
# All other operations of a quantized SE-ResNet matched the CPU there, and so does this one in float.
GPU_STRIDED_POINT = (
    "is a strided 1x1 convolution on 8-bit integers, whose stride LiteRT ignores on GPUs: wrong results; "
    "export with dtype='fp16' or 'int8_weights'"
)
GPU_PADDED_POOL = (
    "averages over the positions of a preceding PAD, which LiteRT ignores on GPUs: wrong results at the border; use "
    "a depthwise convolution with equal weights, as `se_keras.export.tflite` does"
)
GPU_NARROW_GROUPS = (
    "is a grouped convolution whose groups do not have a multiple of 4 input and output channels: LiteRT gives wrong "
    "results on GPUs or crashes; join groups, as `se_keras.export.tflite` does where it can"
)
# coral.ai/docs/edgetpu/models-intro, "Supported operations".
_EDGETPU = """
    ADD AVERAGE_POOL_2D CONCATENATION CONV_2D DEPTHWISE_CONV_2D EXPAND_DIMS FULLY_CONNECTED L2_NORMALIZATION LOGISTIC
    LSTM MAXIMUM MAX_POOL_2D MEAN MINIMUM MUL PACK PAD PRELU QUANTIZE REDUCE_MAX REDUCE_MIN RELU RELU6 RELU_N1_TO_1
    RESHAPE RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR RSQRT SLICE SOFTMAX SPACE_TO_DEPTH SPLIT SQUARED_DIFFERENCE SQUEEZE
    STRIDED_SLICE SUB SUM TANH TRANSPOSE TRANSPOSE_CONV"""
EDGETPU_OPERATIONS = frozenset(_EDGETPU.split())
INTEGERS = ("INT8", "UINT8")
RIM = ("QUANTIZE", "DEQUANTIZE")  # between floats outside and integers inside


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A tensor of the graph.

    Args:
        index: Its index in the file.
        name: Its name.
        shape: Its shape, with -1 for unknown dimensions.
        dtype: Type name in the schema, such as "FLOAT32" or "INT8".
        constant: Whether the file holds its values.
    """

    index: int
    name: str
    shape: tuple[int, ...]
    dtype: str
    constant: bool


@dataclasses.dataclass(frozen=True)
class Operation:
    """An operation of the graph.

    Args:
        name: Name in the schema, such as "CONV_2D"; for a custom operation, its own name.
        custom: Whether it is not a TFLite operation. Names of TensorFlow operations begin with "Flex".
        inputs: Tensors it reads.
        outputs: Tensors it writes.
        window: Height and width of a pool, else None.
        strides: Strides along height and width of a pool or convolution, else None.
    """

    name: str
    custom: bool
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    window: tuple[int, int] | None = None
    strides: tuple[int, int] | None = None

    def activations(self) -> Iterator[Tensor]:
        """Returns its inputs and outputs that are not constant."""
        return (tensor for tensor in (*self.inputs, *self.outputs) if not tensor.constant)


@dataclasses.dataclass(frozen=True)
class TFLiteGraph:
    """The main graph of a `.tflite` file.

    Args:
        operations: Operations in execution order.
        inputs: Tensors to fill.
        outputs: Tensors to read.
    """

    operations: tuple[Operation, ...]
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]

    def counts(self) -> dict[str, int]:
        """Counts each operation, most frequent first."""
        return dict(collections.Counter(operation.name for operation in self.operations).most_common())

    def names_in_float(self) -> list[str]:
        """Returns the names of the tensors that operations compute in float; in an integer file, few or none."""
        inner = (operation for operation in self.operations if operation.name not in RIM)
        return [one.outputs[0].name for one in inner if one.outputs and one.outputs[0].dtype == "FLOAT32"]

    def dtype(self) -> str:
        """Returns the precision of the file, one of the `dtype`s of `se_keras.export.tflite`."""
        inner = [operation for operation in self.operations if operation.name not in RIM]
        flowing = {tensor.dtype for operation in inner for tensor in operation.activations()}
        stored = {tensor.dtype for operation in self.operations for tensor in operation.inputs if tensor.constant}
        weights = {tensor.dtype for operation in inner for tensor in operation.inputs if tensor.constant}
        if "INT16" in flowing:
            return "int16x8"
        if flowing & set(INTEGERS) and not _is_float_inside(inner):
            return "int8"
        if "INT8" in weights:
            return "dynamic"
        if "INT8" in stored or "INT4" in stored:
            return "int8_weights"
        return "fp16" if "FLOAT16" in stored else "fp32"


@dataclasses.dataclass(frozen=True)
class Refusal:
    """A part of a file that a target does not run, or does not run well.

    Args:
        target: A key of `TARGETS`.
        subject: The operation or tensor.
        reason: The reason.
        count: Number of occurrences.
    """

    target: str
    subject: str
    reason: str
    count: int = 1


def read_tflite(path: str | os.PathLike) -> TFLiteGraph:
    """Reads the structure of a `.tflite` file.

    Args:
        path: The file.

    Returns:
        Its main graph.

    Raises:
        FileNotFoundError: The file does not exist.
        ImportError: Neither `ai_edge_litert` nor TensorFlow is installed.
        ValueError: The file is not a TFLite model, or is damaged.
    """
    if format_of(path) != "tflite":
        raise ValueError(f"The file {os.fspath(path)!r} is not a .tflite file; it lacks TFL3 in bytes 4 to 7.")
    model = read_model(pathlib.Path(path).read_bytes(), source=path)
    with damage_reported(path):
        return graph_of(model)


def graph_of(model: Any) -> TFLiteGraph:
    """Returns the main graph of an unpacked `.tflite` file, as `tflite_file.read_model` returns it."""
    graph, schema = model.subgraphs[0], schema_module()
    names = {value: name for name, value in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
    dtypes = {value: name for name, value in vars(schema.TensorType).items() if not name.startswith("_")}
    tensors = [_tensor(index, tensor, model.buffers, dtypes) for index, tensor in enumerate(graph.tensors)]

    def operation(part: Any) -> Operation:
        code = model.operatorCodes[part.opcodeIndex]
        custom = code.customCode is not None
        options = part.builtinOptions
        pool = isinstance(options, schema.Pool2DOptionsT)
        steps = pool or isinstance(options, schema.Conv2DOptionsT)
        return Operation(
            code.customCode.decode() if custom else names[max(code.builtinCode, code.deprecatedBuiltinCode)],
            custom,
            tuple(tensors[i] for i in part.inputs if i >= 0),
            tuple(tensors[i] for i in part.outputs),
            (options.filterHeight, options.filterWidth) if pool else None,
            (options.strideH, options.strideW) if steps else None,
        )

    return TFLiteGraph(
        tuple(operation(part) for part in graph.operators),
        tuple(tensors[i] for i in graph.inputs),
        tuple(tensors[i] for i in graph.outputs),
    )


def _tensor(index: int, tensor: Any, buffers: Any, dtypes: dict[int, str]) -> Tensor:
    buffer = buffers[tensor.buffer]
    shape = tensor.shapeSignature if tensor.shapeSignature is not None else tensor.shape
    shape = () if shape is None else tuple(int(size) for size in shape)
    return Tensor(index, (tensor.name or b"").decode(errors="replace"), shape, dtypes[tensor.type], holds_data(buffer))


def _is_float_inside(operations: list[Operation]) -> bool:
    """Returns whether most of the work is done in float, as in a file with a few integer operations."""
    work = [o for o in operations if o.name in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV")]
    floats = sum(any(tensor.dtype == "FLOAT32" for tensor in operation.outputs) for operation in work)
    return 2 * floats > len(work)


def refusals(graph: TFLiteGraph) -> tuple[Refusal, ...]:
    """Lists the parts of a graph that each target does not run.

    Args:
        graph: The graph, as returned by `read_tflite`.

    Returns:
        One entry for each kind of refusal, by target; none for a target that accepts the whole file.
    """
    found = [*_cpu(graph), *_gpu(graph), *_edgetpu(graph)]
    counts = collections.Counter(found)
    return tuple(dataclasses.replace(refusal, count=count) for refusal, count in counts.items())


def _cpu(graph: TFLiteGraph) -> Iterator[Refusal]:
    for operation in graph.operations:
        if operation.custom:
            yield Refusal("cpu", operation.name, _custom_reason(operation))


def _custom_reason(operation: Operation) -> str:
    if operation.name.startswith("Flex"):
        return "is a TensorFlow operation (Flex), which LiteRT runs only when TensorFlow is linked in"
    return "is a custom operation, which the application must provide"


def _gpu(graph: TFLiteGraph) -> Iterator[Refusal]:
    yield from _open_or_batched(graph, "gpu")
    padded = {tensor for operation in graph.operations if operation.name == "PAD" for tensor in operation.outputs}
    for operation in graph.operations:
        if operation.custom:
            yield Refusal("gpu", operation.name, _custom_reason(operation))
        elif operation.name not in GPU_OPERATIONS:
            reason = GPU_REASONS.get(operation.name, "is not an operation that GPUs run")
            yield Refusal("gpu", operation.name, reason)
        elif _is_strided_point(operation) and operation.inputs[0].dtype in INTEGERS:
            yield Refusal("gpu", operation.name, GPU_STRIDED_POINT)
        elif operation.name == "AVERAGE_POOL_2D" and operation.inputs[0] in padded:
            yield Refusal("gpu", operation.name, GPU_PADDED_POOL)
        elif _has_narrow_groups(operation):
            yield Refusal("gpu", operation.name, GPU_NARROW_GROUPS)
        if any(len(tensor.shape) > 4 for tensor in operation.activations()):
            yield Refusal("gpu", operation.name, "has a tensor with more than four dimensions")
        if any(tensor.dtype == "INT16" for tensor in operation.activations()):
            yield Refusal("gpu", operation.name, "computes on 16-bit integers")


def _is_strided_point(operation: Operation) -> bool:
    if operation.name != "CONV_2D" or operation.strides is None or max(operation.strides) == 1:
        return False
    return tuple(operation.inputs[1].shape[1:3]) == (1, 1)


def _has_narrow_groups(operation: Operation) -> bool:
    if not _is_grouped(operation):
        return False
    width = operation.inputs[1].shape[-1]
    groups = operation.inputs[0].shape[-1] // width
    return bool(width % 4 or (operation.inputs[1].shape[0] // groups) % 4)


def _is_grouped(operation: Operation) -> bool:
    return operation.name == "CONV_2D" and operation.inputs[0].shape[-1] != operation.inputs[1].shape[-1]


def _edgetpu(graph: TFLiteGraph) -> Iterator[Refusal]:
    if graph.dtype() != "int8":
        reason = "does not compute on 8-bit integers throughout; export with dtype='int8'"
        yield Refusal("edgetpu", "the whole file", reason)
        return
    yield from _open_or_batched(graph, "edgetpu")
    for operation in graph.operations:
        if operation.name in RIM and _touches_rim(operation, graph):
            continue
        if operation.custom or operation.name not in EDGETPU_OPERATIONS:
            yield Refusal("edgetpu", operation.name, "is not an operation of Edge TPUs and would run on the CPU")
        elif any(tensor.dtype not in INTEGERS for tensor in operation.activations()):
            yield Refusal("edgetpu", operation.name, "does not compute on 8-bit integers")
        elif _is_grouped(operation):
            yield Refusal("edgetpu", operation.name, "is a grouped convolution")


def _touches_rim(operation: Operation, graph: TFLiteGraph) -> bool:
    return bool({*operation.inputs, *operation.outputs} & {*graph.inputs, *graph.outputs})


def _open_or_batched(graph: TFLiteGraph, target: str) -> Iterator[Refusal]:
    for tensor in graph.inputs:
        if -1 in tensor.shape:
            yield Refusal(target, tensor.name, f"leaves its shape {tensor.shape} open; export with a fixed size")
        elif tensor.shape and tensor.shape[0] != 1:
            yield Refusal(target, tensor.name, f"takes {tensor.shape[0]} images at a time; export with batch 1")
