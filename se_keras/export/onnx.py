"""ONNX: for ONNX Runtime and the many programs that read its files."""

from __future__ import annotations

import importlib
import os
import pathlib
from typing import Any

import keras

from se_keras.errors import missing_package
from se_keras.export.inference_form import inference_form
from se_keras.files import replacing
from se_keras.native_output import native_output_held
from se_keras.surgery import in_float32

OPSET = 17  # of 2022: ONNX Runtime 1.12 and later; from 18 on the squeeze is no GlobalAveragePool any more
CONVERTERS = {"tensorflow": "tf2onnx", "jax": "jax2onnx", "torch": "torch"}


def onnx(model: keras.Model, path: str | os.PathLike, *, opset: int = OPSET, overwrite: bool = False) -> pathlib.Path:
    """Writes a model as an `.onnx` file, float32, with a dynamic batch where the backend allows.

    The model is brought into its inference form first (`surgery.deploy`), half-precision policies
    into float32. Keras' own exporter does the rest: through tf2onnx on TensorFlow, jax2onnx on JAX, and
    PyTorch's exporter on Torch.

    Args:
        model: A functional or sequential model with one input.
        path: The file to write, ending in .onnx.
        opset: ONNX's operation set; tf2onnx knows those up to 18.
        overwrite: Whether an existing file is replaced.

    Returns:
        The file. Its input is named "images", its output "output_0".

    Raises:
        FileExistsError: The file exists and `overwrite` is False.
        ImportError: The extra "onnx" is not installed.
        ValueError: Another ending, several inputs, or an operation set that is not known.
    """
    path = pathlib.Path(path)
    if path.suffix != ".onnx":
        raise ValueError(f"`path` must end in .onnx; received {os.fspath(path)!r}.")
    if len(model.inputs) != 1:
        raise ValueError(f"Only models of one input are exported; {model.name!r} has {len(model.inputs)}.")
    _require(CONVERTERS.get(keras.backend.backend(), "tf2onnx"))
    deployed = inference_form(in_float32(model))
    images = deployed.inputs[0]
    spec = keras.InputSpec(shape=images.shape, dtype=keras.backend.standardize_dtype(images.dtype), name="images")
    with replacing(path, overwrite=overwrite) as target:
        with native_output_held():
            deployed.export(
                os.fspath(target), format="onnx", verbose=False, input_signature=[spec], opset_version=opset
            )
        _name_the_rim(target)
    return path


def _require(converter: str) -> None:
    for package in ("onnx", converter):
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise missing_package(package, "onnx", "Writing an .onnx file") from error


def _name_the_rim(path: pathlib.Path) -> None:
    """Gives input, output and batch the names that the other exports give them; the converters number them."""
    onnx = importlib.import_module("onnx")
    model = onnx.load(os.fspath(path))
    graph = model.graph
    for number, output in enumerate(graph.output):
        _rename(graph, output.name, f"output_{number}")
    _rename(graph, graph.input[0].name, "images")
    for value in (*graph.input, *graph.output):
        batch = value.type.tensor_type.shape.dim[0]
        if not batch.HasField("dim_value"):
            batch.dim_param = "batch"
    onnx.save(model, os.fspath(path))


def _rename(graph: Any, old: str, new: str) -> None:
    for value in (*graph.input, *graph.output):
        value.name = new if value.name == old else value.name
    for node in graph.node:
        node.input[:] = [new if name == old else name for name in node.input]
        node.output[:] = [new if name == old else name for name in node.output]
