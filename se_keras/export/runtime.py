"""Runtimes of exports: one class each, called with images, returning float outputs.

Nothing here imports Keras before it is needed: these classes also run in processes that measure time and memory.
"""

from __future__ import annotations

import abc
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from se_keras.errors import missing_package, one_of
from se_keras.export.tensorflow_internals import interpreter_module
from se_keras.export.tflite_file import dequantized, is_tflite, quantized
from se_keras.file_kinds import described
from se_keras.native_output import native_output_held
from se_keras.scores import SIGNATURES, kind_described, kind_named

LARGEST_BATCH = 32  # images at a time for a runtime that takes any number
ANSWERS = ("probabilities", "predictions", "logits", "output", "output_0")  # names of the prediction, most common first
RUNTIMES = {
    "saved_model": "TensorFlow",
    "tflite": "LiteRT CPU",
    "tflite_gpu": "LiteRT GPU",
    "onnx": "ONNX Runtime",
    "openvino": "OpenVINO",
    "keras": "Keras",
}


def format_of(path: str | os.PathLike) -> str:
    """Determines the format of an exported file from its content.

    Args:
        path: A file or folder.

    Returns:
        "saved_model", "tflite", "onnx", "openvino", or "keras".

    Raises:
        FileNotFoundError: `path` does not exist.
        ValueError: It is none of these, or its content does not match its name.
    """
    path = pathlib.Path(path)
    if not path.exists():
        raise FileNotFoundError(f"There is no exported model at {os.fspath(path)!r}.")
    if path.is_dir():
        if (path / "saved_model.pb").is_file():
            return "saved_model"
        raise ValueError(f"The folder {os.fspath(path)!r} is not a SavedModel: it holds no file saved_model.pb.")
    with open(path, "rb") as file:
        head = file.read(256)
    if is_tflite(head):
        return "tflite"
    if path.suffix == ".keras" and head[:2] == b"PK":
        return "keras"
    if path.suffix == ".onnx" and head:
        return "onnx"
    if path.suffix == ".xml" and b"<net " in head:
        return "openvino"
    if kind := described(path):
        raise ValueError(f"The file {os.fspath(path)!r} is not a model that can be run here, but {kind}.")
    raise ValueError(
        f"The file {os.fspath(path)!r} is not a model that can be run here: it begins with {head[:8]!r}. Pass a "
        ".tflite file (with TFL3 in bytes 4 to 7), an .onnx file, OpenVINO's .xml file, a .keras file, or a SavedModel "
        "folder."
    )


class Runner(abc.ABC):
    """A model in one runtime.

    Attributes:
        input_shape: (batch, height, width, channels); None for dimensions of any size.
        kind: Kind of output, a key of `se_keras.scores.SIGNATURES`; "output" if the file does not
            state it.
    """

    kind: str = "output"

    input_shape: tuple[int | None, ...]

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Runs the model on images, in batches of its own size.

        Args:
            images: Array of shape (n, height, width, channels) in the scale of the model's
                input (for this package's networks: RGB, 0 to 255), of any dtype.

        Returns:
            Float32 array of shape (n, classes), or (n, ...) for other outputs.
        """
        step = self.input_shape[0] or LARGEST_BATCH
        return np.concatenate([self._padded(images[start : start + step]) for start in range(0, len(images), step)])

    def _padded(self, images: np.ndarray) -> np.ndarray:
        batch = self.input_shape[0]
        if batch is None or len(images) == batch:
            return self.run_one(images)
        filled = np.concatenate([images, np.repeat(images[-1:], batch - len(images), axis=0)])
        return self.run_one(filled)[: len(images)]

    @abc.abstractmethod
    def run_one(self, images: np.ndarray) -> np.ndarray:
        """Runs one batch of the model's own size; arguments and result as in `__call__`."""


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
        self.input = self.interpreter.get_input_details()[0]
        self.output = self.interpreter.get_output_details()[0]
        self.input_shape = tuple(int(size) for size in self.input["shape"])
        self.kind = kind_described(pathlib.Path(path).with_suffix(".json"))

    def run_one(self, images: np.ndarray) -> np.ndarray:
        """Runs a batch of the model's own size; arguments and result as in `__call__`."""
        self.interpreter.set_tensor(self.input["index"], quantized(images, self.input))
        self.interpreter.invoke()
        return dequantized(self.interpreter.get_tensor(self.output["index"]), self.output)


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
        self.input = interpreter.get_input_details()[0]
        self.output = interpreter.get_output_details()[0]
        self.input_shape = tuple(int(size) for size in self.input["shape"])
        self.model = CompiledModel.from_file(os.fspath(path), hardware_accel=HardwareAccelerator.GPU)
        if not self.model.is_fully_accelerated():
            raise RuntimeError("Some operations of the file do not run on the GPU.")
        self.inputs = self.model.create_input_buffers(0)
        self.outputs = self.model.create_output_buffers(0)

    def run_one(self, images: np.ndarray) -> np.ndarray:
        """Runs a batch of the model's own size; arguments and result as in `__call__`."""
        self.inputs[0].write(np.ascontiguousarray(quantized(images, self.input)))
        self.model.run_by_index(0, self.inputs, self.outputs)
        shape = tuple(self.output["shape"])
        values = self.outputs[0].read(int(np.prod(shape)), self.output["dtype"])
        return dequantized(np.reshape(values, shape), self.output)


class SavedModelRunner(Runner):
    """The signature "serving_default" of a SavedModel in TensorFlow.

    Args:
        path: The folder.

    Raises:
        ImportError: TensorFlow is not installed.
        ValueError: The SavedModel cannot be loaded, or has no such signature, or one with several inputs.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        try:
            import tensorflow as tf
        except ImportError as error:
            raise missing_package("tensorflow", "tensorflow", "Running a SavedModel") from error
        try:
            with native_output_held():
                self.loaded = tf.saved_model.load(os.fspath(path))
        except MemoryError:
            raise
        except Exception as error:  # TensorFlow raises whatever it meets: OpError, IndexError, KeyError, ...
            raise ValueError(
                f"The SavedModel {os.fspath(path)!r} cannot be loaded; it is damaged, or files are missing from its "
                f"folder: {' '.join(str(error).split())[:300]}"
            ) from error
        if "serving_default" not in self.loaded.signatures:
            raise ValueError(
                f"The SavedModel {os.fspath(path)!r} has no signature 'serving_default'; it has "
                f"{sorted(self.loaded.signatures)}. Export it with `se_keras.export.saved_model`."
            )
        self.function = self.loaded.signatures["serving_default"]
        specs = self.function.structured_input_signature[1]
        if len(specs) != 1:
            raise ValueError(f"The signature 'serving_default' must have one input; received {sorted(specs)}.")
        self.input_name, self.spec = next(iter(specs.items()))
        self.input_shape = tuple(self.spec.shape)
        outputs = self.function.structured_outputs
        self.answer = answer_among(list(outputs))
        self.kind = kind_named(self.answer, outputs[self.answer].shape)

    def run_one(self, images: np.ndarray) -> np.ndarray:
        """Runs a batch; arguments and result as in `__call__`."""
        import tensorflow as tf

        outputs = self.function(**{self.input_name: tf.cast(tf.constant(images), self.spec.dtype)})
        return np.asarray(outputs[self.answer], "float32")


class OnnxRunner(Runner):
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
        self.input = self.session.get_inputs()[0]
        self.dtype = {"tensor(uint8)": "uint8", "tensor(float16)": "float16"}.get(self.input.type, "float32")
        self.input_shape = tuple(size if isinstance(size, int) else None for size in self.input.shape)
        self.answer = answer_among([output.name for output in self.session.get_outputs()])
        stated = self.session.get_modelmeta().custom_metadata_map.get("output")
        self.kind = stated if stated in SIGNATURES else "output"

    def run_one(self, images: np.ndarray) -> np.ndarray:
        """Runs a batch; arguments and result as in `__call__`."""
        feed = {self.input.name: np.ascontiguousarray(images, dtype=self.dtype)}
        return np.asarray(self.session.run([self.answer], feed)[0], "float32")


class KerasRunner(Runner):
    """A Keras model with one input and one output.

    Args:
        model: The model.
    """

    def __init__(self, model: Any) -> None:
        from se_keras.export.exportable import graph_alone
        from se_keras.surgery.outputs import scores_of

        self.model = model
        self._graph = graph_alone(model)
        self.input_shape = tuple(model.inputs[0].shape)
        self.kind = scores_of(model).kind

    def run_one(self, images: np.ndarray) -> np.ndarray:
        """Runs a batch; arguments and result as in `__call__`."""
        return np.asarray(self._graph.predict_on_batch(images), "float32")


def open_runner(path: str | os.PathLike, *, runtime: str | None = None, threads: int = 1) -> Runner:
    """Opens an exported file in a runtime.

    Args:
        path: The file or folder.
        runtime: A key of `RUNTIMES`. Default: the file's own; for `.tflite` that is the CPU.
        threads: CPU threads, at least 1. Has no effect on TensorFlow, whose threads belong to its process.

    Returns:
        A runner.

    Raises:
        FileNotFoundError: `path` does not exist.
        ValueError: The file is not a model that can be run here.
        ImportError: The runtime is not installed.
        RuntimeError: The runtime refuses the file.
    """
    runtime = one_of("runtime", runtime or format_of(path), RUNTIMES)
    if runtime == "tflite":
        return TFLiteRunner(path, threads=threads)
    if runtime == "tflite_gpu":
        return TFLiteGpuRunner(path)
    if runtime == "onnx":
        return OnnxRunner(path, threads=threads)
    if runtime == "openvino":
        from se_keras.export.openvino_runtime import OpenVinoRunner

        return OpenVinoRunner(path, threads=threads)
    if runtime == "saved_model":
        return SavedModelRunner(path)
    import se_keras.layers  # noqa: F401  registers them with Keras
    from se_keras.model_files import read_model

    return KerasRunner(read_model(path))


def answer_among(names: Sequence[str]) -> str:
    """Returns the name of the output that is the prediction.

    Args:
        names: Names of the outputs, at least one.

    Returns:
        The first of `ANSWERS` that is among them, else the first name.
    """
    return next((name for name in ANSWERS if name in names), names[0])
