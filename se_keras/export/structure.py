"""Structure of exported files, read without running them, in one record for all formats."""

from __future__ import annotations

import collections
import dataclasses
import os
import pathlib
from typing import Any

from se_keras.errors import missing_package
from se_keras.export.inspect_tflite import Refusal, TFLiteGraph, read_tflite, refusals
from se_keras.export.runtime import format_of
from se_keras.export.stated import answer_among
from se_keras.file_kinds import damaged


@dataclasses.dataclass(frozen=True, kw_only=True)
class Structure:
    """The structure of an exported model.

    Args:
        format: "saved_model", "tflite", "onnx", "openvino", or "keras".
        dtype: Precision, one of the `dtype`s of `se_keras.export.tflite`; "bf16" for a SavedModel that computes in
            bfloat16.
        inputs: Name, shape, and dtype of each input as text.
        outputs: The same for each output.
        operations: Number of occurrences of each operation, most frequent first.
        in_float: Tensors that an integer `.tflite` file computes in float.
        opset: The opset of an ONNX file, else None.
        refusals: Parts that a target does not run.
        graph: The graph of a `.tflite` file, else None.
    """

    format: str
    dtype: str = "fp32"
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    operations: dict[str, int] = dataclasses.field(default_factory=dict)
    in_float: tuple[str, ...] = ()
    opset: int | None = None
    refusals: tuple[Refusal, ...] = ()
    graph: TFLiteGraph | None = None


def structure_of(path: str | os.PathLike) -> Structure:
    """Reads the structure of an exported file or folder.

    Args:
        path: A `.tflite`, `.onnx`, `.xml` (OpenVINO), or `.keras` file, or a SavedModel folder.

    Returns:
        A `Structure`; for a `.keras` file, only its format.

    Raises:
        FileNotFoundError: `path` does not exist.
        ImportError: The package that reads the format is not installed.
        ValueError: It is none of these, or damaged.
    """
    readers = {"tflite": _of_tflite, "onnx": _of_onnx, "openvino": _of_openvino, "saved_model": _of_saved_model}
    form = format_of(path)
    return readers[form](path) if form in readers else Structure(format=form)


def size_of(path: str | os.PathLike) -> int:
    """Returns the size in bytes of a file, of all files in a folder, or of an OpenVINO model and its weights."""
    path = pathlib.Path(path)
    if path.suffix == ".xml":
        return path.stat().st_size + path.with_suffix(".bin").stat().st_size
    return sum(part.stat().st_size for part in path.rglob("*") if part.is_file()) or path.stat().st_size


def _of_tflite(path: str | os.PathLike) -> Structure:
    graph = read_tflite(path)

    def described(tensors: Any) -> tuple[str, ...]:
        return tuple(f"{tensor.name} {_shape(tensor.shape)} {tensor.dtype.lower()}" for tensor in tensors)

    try:
        return Structure(
            format="tflite",
            dtype=graph.dtype(),
            inputs=described(graph.inputs),
            outputs=described(graph.outputs),
            operations=graph.counts(),
            in_float=tuple(graph.names_in_float()) if graph.dtype() in ("int8", "int16x8") else (),
            refusals=refusals(graph),
            graph=graph,
        )
    except (IndexError, KeyError, TypeError, ValueError, AttributeError) as error:  # operations without their tensors
        raise damaged(path, "TFLite model", error) from error


def _of_onnx(path: str | os.PathLike) -> Structure:
    try:
        import onnx
    except ImportError as error:
        raise missing_package("onnx", "onnx", "Reading an .onnx file") from error
    try:
        model = onnx.load(os.fspath(path), load_external_data=False)
    except Exception as error:  # protobuf's own errors have no public class
        raise damaged(path, "ONNX model", error) from error

    def described(values: Any) -> tuple[str, ...]:
        return tuple(_onnx_value(value, onnx) for value in values)

    names = [node.op_type for node in model.graph.node]
    own = {"", "ai.onnx", "ai.onnx.ml"}
    foreign = collections.Counter(node.op_type for node in model.graph.node if node.domain not in own)
    dtypes = {tensor.data_type for tensor in model.graph.initializer}
    dtype = "fp16" if onnx.TensorProto.FLOAT16 in dtypes else "fp32"
    return Structure(
        format="onnx",
        dtype="int8" if {"QuantizeLinear", "DynamicQuantizeLinear"} & set(names) else dtype,
        inputs=described(model.graph.input),
        outputs=described(model.graph.output),
        operations=dict(collections.Counter(names).most_common()),
        opset=next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), None),
        refusals=tuple(
            Refusal("cpu", name, "is not a standard ONNX operation", count) for name, count in foreign.items()
        ),
    )


def _onnx_value(value: Any, onnx: Any) -> str:
    tensor = value.type.tensor_type
    shape = tuple(size.dim_value if size.HasField("dim_value") else -1 for size in tensor.shape.dim)
    dtype = onnx.TensorProto.DataType.Name(tensor.elem_type).lower()
    return f"{value.name} {_shape(shape)} {'float32' if dtype == 'float' else dtype}"


def _of_openvino(path: str | os.PathLike) -> Structure:
    from se_keras.export.openvino_runtime import facts_of

    return Structure(format="openvino", **facts_of(path))


def _of_saved_model(path: str | os.PathLike) -> Structure:
    try:
        import tensorflow as tf
        from tensorflow.core.protobuf import saved_model_pb2
    except ImportError as error:
        raise missing_package("tensorflow", "tensorflow", "Reading a SavedModel") from error
    content = (pathlib.Path(path) / "saved_model.pb").read_bytes()
    try:
        meta = saved_model_pb2.SavedModel.FromString(content).meta_graphs[0]
    except Exception as error:  # protobuf's own errors have no public class
        raise damaged(pathlib.Path(path) / "saved_model.pb", "SavedModel", error) from error

    def described(tensors: Any) -> tuple[str, ...]:
        return tuple(
            f"{name} {_shape(tuple(size.size for size in info.tensor_shape.dim))} {tf.as_dtype(info.dtype).name}"
            for name, info in sorted(tensors.items())
        )

    signature = meta.signature_def["serving_default"]
    nodes = [node for function in meta.graph_def.library.function for node in function.node_def]
    half = {tf.float16.as_datatype_enum: "fp16", tf.bfloat16.as_datatype_enum: "bf16"}
    precisions = (half[node.attr["T"].type] for node in nodes if node.op in MULTIPLYING and node.attr["T"].type in half)
    compiled = sum(function.attr["_XlaMustCompile"].b for function in meta.graph_def.library.function)
    reason = "must be compiled by XLA; a server without it refuses the model"
    counted = collections.Counter(node.op for node in nodes if node.op in COMPUTING)
    outputs = dict(signature.outputs)
    chosen = {answer_among(list(outputs)): None} if outputs else {}
    return Structure(
        format="saved_model",
        dtype=next(precisions, "fp32"),
        inputs=described(signature.inputs),
        outputs=described({name: outputs[name] for name in [*chosen, *outputs]}),
        operations=dict(counted.most_common()),
        refusals=(Refusal("serving", "a function", reason, compiled),) if compiled else (),
    )


# Operations of a SavedModel that compute, in any of its functions; the others are bookkeeping.
_COMPUTING = """
    Add AddV2 AvgPool BatchMatMulV2 BiasAdd Conv2D ConcatV2 DepthwiseConv2dNative FusedBatchNormV3 MatMul MaxPool
    Mean Mul Pad PadV2 Relu Relu6 Sigmoid Softmax Sub Tanh Transpose"""
COMPUTING = frozenset(_COMPUTING.split())
# Those that multiply by weights: their dtype is the precision of the file.
MULTIPLYING = frozenset({"BatchMatMulV2", "Conv2D", "Conv3D", "DepthwiseConv2dNative", "Einsum", "MatMul"})


def _shape(sizes: tuple[int, ...]) -> str:
    return "(" + ", ".join("any" if size < 0 else str(size) for size in sizes) + ")"
