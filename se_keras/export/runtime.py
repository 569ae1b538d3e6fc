"""Runtimes of exports: their names, and the runner of each file.

Nothing here imports Keras before it is needed: these classes also run in processes that measure time and memory.
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from se_keras.errors import missing_package, one_of
from se_keras.export.inputs import input_of_file
from se_keras.export.runner import Runner
from se_keras.export.stated import answer_among
from se_keras.export.tflite_file import is_tflite
from se_keras.file_kinds import described
from se_keras.native_output import native_output_held
from se_keras.scores import kind_named

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


class SavedModelRunner(Runner):
    """The signature "serving_default" of a SavedModel in TensorFlow.

    Args:
        path: The folder.

    Raises:
        ImportError: TensorFlow is not installed.
        ValueError: The SavedModel cannot be loaded, or has no such signature.
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
        except Exception as error:  # TensorFlow may raise anything: OpError, IndexError, KeyError, ...
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
        self.specs = self.function.structured_input_signature[1]
        self.inputs = tuple(
            input_of_file(name, tuple(spec.shape[1:]), spec.dtype.name) for name, spec in self.specs.items()
        )
        self.batch = next(iter(self.specs.values())).shape[0]
        outputs = self.function.structured_outputs
        self.outputs = tuple(outputs)
        self.answer = answer_among(self.outputs)
        self.kinds = {name: kind_named(name, output.shape) for name, output in outputs.items()}
        self._assets = pathlib.Path(path, "assets")

    @property
    def class_names(self) -> tuple[str, ...]:
        """Returns the names in the file that `export.saved_model` adds to the folder."""
        from se_keras.class_names_file import NAMES_FILE, read_class_names

        file = self._assets / NAMES_FILE
        return tuple(read_class_names(file)) if file.is_file() else ()

    def run_one(self, values: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Runs a batch; arguments and result as in `Runner.run_one`."""
        import tensorflow as tf

        pairs = zip(self.specs.items(), values, strict=True)
        outputs = self.function(**{name: tf.cast(tf.constant(value), spec.dtype) for (name, spec), value in pairs})
        return [np.asarray(outputs[name], "float32") for name in self.outputs]


class KerasRunner(Runner):
    """A Keras model.

    Args:
        model: The model.
    """

    def __init__(self, model: Any) -> None:
        from se_keras.export.exportable import graph_alone
        from se_keras.export.model_ends import inputs_of, output_scores

        self.model = model
        self._graph = graph_alone(model)
        self.inputs = inputs_of(model)
        self.batch = model.inputs[0].shape[0]
        scores = output_scores(model)
        self.outputs = tuple(scores)
        self.kinds = {name: one.kind for name, one in scores.items()}
        self.answer = next((name for name, kind in self.kinds.items() if kind != "output"), self.outputs[0])

    @property
    def class_names(self) -> tuple[str, ...]:
        """Returns the model's own names."""
        from se_keras.class_names import get_class_names

        return get_class_names(self.model)

    def run_one(self, values: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Runs a batch; arguments and result as in `Runner.run_one`."""
        import keras

        from se_keras.batch_prediction import predict_batch
        from se_keras.export.model_ends import packed

        answers = predict_batch(self._graph, packed(self.model, values))
        return [np.asarray(answer, "float32") for answer in keras.tree.flatten(answers)]


def open_runner(path: str | os.PathLike, *, runtime: str | None = None, threads: int = 1) -> Runner:
    """Opens an exported file in a runtime.

    Args:
        path: The file or folder.
        runtime: A key of `RUNTIMES`. Default: the file's own; for `.tflite` that is the CPU.
        threads: CPU threads, at least 1. No effect on TensorFlow, whose threads belong to its process.

    Returns:
        A runner.

    Raises:
        FileNotFoundError: `path` does not exist.
        ValueError: The file is not a model that can be run here.
        ImportError: The runtime is not installed.
        RuntimeError: The runtime refuses the file.
    """
    runtime = one_of("runtime", runtime or format_of(path), RUNTIMES)
    if runtime in ("tflite", "tflite_gpu"):
        from se_keras.export.tflite_runtime import TFLiteGpuRunner, TFLiteRunner

        return TFLiteRunner(path, threads=threads) if runtime == "tflite" else TFLiteGpuRunner(path)
    if runtime == "onnx":
        from se_keras.export.onnx_runtime import OnnxRunner

        return OnnxRunner(path, threads=threads)
    if runtime == "openvino":
        from se_keras.export.openvino_runtime import OpenVinoRunner

        return OpenVinoRunner(path, threads=threads)
    if runtime == "saved_model":
        return SavedModelRunner(path)
    import se_keras.layers  # noqa: F401  registers them with Keras
    from se_keras.model_files import read_model

    return KerasRunner(read_model(path))
