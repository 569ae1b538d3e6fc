"""ONNX Runtime. Nothing here imports Keras."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from se_keras.errors import missing_package
from se_keras.export.inputs import input_of_file
from se_keras.export.runner import StatingRunner, check_inputs
from se_keras.export.stated import answer_among
from se_keras.scores import kinds_stated


class OnnxRunner(StatingRunner):
    """An `.onnx` file in ONNX Runtime on the CPU.

    Args:
        path: The file.
        threads: CPU threads, at least 1.

    Raises:
        ImportError: `onnxruntime` is not installed.
        ValueError: The file is not an ONNX model, or the runtime refuses it.
    """

    def __init__(self, path: str | os.PathLike, *, threads: int = 1) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise missing_package("onnxruntime", "onnx", "Running an .onnx file") from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        try:
            self.session = onnxruntime.InferenceSession(os.fspath(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its exceptions have no common base class
            raise ValueError(f"ONNX Runtime cannot run {os.fspath(path)!r}: {error}") from error
        inputs = self.session.get_inputs()
        check_inputs(path, [_onnx_dtype(one.type) for one in inputs])
        shapes = [tuple(size if isinstance(size, int) else None for size in one.shape) for one in inputs]
        self.inputs = tuple(
            input_of_file(one.name, shape[1:], _onnx_dtype(one.type)) for one, shape in zip(inputs, shapes, strict=True)
        )
        self.batch = shapes[0][0] if shapes[0] else None
        self.outputs = tuple(output.name for output in self.session.get_outputs())
        self.answer = answer_among(self.outputs)
        self.stated = self.session.get_modelmeta().custom_metadata_map
        self.kinds = kinds_stated(self.stated.get("output"), self.outputs)

    def run_one(self, values: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Runs a batch; arguments and result as in `Runner.run_one`."""
        pairs = zip(self.inputs, values, strict=True)
        feed = {one.name: np.ascontiguousarray(value, dtype=one.dtype) for one, value in pairs}
        return [np.asarray(answer, "float32") for answer in self.session.run(list(self.outputs), feed)]


def _onnx_dtype(type_name: str) -> str:
    """Returns the NumPy dtype for a type of ONNX Runtime, such as "tensor(float)"."""
    inner = type_name[len("tensor(") : -1] if type_name.startswith("tensor(") else type_name
    return {"float": "float32", "double": "float64"}.get(inner, inner)
