"""ONNX export, for ONNX Runtime and other programs that read its files."""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import keras

from se_keras.class_names import class_names_for
from se_keras.errors import check_count, missing_package, one_of
from se_keras.export.exportable import check_numbers_only, layers_in_text
from se_keras.export.inference_form import float32_form
from se_keras.files import replacing
from se_keras.native_output import native_output_held
from se_keras.progress import steps
from se_keras.surgery.outputs import scores_of

OPSET = 17  # of 2022: ONNX Runtime 1.12 and later; from 18 on, the squeeze is no longer a GlobalAveragePool


@dataclasses.dataclass(frozen=True)
class Route:
    """The conversion of one backend's models to ONNX.

    Args:
        converter: The package that converts.
        extra: The extra of se_keras that installs it.
        opset: The default opset.
        least: The lowest opset that the converter supports.
    """

    converter: str
    extra: str
    opset: int = OPSET
    least: int = 1


ROUTES = {
    "tensorflow": Route("tf2onnx", "onnx"),
    "jax": Route("jax2onnx", "onnx-jax", opset=18, least=18),  # for opset 17, it writes nodes of 18 labeled 17
    "torch": Route("onnxscript", "onnx-torch"),
}


def onnx(
    model: keras.Model,
    path: str | os.PathLike,
    *,
    class_names: Sequence[str] | None = None,
    opset: int | None = None,
    overwrite: bool = False,
    verbose: str | int = "auto",
) -> pathlib.Path:
    """Writes a model as an `.onnx` file in float32, with a dynamic batch where the backend supports it.

    The model is first converted to its deployed form (`surgery.deploy`), and half-precision policies
    to float32. Keras' own exporter does the rest: through tf2onnx on TensorFlow, jax2onnx on JAX, and
    PyTorch's exporter on Torch.

    Args:
        model: A functional or sequential model with one input.
        path: The file to write, ending in .onnx.
        class_names: Class names in the order of the outputs; two names for a single sigmoid or logit.
            Default: the model's own, if it has any.
        opset: ONNX opset. Default: 17, or 18 on JAX, the lowest there; tf2onnx supports at most 18.
        overwrite: Whether to replace an existing ONNX model.
        verbose: "auto" or 1 to show a progress bar, 0 to show nothing.

    Returns:
        The file. Its input is named "images", its output "output_0". Its metadata properties are
        "output", a key of `se_keras.scores.SIGNATURES`, and with `class_names` "class_names", a JSON list.

    Raises:
        FileExistsError: The file exists, and `overwrite` is False or it is not an ONNX model.
        ImportError: The extra "onnx", on JAX "onnx-jax", on Torch "onnx-torch", is not installed.
        ValueError: `path` does not end in .onnx; the model has several inputs or a vocabulary, or is subclassed, not
            built, or quantized by Keras; `class_names` do not fit the outputs; ONNX lacks an operation; or the opset is
            not supported.
    """
    path = pathlib.Path(path)
    if path.suffix != ".onnx":
        raise ValueError(f"`path` must end in .onnx; received {os.fspath(path)!r}.")
    check_numbers_only(model, "An .onnx file")
    if len(model.inputs) != 1:
        raise ValueError(f"A model to export must have one input; {model.name!r} has {len(model.inputs)}.")
    scores = scores_of(model)
    properties = {"output": scores.kind}
    class_names = class_names_for(model, class_names, scores.classes)
    if class_names is not None:
        properties["class_names"] = json.dumps(class_names)
    route = ROUTES[one_of("backend to write an .onnx file on", keras.backend.backend(), ROUTES)]
    opset = route.opset if opset is None else check_count("opset", opset)
    if opset < route.least:
        raise ValueError(
            f"On {keras.backend.backend()} `opset` must be at least {route.least}, because {route.converter} does not "
            f"support earlier opsets; received opset={opset}."
        )
    _require(route)
    with steps(f"Writing {path}", 3, verbose=verbose) as advance, replacing(path, overwrite=overwrite) as target:
        _, deployed = float32_form(model)
        advance()
        images = deployed.inputs[0]
        spec = keras.InputSpec(shape=images.shape, dtype=keras.backend.standardize_dtype(images.dtype), name="images")
        with native_output_held():
            deployed.export(
                os.fspath(target), format="onnx", verbose=False, input_signature=[spec], opset_version=opset
            )
        advance()
        _check_operations(target, deployed)
        _complete(target, properties)
        advance()
    return path


def _require(route: Route) -> None:
    for package in ("onnx", route.converter):
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise missing_package(package, route.extra, "Writing an .onnx file") from error


def _check_operations(path: pathlib.Path, model: keras.Model) -> None:
    """Rejects a file with operations that ONNX does not have, which tf2onnx writes unchanged."""
    onnx = importlib.import_module("onnx")
    content = onnx.load(os.fspath(path))
    own = {function.name for function in content.functions}
    foreign = [node for node in _nodes(content.graph) if node.op_type not in own and not _is_known(node)]
    if foreign:
        names = ", ".join(sorted({node.op_type for node in foreign}))
        text = " ".join(f"/{node.name}/" for node in foreign)
        raise ValueError(
            f"ONNX has no operation for: {names}{layers_in_text(model, text)}. Replace the layer that uses them, or "
            "make a keras.Model that begins after it."
        )


def _nodes(graph: Any) -> Iterator[Any]:
    """Yields the nodes of a graph, including those inside loops and branches."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _nodes(inner)


def _is_known(node: Any) -> bool:
    return importlib.import_module("onnx").defs.has(node.op_type, node.domain)


def _complete(path: pathlib.Path, properties: dict[str, str]) -> None:
    """Adds properties, and names input, output, and batch as in the other exports; converters number them."""
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
    onnx.helper.set_model_props(model, properties)
    onnx.save(model, os.fspath(path))


def _rename(graph: Any, old: str, new: str) -> None:
    for value in (*graph.input, *graph.output):
        value.name = new if value.name == old else value.name
    for node in graph.node:
        node.input[:] = [new if name == old else name for name in node.input]
        node.output[:] = [new if name == old else name for name in node.output]
