"""ONNX export, for ONNX Runtime and other programs that read its files."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import importlib
import os
import pathlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np

from se_keras.errors import check_count, missing_package, one_of
from se_keras.export.calibration import calibration_for
from se_keras.export.conversion import converting, lacking, names_of
from se_keras.export.description import stored_properties
from se_keras.export.exportable import Format, check_export
from se_keras.export.first_layers import check_keep_float, check_names_nothing
from se_keras.export.inference_form import float32_form
from se_keras.export.inputs import Feed
from se_keras.export.model_ends import inputs_of, output_scores, packed
from se_keras.export.onnx_graph import lower_max_pools, simplify
from se_keras.export.onnx_operations import add_operations
from se_keras.export.onnx_precision import in_8_bits, in_half_precision, optimized
from se_keras.export.proof import TOLERANCES, check_file, check_opens
from se_keras.export.tensorflow_internals import self_contained
from se_keras.export.torch_internals import ready_for_export
from se_keras.files import replacing
from se_keras.native_output import native_output_held
from se_keras.progress import steps

OPSET = 18  # of 2022, the newest that tf2onnx writes; needs ONNX Runtime 1.14 or later
PER_CHANNEL = 13  # the first opset with a scale for each channel
DTYPES = ("fp32", "fp16", "int8")
FORMAT = Format("An .onnx file", ".onnx", DTYPES, needs_tensorflow=False)


@dataclasses.dataclass(frozen=True)
class Route:
    """The conversion of one backend's models to ONNX.

    Args:
        converter: The package that converts.
        extra: The extra of se_keras that installs it.
        least: The lowest opset that the converter supports.
    """

    converter: str
    extra: str
    least: int = 1


ROUTES = {
    "tensorflow": Route("tf2onnx", "onnx"),
    "jax": Route("jax2onnx", "onnx-jax", least=18),  # for opset 17, it writes nodes of 18 labeled 17
    "torch": Route("onnxscript", "onnx-torch"),
}


def onnx(
    model: keras.Model,
    path: str | os.PathLike,
    *,
    dtype: str = "fp32",
    data: Any = None,
    keep_float: Sequence[str] | None = None,
    class_names: Sequence[str] | None = None,
    opset: int = OPSET,
    overwrite: bool = False,
    verbose: str | int = "auto",
) -> pathlib.Path:
    """Writes a model as an `.onnx` file, with a dynamic batch where the backend supports it.

    The model is first converted to its deployed form (`surgery.deploy`), and half-precision policies
    to float32. Keras' own exporter does the rest: through tf2onnx on TensorFlow, jax2onnx on JAX, and
    PyTorch's exporter on Torch. The graph is then simplified, by ONNX Runtime and further, and ONNX
    Runtime runs the file once next to the model before it is moved to its path. Inputs and outputs have the
    model's dtypes in every precision.

    Args:
        model: A functional or sequential model, with any number of inputs and outputs.
        path: The file to write, ending in .onnx.
        dtype: "fp32"; "fp16": half-precision weights, half the size, and computation where the runtime has it;
            "int8": weights, per channel, and activations in 8 bits, as pairs of QuantizeLinear and DequantizeLinear.
        data: For "int8": at least 100 different images like those the model will see, as in `tflite`. At most 100 are
            used.
        keep_float: For "int8". By default, the first layers stay in float if a swish or hard swish follows the first
            convolution. Pass an empty list to quantize them, for accelerators that compute only integers; the
            normalization and the final softmax stay in float anyway.
        class_names: Class names in the order of the outputs; two names for a single sigmoid or logit.
            Default: the model's own, if it has any.
        opset: ONNX opset, at most 18 on TensorFlow, and at least 18 on JAX.
        overwrite: Whether to replace an existing ONNX model.
        verbose: "auto" or 1 to show a progress bar, 0 to show nothing.

    Returns:
        The file. An input of images is named "images", and others as in Keras; a single output is named "output_0".
        Its metadata properties are "model", "dtype", "output" (a key of `se_keras.scores.SIGNATURES`), "input" (size,
        crop, and range as JSON), and, if there are any, "class_names", a JSON list.

    Raises:
        FileExistsError: The file exists, and `overwrite` is False or it is not an ONNX model.
        FileNotFoundError: `data` names a folder or file that does not exist.
        ImportError: The extra "onnx", on JAX "onnx-jax", on Torch "onnx-torch", is not installed.
        ValueError: `path` does not end in .onnx; the model takes text or has a vocabulary, or is subclassed, not built,
            or quantized by Keras; `class_names` do not fit the outputs or are the model's own in another order; ONNX
            lacks an operation, or the converter fails (the message names the layer); the opset is not supported; `data`
            is missing or has too few different images; `keep_float` is neither None nor an empty list; or the file's
            outputs differ from the model's.
    """
    path = pathlib.Path(path)
    check_export(model, path, FORMAT, dtype=dtype)
    check_keep_float(keep_float, dtype)
    check_names_nothing(keep_float, FORMAT.what)
    properties = stored_properties(model, dtype, class_names)
    route = ROUTES[one_of("backend to write an .onnx file on", keras.backend.backend(), ROUTES)]
    opset = check_count("opset", opset)
    if opset < route.least:
        raise ValueError(
            f"On {keras.backend.backend()}, `opset` must be at least {route.least}, because {route.converter} does not "
            f"support earlier opsets; received opset={opset}."
        )
    if dtype == "int8" and opset < PER_CHANNEL:
        raise ValueError(f"dtype='int8' needs an `opset` of at least {PER_CHANNEL}; received opset={opset}.")
    _require(route)
    with replacing(path, overwrite=overwrite) as target:
        feed = _typed(calibration_for(model, data), model) if dtype == "int8" else None
        with (
            converting(model, FORMAT.what),
            steps(f"Writing {path}", 4, verbose=verbose) as advance,
        ):
            _, deployed = float32_form(model)
            advance()
            content = _converted(deployed, opset)
            advance()
            if dtype == "fp16":
                content = in_half_precision(content)
            if feed is not None:
                content = in_8_bits(content, feed, keep_float)
            _save(content, target, properties)
            advance()
            if dtype == "fp16":  # ONNX Runtime crashes on some operations between casts
                check_opens(target)
            check_file(target, deployed, tolerance=TOLERANCES[dtype], feed=feed)
            advance()
    return path


def _typed(feed: Feed, model: keras.Model) -> Feed:
    """Returns samples in the dtypes of the inputs, which ONNX Runtime does not convert, such as pixels in integers."""
    pairs = zip(feed.items(), inputs_of(model), strict=True)
    return {
        name: np.rint(values).astype(one.dtype) if one.dtype.startswith(("int", "uint")) else values
        for (name, values), one in pairs
    }


def _converted(model: keras.Model, opset: int) -> Any:
    """Converts a model, and returns the simplified `onnx.ModelProto`."""
    inputs, batch = inputs_of(model), model.inputs[0].shape[0]
    specs = [keras.InputSpec(shape=(batch, *one.shape), dtype=one.dtype, name=one.name) for one in inputs]
    signature = specs if len(specs) == 1 else [packed(model, specs)]
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "model.onnx")
        ready = ready_for_export() if keras.backend.backend() == "torch" else contextlib.nullcontext()
        with native_output_held(), _garbage_collected(), ready:
            source = _for_tf2onnx(model) if keras.backend.backend() == "tensorflow" else model
            source.export(os.fspath(path), format="onnx", verbose=False, input_signature=signature, opset_version=opset)
        _repair(path)
        _check_operations(path, model)
        content = optimized(path)
    simplify(content)
    _name_ends(content.graph, [one.name for one in inputs], list(output_scores(model)))
    return content


@contextlib.contextmanager
def _garbage_collected() -> Iterator[None]:
    """Collects garbage often: each of tf2onnx's optimizers copies the graph, with the weights, in reference cycles."""
    before, is_frozen = gc.get_threshold(), gc.get_freeze_count() > 0
    gc.collect()
    if not is_frozen:  # the program would lose what it froze itself
        gc.freeze()  # or Python waits until the garbage is a quarter of all objects
    gc.set_threshold(700, 10, 1)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        if not is_frozen:
            gc.unfreeze()


def _for_tf2onnx(model: keras.Model) -> keras.Model:
    """Returns a model whose graph contains all tensors, because tf2onnx mistakes those that layers hold for inputs.

    The mean and variance of `keras.layers.Normalization` are such tensors.
    """
    import tensorflow as tf

    add_operations()
    named, batch = inputs_of(model), model.inputs[0].shape[0]

    def answers(*values: Any) -> list[Any]:
        return keras.tree.flatten(model(packed(model, values), training=False))

    graph = self_contained(answers, [tf.TensorSpec((batch, *one.shape), one.dtype) for one in named])
    inputs = [keras.Input(one.shape, batch, one.dtype, name=one.name) for one in named]
    return keras.Model(packed(model, inputs), _Computed(graph, model.outputs)(inputs), name=model.name)


class _Computed(keras.layers.Layer):
    """A layer that calls a function, whose results are like the given tensors."""

    def __init__(self, function: Callable[..., Any], like: Sequence[Any]) -> None:
        super().__init__(dtype="float32")  # a policy of half precision would round its inputs
        self.function = function
        self.like = [keras.KerasTensor(one.shape, one.dtype) for one in like]

    def call(self, inputs: Sequence[Any]) -> Any:
        return self.function(*inputs)

    def compute_output_spec(self, inputs: Sequence[Any]) -> list[Any]:
        return self.like


def _require(route: Route) -> None:
    for package in ("onnx", "onnxruntime", route.converter):
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise missing_package(package, route.extra, "Writing an .onnx file") from error


def _repair(path: pathlib.Path) -> None:
    """Moves the weights that a converter writes next to a model into its file, and rewrites what no runtime takes."""
    onnx = importlib.import_module("onnx")
    is_whole = len(os.listdir(path.parent)) == 1
    content = onnx.load(os.fspath(path))
    if lower_max_pools(content) or not is_whole:
        onnx.save(content, os.fspath(path))


def _check_operations(path: pathlib.Path, model: keras.Model) -> None:
    """Rejects a file with operations that ONNX does not have, which tf2onnx writes unchanged."""
    onnx = importlib.import_module("onnx")
    content = onnx.load(os.fspath(path))
    own = {function.name for function in content.functions}
    foreign = [node for node in _nodes(content.graph) if node.op_type not in own and not _is_known(node)]
    if foreign:
        raise lacking("ONNX", [node.op_type for node in foreign], model, names_of(foreign))


def _nodes(graph: Any) -> Iterator[Any]:
    """Yields the nodes of a graph, including those inside loops and branches."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _nodes(inner)


def _is_known(node: Any) -> bool:
    return importlib.import_module("onnx").defs.has(node.op_type, node.domain)


def _name_ends(graph: Any, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    """Names inputs, outputs, and batch as in the other exports; converters number them, in the order of the model."""
    for ends, names in ((graph.output, outputs), (graph.input, inputs)):
        if {end.name for end in ends} == set(names):
            continue
        for number, end in enumerate(ends):
            _rename(graph, end.name, f"renamed_{names[number]}")
        for end in ends:
            _rename(graph, end.name, end.name.removeprefix("renamed_"))
    for value in (*graph.input, *graph.output):
        batch = value.type.tensor_type.shape.dim[0]
        if not batch.HasField("dim_value"):
            batch.dim_param = "batch"


def _save(content: Any, path: pathlib.Path, properties: dict[str, str]) -> None:
    onnx = importlib.import_module("onnx")
    onnx.helper.set_model_props(content, properties)
    onnx.save(content, os.fspath(path))


def _rename(graph: Any, old: str, new: str) -> None:
    for value in (*graph.input, *graph.output):
        value.name = new if value.name == old else value.name
    for node in graph.node:
        node.input[:] = [new if name == old else name for name in node.input]
        node.output[:] = [new if name == old else name for name in node.output]
