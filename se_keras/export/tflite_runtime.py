"""LiteRT: `.tflite` files on the CPU and on a GPU."""

from __future__ import annotations

import os
import pathlib
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from se_keras.errors import missing_package, one_of
from se_keras.export.inputs import Feed, Input, input_of_file
from se_keras.export.runner import Runner
from se_keras.export.stated import answer_among, facts_stated
from se_keras.export.tensorflow_internals import interpreter_module
from se_keras.export.tflite_file import dequantized, quantized
from se_keras.native_output import native_output_held
from se_keras.scores import kinds_described


class TFLiteRunner(Runner):
    """A `.tflite` file on the CPU. Quantized inputs and outputs are converted from and to floats.

    Args:
        path: The file.
        threads: CPU threads, at least 1.
        kernels: "default" (XNNPACK where possible), or "reference": TFLite's own kernels, with
            every tensor readable afterwards.

    Raises:
        ImportError: Neither `ai_edge_litert` nor TensorFlow is installed.
        RuntimeError: The runtime refuses the model.
        ValueError: The file is not a TFLite model.
    """

    def __init__(self, path: str | os.PathLike, *, threads: int = 1, kernels: str = "default") -> None:
        module = interpreter_module()
        plain: dict[str, Any] = {}
        if one_of("kernels", kernels, ("default", "reference")) == "reference":
            plain = {
                "experimental_op_resolver_type": module.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
                "experimental_preserve_all_tensors": True,
            }
        with native_output_held():
            self.interpreter = module.Interpreter(model_path=os.fspath(path), num_threads=threads, **plain)
            self.interpreter.allocate_tensors()
        self.ends, self._path = _tflite_ends(self.interpreter), pathlib.Path(path)
        _describe(self, self.ends, path)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Returns the names in the file's metadata."""
        return names_in_tflite(self._path)

    @property
    def resizing(self) -> Mapping[str, Any]:
        """Returns what the description next to the file states."""
        return input_beside_tflite(self._path)

    def run_one(self, values: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Runs a batch of the model's own size; arguments and result as in `Runner.run_one`."""
        self.invoke(values)
        return [dequantized(self.interpreter.get_tensor(one["index"]), one) for one in self.ends[1].values()]

    def invoke(self, values: Sequence[np.ndarray]) -> None:
        """Runs a batch as `run_one` does, and leaves the outputs to the interpreter."""
        for tensor, value in zip(self.ends[0].values(), values, strict=True):
            self.interpreter.set_tensor(tensor["index"], quantized(value, tensor))
        self.interpreter.invoke()


def names_in_tflite(path: str | os.PathLike) -> tuple[str, ...]:
    """Returns the class names in the metadata of a `.tflite` file; () if it has none."""
    from se_keras.export.metadata import read_metadata

    metadata = read_metadata(pathlib.Path(path).read_bytes())
    return () if metadata is None else metadata.class_names


def input_beside_tflite(path: str | os.PathLike) -> dict[str, Any]:
    """Returns what the description next to a `.tflite` file states about a single input; {} if it does not."""
    beside = pathlib.Path(path).with_suffix(".json")
    stated = facts_stated(beside.read_text("utf-8", "replace")) if beside.is_file() else {}
    return stated["input"] if isinstance(stated.get("input"), dict) else {}


def outputs_of(content: bytes, batches: Sequence[Feed]) -> list[np.ndarray]:
    """Runs a `.tflite` file in memory.

    Args:
        content: The content of the file.
        batches: Batches of the file's size.

    Returns:
        Its outputs in the order of their names, in float32.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "model.tflite")
        path.write_bytes(content)
        runner = TFLiteRunner(path, threads=os.cpu_count() or 1)
        parts = [runner.run(batch) for batch in batches]
        return [np.concatenate([part[name] for part in parts]) for name in sorted(parts[0])]


TFLiteEnds = tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]


def _tflite_ends(interpreter: Any) -> TFLiteEnds:
    """Returns the details of inputs and outputs by their names in the signature, or else by those of the tensors."""
    ends = interpreter.get_input_details(), interpreter.get_output_details()
    signatures = interpreter.get_signature_list()
    if len(signatures) != 1:
        return {one["name"]: one for one in ends[0]}, {one["name"]: one for one in ends[1]}
    runner = interpreter.get_signature_runner()
    named = runner.get_input_details(), runner.get_output_details()
    names = [{detail["index"]: name for name, detail in details.items()} for details in named]
    inputs, outputs = ({names[i].get(one["index"], one["name"]): one for one in ends[i]} for i in (0, 1))
    return inputs, outputs


def _describe(runner: Runner, ends: TFLiteEnds, path: str | os.PathLike) -> None:
    """Sets the facts that a runner states about a `.tflite` file, from the file and its description."""
    inputs, outputs = ends
    runner.batch = int(next(iter(inputs.values()))["shape"][0])
    runner.inputs = tuple(_tflite_input(name, tensor) for name, tensor in inputs.items())
    runner.outputs = tuple(outputs)
    runner.answer = answer_among(runner.outputs)
    runner.kinds = kinds_described(pathlib.Path(path).with_suffix(".json"), runner.outputs)


def _tflite_input(name: str, tensor: dict[str, Any]) -> Input:
    dtype = "float32" if tensor["quantization"][0] else np.dtype(tensor["dtype"]).name
    return input_of_file(name, [int(size) for size in tensor["shape"][1:]], dtype)


class TFLiteGpuRunner(Runner):
    """A `.tflite` file on a GPU through WebGPU, without any operation on the CPU.

    Half precision is allowed, as in an application, and the GPU uses it where it can. For a
    machine without a GPU, see `se_keras.export.process.gpu_environment`. A GPU driver can crash
    the whole process: use this class through `se_keras.export.process.Worker`.

    Args:
        path: The file.

    Raises:
        ImportError: `ai_edge_litert` is not installed.
        RuntimeError: There is no GPU driver, or an operation does not run on the GPU.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        try:
            from ai_edge_litert.compiled_model import CompiledModel
            from ai_edge_litert.hardware_accelerator import HardwareAccelerator
        except ImportError as error:
            raise missing_package("ai_edge_litert", "litert", "Running a .tflite file on a GPU") from error
        interpreter = interpreter_module().Interpreter(model_path=os.fspath(path))
        self.ends = _tflite_ends(interpreter)
        _describe(self, self.ends, path)
        self.model = CompiledModel.from_file(os.fspath(path), hardware_accel=HardwareAccelerator.GPU)
        if not self.model.is_fully_accelerated():
            raise RuntimeError("Some operations of the file do not run on the GPU.")
        self.buffers = self.model.create_input_buffers(0), self.model.create_output_buffers(0)

    def run_one(self, values: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Runs a batch of the model's own size; arguments and result as in `Runner.run_one`."""
        inputs, outputs = self.ends
        for buffer, tensor, value in zip(self.buffers[0], inputs.values(), values, strict=True):
            buffer.write(np.ascontiguousarray(quantized(value, tensor)))
        self.model.run_by_index(0, *self.buffers)
        return [_read(buffer, tensor) for buffer, tensor in zip(self.buffers[1], outputs.values(), strict=True)]


def _read(buffer: Any, tensor: dict[str, Any]) -> np.ndarray:
    shape = tuple(tensor["shape"])
    return dequantized(np.reshape(buffer.read(int(np.prod(shape)), tensor["dtype"]), shape), tensor)
