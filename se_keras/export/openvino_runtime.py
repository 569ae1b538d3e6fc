"""OpenVINO's models: `.xml` files with their weights in a `.bin` file next to them."""

from __future__ import annotations

import collections
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from se_keras.errors import missing_package
from se_keras.export.inputs import input_of_file
from se_keras.export.runner import StatingRunner
from se_keras.export.stated import answer_among
from se_keras.file_kinds import damaged
from se_keras.native_output import native_output_held
from se_keras.scores import kinds_stated

SECTION = "se_keras"  # of the information that a model stores about itself


def openvino_module(purpose: str) -> Any:
    """Imports OpenVINO.

    Args:
        purpose: What needs it, as a noun phrase.

    Returns:
        The module `openvino`.

    Raises:
        ImportError: It is not installed.
    """
    try:
        import openvino
    except ImportError as error:
        raise missing_package("openvino", "openvino", purpose) from error
    return openvino


def read_openvino(path: str | os.PathLike) -> Any:
    """Reads an `.xml` file and its weights.

    Args:
        path: The `.xml` file.

    Returns:
        An `openvino.Model`.

    Raises:
        ImportError: OpenVINO is not installed.
        ValueError: The file is damaged, or its `.bin` file is missing.
    """
    openvino = openvino_module("Reading an OpenVINO model")
    weights = pathlib.Path(path).with_suffix(".bin")
    if not weights.is_file():
        raise ValueError(f"The weights of {os.fspath(path)!r} are missing: {weights.name!r} must be next to it.")
    try:
        with native_output_held():
            return openvino.Core().read_model(os.fspath(path), os.fspath(weights))
    except RuntimeError as error:
        raise damaged(path, "OpenVINO model", error, containers=(_XML,)) from error


_XML = "an XML document, as servers send instead of a file that they cannot provide"


class OpenVinoRunner(StatingRunner):
    """An `.xml` file in OpenVINO on the CPU, which computes in float32 where the file does.

    OpenVINO's default on newer CPUs is bfloat16, whose results differ in the second digit.

    Args:
        path: The file; its `.bin` file must be next to it.
        threads: CPU threads, at least 1.

    Raises:
        ImportError: `openvino` is not installed.
        ValueError: The file is not an OpenVINO model, or the runtime refuses it.
    """

    def __init__(self, path: str | os.PathLike, *, threads: int = 1) -> None:
        model = read_openvino(path)
        settings = {"INFERENCE_NUM_THREADS": threads, "EXECUTION_MODE_HINT": "ACCURACY", "PERFORMANCE_HINT": "LATENCY"}
        try:
            with native_output_held():
                compiled = openvino_module("Running an OpenVINO model").Core().compile_model(model, "CPU", settings)
        except RuntimeError as error:
            raise ValueError(f"OpenVINO cannot run {os.fspath(path)!r}: {error}") from error
        self.request = compiled.create_infer_request()
        self.inputs = tuple(
            input_of_file(output_name(one), _sizes(one)[1:], np.dtype(one.element_type.to_dtype()).name)
            for one in model.inputs
        )
        self.batch = _sizes(model.inputs[0])[0]
        self.outputs = tuple(output_name(output) for output in model.outputs)
        self.ports = compiled.outputs
        self.answer = answer_among(self.outputs)
        self.stated = stored_information(model)
        self.kinds = kinds_stated(self.stated.get("output"), self.outputs)

    def run_one(self, values: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Runs a batch; arguments and result as in `Runner.run_one`."""
        pairs = zip(self.inputs, values, strict=True)
        found = self.request.infer([np.ascontiguousarray(value, dtype=one.dtype) for one, value in pairs])
        return [np.array(found[port], "float32") for port in self.ports]


def stored_information(model: Any) -> dict[str, str]:
    """Returns what `export.openvino` has stored in a model's `rt_info`.

    Args:
        model: An `openvino.Model`.

    Returns:
        Text by name; {} for a model from elsewhere.
    """
    if not model.has_rt_info([SECTION]):
        return {}
    return {name: str(value) for name, value in model.get_rt_info([SECTION]).value.items()}


def facts_of(path: str | os.PathLike) -> dict[str, Any]:
    """Reads the fields of a `Structure` from an `.xml` file.

    Args:
        path: The file.

    Returns:
        Its dtype, inputs, outputs, and operations.

    Raises:
        ImportError: As in `read_openvino`.
        ValueError: As in `read_openvino`.
    """
    model = read_openvino(path)
    names = [operation.get_type_name() for operation in model.get_ops()]
    weights = {str(op.get_element_type().to_string()) for op in model.get_ops() if op.get_type_name() == "Constant"}
    counts = collections.Counter(name for name in names if name not in ("Constant", "Parameter", "Result"))
    return {
        "dtype": "int8" if "FakeQuantize" in names else "fp16" if "f16" in weights else "fp32",
        "inputs": tuple(map(_described, model.inputs)),
        "outputs": tuple(map(_described, model.outputs)),
        "operations": dict(counts.most_common()),
    }


def output_name(port: Any) -> str:
    """Returns the name of an input or output; "" if it has none."""
    return min(port.get_names(), default="")


def _sizes(port: Any) -> tuple[int | None, ...]:
    return tuple(None if size.is_dynamic else size.get_length() for size in port.get_partial_shape())


def _described(port: Any) -> str:
    shape = ", ".join("any" if size is None else str(size) for size in _sizes(port))
    return f"{output_name(port)} ({shape}) {port.get_element_type().to_dtype()}"
