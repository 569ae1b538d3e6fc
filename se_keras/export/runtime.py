"""Runtimes of exports: one class each, which takes the inputs by name and returns float outputs by name.

Nothing here imports Keras before it is needed: these classes also run in processes that measure time and memory.
"""

from __future__ import annotations

import abc
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from se_keras.errors import missing_package, one_of
from se_keras.export.inputs import Feed, Input, filled, in_order, input_of_file, part_of, rows_of
from se_keras.export.stated import answer_among, facts_stated, names_stated
from se_keras.export.tflite_file import is_tflite
from se_keras.file_kinds import described
from se_keras.native_output import native_output_held
from se_keras.scores import kind_named, kinds_stated

LARGEST_BATCH = 32  # samples at a time for a runtime that takes any number
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
        inputs: Its inputs.
        batch: Samples per call of the runtime; None for any number.
        outputs: The names of its outputs.
        answer: The output that is the prediction.
        kinds: Kind of each output, a key of `se_keras.scores.SIGNATURES`; "output" if the file does not state it.
    """

    inputs: tuple[Input, ...]
    batch: int | None = None
    outputs: tuple[str, ...]
    answer: str
    kinds: Mapping[str, str]

    @property
    def input_shape(self) -> tuple[int | None, ...]:
        """Returns the shape of the first input: (batch, height, width, channels) for images; None for unknown sizes."""
        return (self.batch, *self.inputs[0].shape)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Returns the class names in the order of the outputs; () if the model or file does not hold them."""
        return ()

    @property
    def resizing(self) -> Mapping[str, Any]:
        """Returns how photos are resized, as a file states it: "crop_pct" and "interpolation"; {} if it does not."""
        return {}

    @property
    def kind(self) -> str:
        """Returns the kind of the prediction."""
        return self.kinds[self.answer]

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Runs a model with one input.

        Args:
            images: Array of shape (n, *shape of the input) in the scale of the model's input (for this package's
                networks: RGB, 0 to 255), of any dtype.

        Returns:
            The prediction: float32 array of shape (n, classes), or (n, ...) for other outputs.
        """
        return self.run({self.inputs[0].name: images})[self.answer]

    def run(self, feed: Feed) -> dict[str, np.ndarray]:
        """Runs the model, in batches of its own size.

        Args:
            feed: The value of each input by its name, with one row per sample. The value of a single input may have
                any name.

        Returns:
            Float32 array of each output by its name, with one row per sample.

        Raises:
            ValueError: The names are not those of the inputs.
        """
        step = self.batch or LARGEST_BATCH
        parts = [self._padded(part_of(feed, start, start + step)) for start in range(0, rows_of(feed), step)]
        return {name: np.concatenate([part[name] for part in parts]) for name in self.outputs}

    def _padded(self, feed: Feed) -> dict[str, np.ndarray]:
        rows = rows_of(feed)
        whole = feed if self.batch in (None, rows) else filled(feed, self.batch or rows)
        answers = self.run_one(in_order(self.inputs, whole))
        return {name: answer[:rows] for name, answer in zip(self.outputs, answers, strict=True)}

    @abc.abstractmethod
    def run_one(self, values: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Runs one batch of the model's own size.

        Args:
            values: The inputs, in their order.

        Returns:
            The outputs, in their order, as float32.
        """


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


class StatingRunner(Runner):
    """A file that states facts about itself as text by name, as `export.onnx` and `export.openvino` write them."""

    stated: Mapping[str, str]

    @property
    def class_names(self) -> tuple[str, ...]:
        """Returns the names that the file states."""
        return names_stated(self.stated.get("class_names"))

    @property
    def resizing(self) -> Mapping[str, Any]:
        """Returns what the file states about its input."""
        return facts_stated(self.stated.get("input"))


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
    inner = type_name.removeprefix("tensor(").removesuffix(")")
    return {"float": "float32", "double": "float64"}.get(inner, inner)


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


def check_inputs(path: str | os.PathLike, dtypes: Sequence[str]) -> None:
    """Rejects a file that cannot be fed from NumPy arrays.

    Args:
        path: The file, for the message.
        dtypes: Dtype of each input.

    Raises:
        ValueError: There is no input, or one of a dtype that NumPy lacks.
    """
    if not dtypes or any(dtype != "string" and np.dtype(dtype).kind not in "biuf" for dtype in dtypes):
        raise ValueError(
            f"A model must have inputs of dtypes that NumPy has; {os.fspath(path)!r} has "
            f"{', '.join(dtypes) or 'no inputs'}."
        )


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
        return OnnxRunner(path, threads=threads)
    if runtime == "openvino":
        from se_keras.export.openvino_runtime import OpenVinoRunner

        return OpenVinoRunner(path, threads=threads)
    if runtime == "saved_model":
        return SavedModelRunner(path)
    import se_keras.layers  # noqa: F401  registers them with Keras
    from se_keras.model_files import read_model

    return KerasRunner(read_model(path))
