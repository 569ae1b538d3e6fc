"""TFLite export, for phones, browsers, and small computers."""

from __future__ import annotations

import contextlib
import gc
import io
import json
import os
import pathlib
import re
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras

from se_keras.class_names import class_names_for
from se_keras.errors import check_count, missing_package, one_of
from se_keras.export.calibration import CALIBRATION_IMAGES, READ_IMAGES, calibrate, check_data, check_fixed
from se_keras.export.conversion import converting, lacking, names_of
from se_keras.export.description import input_facts, output_facts
from se_keras.export.exportable import Format, check_export, check_suffix
from se_keras.export.first_layers import check_keep_float
from se_keras.export.inference_form import tflite_form
from se_keras.export.inputs import Feed, Input
from se_keras.export.inspect_tflite import read_tflite
from se_keras.export.keep_float import AUTO
from se_keras.export.metadata import COLOR_SPACES, add_classifier_metadata
from se_keras.export.model_ends import inputs_of, main_scores, output_scores, packed
from se_keras.export.proof import FINITE, TOLERANCES, check_file
from se_keras.export.samples import is_of_images, is_of_pixels
from se_keras.export.tensorflow_internals import for_converter, nodes_of
from se_keras.export.tflite_file import in_one_piece
from se_keras.export.tflite_int8 import quantized_file
from se_keras.export.tflite_ranges import with_ranges
from se_keras.files import Kind, json_with, kind_of, replacing_together
from se_keras.images.record import Preprocessing
from se_keras.native_output import native_output_held
from se_keras.preprocessing import stored_preprocessing
from se_keras.progress import Advance, steps

DTYPES = ("fp32", "fp16", "int8", "int8_weights", "dynamic", "int16x8")
SQUEEZES = ("auto", "mean", "staged")
INPUT_TYPES = ("float32", "uint8", "int8")
CALIBRATED = ("int8", "int16x8")
FORMAT = Format("A .tflite file", ".tflite", DTYPES)


def tflite(
    model: keras.Model,
    path: str | os.PathLike,
    *,
    dtype: str = "fp32",
    data: Any = None,
    input_type: str = "float32",
    keep_float: Sequence[str] | str | None = None,
    class_names: Sequence[str] | None = None,
    batch_size: int = 1,
    squeeze: str = "auto",
    overwrite: bool = False,
    verbose: str | int = "auto",
) -> pathlib.Path:
    """Writes a model as a `.tflite` file of built-in operations, with a description next to it.

    The model is first converted to its deployed form (`surgery.deploy`), and half-precision
    policies to float32. All shapes are fixed, and no tensor has more than 4 axes, as GPU and
    NPU compilers require. `FILE.json` next to it describes the input and output: class names,
    size, range, crop, and calibration.

    Args:
        model: A functional or sequential model whose inputs have fixed sizes, with any number of inputs and outputs.
        path: The file to write, ending in .tflite.
        dtype: "fp32"; "fp16": half-precision weights, half the size; "int8": weights and activations, except what
            `keep_float` leaves in float; "int8_weights": weights only, computation in float; "dynamic": 8-bit
            weights, activations quantized at run time (loses accuracy in many networks with
            SE: verify); "int16x8": 8-bit weights, 16-bit activations.
        data: For "int8" and "int16x8": at least 100 different images like those the model will see: a folder (of
            `train` and `val`, the former), a list of image files, an array of shape (n, height, width, channels), or a
            dataset that `fit` takes, with or without labels, such as a `tf.data.Dataset`. Values are 0 to 255 for the
            networks of this package. For other or several inputs, arrays by name: a dictionary, an `.npz` file, a tuple
            in the order of the inputs, or a dataset of these. At most 100 are used, 128 for "int16x8": evenly spaced
            ones of files or arrays, the first of a dataset, so shuffle it. Other dtypes use it only for
            `squeeze="auto"`.
        input_type: Dtype of the inputs and outputs of an int8 file: "float32", "uint8", or "int8". An integer stands
            for (integer - zero point) * scale. Otherwise "float32".
        keep_float: For "int8": what stays in float. By default, the first layers, if a swish or hard swish follows
            the first convolution, and all hard swishes, which LiteRT computes much faster in float on CPUs. In
            addition, layers or tensors by name (`verify` with `layers=True` lists the names), with the operations
            that read them; or "auto": as few as possible, and no others if the file is within `verify`'s limits on the
            calibration images. An empty list: nothing, for accelerators that compute only integers. The description
            next to the file lists the operations.
        class_names: Class names in the order of the outputs; two names for a single sigmoid or logit.
            Default: the model's own, if it has any. They are written to the description and, if the
            input is an image of 1 or 3 channels, to the file as metadata that MediaPipe's ImageClassifier reads.
        batch_size: Samples per call, at least 1. GPUs run only files with batch 1.
        squeeze: How to compute the mean over a map: "mean", in one operation; "staged", as exact
            average pools over small windows, whose sums cannot overflow on a GPU in half
            precision; "auto": "staged" for sums close to that limit on `data`,
            else "mean".
        overwrite: Whether to replace an existing TFLite model and the description next to it.
        verbose: "auto" or 1 to show a progress bar, 0 to show nothing.

    Returns:
        The file.

    Raises:
        FileExistsError: One of the two files exists, and `overwrite` is False or it is something else.
        FileNotFoundError: `data` names a folder or file that does not exist.
        ImportError: The package that quantizes "int8_weights" is not installed.
        RuntimeError: Keras does not run on TensorFlow.
        ValueError: `path` does not end in .tflite; the model has no fixed input sizes, takes text or has a
            vocabulary, or is subclassed, not built, or quantized by Keras; TFLite lacks an operation, or the
            converter fails (the message names the layer); an argument is unknown or does not fit `dtype`; `class_names`
            do not fit the outputs or are the model's own in another order; no operation has a name in `keep_float`;
            `data` is missing or has too few different images; images are in the range 0 to 1 for a network that
            expects 0 to 255; or the outputs of the file differ from the model's.
    """
    check_export(model, path, FORMAT, dtype=dtype)
    one_of("input_type", input_type, INPUT_TYPES)
    one_of("squeeze", squeeze, SQUEEZES)
    batch_size = check_count("batch_size", batch_size)
    inputs, scores = inputs_of(model), output_scores(model)
    check_fixed(inputs, model.name, FORMAT.what)
    class_names = class_names_for(model, class_names, main_scores(scores).classes)
    if input_type != "float32" and dtype != "int8":
        raise ValueError(f"Integer inputs require dtype='int8'; received input_type={input_type!r}, dtype={dtype!r}.")
    whole = [one for one in inputs if one.dtype.startswith(("int", "uint"))]
    if dtype == "int16x8" and whole:
        raise ValueError(
            f"TensorFlow's 16-bit quantizer takes only floats; the input {whole[0].name!r} of {model.name!r} is "
            f"{whole[0].dtype}. Pass dtype='int8', 'int8_weights', or 'fp16'."
        )
    check_keep_float(keep_float, dtype)
    if isinstance(keep_float, str) and keep_float != AUTO:
        raise ValueError(f"`keep_float` must be 'auto' or a list of names; received {keep_float!r}.")
    if dtype in CALIBRATED:
        check_data(dtype, data)
    final, own = pathlib.Path(path), stored_preprocessing(model)
    with replacing_together(tflite_targets(path), overwrite=overwrite) as (target, beside):
        calibration = None
        if data is not None:
            least = CALIBRATION_IMAGES if dtype in CALIBRATED else 1
            most = READ_IMAGES if dtype == "int16x8" else CALIBRATION_IMAGES
            calibration = calibrate(data, inputs, preprocessing=own, least=least, most=most)
            calibration = calibration.with_extremes() if is_of_pixels(inputs) else calibration
        batches = calibration.batches(batch_size) if calibration is not None and dtype in CALIBRATED else []
        with (
            converting(model, FORMAT.what),
            steps(f"Writing {final}", len(batches) + 3, verbose=verbose) as advance,
        ):
            feed = None if calibration is None else calibration.feed
            form = tflite_form(model, feed, squeeze=squeeze, is_quantized=dtype in CALIBRATED)
            advance()
            content = converted(
                form,
                dtype,
                batches,
                input_type=input_type,
                keep_float=keep_float,
                batch_size=batch_size,
                advance=advance,
            )
            advance()
            is_classifier = is_of_images(inputs) and len(scores) == 1 and inputs[0].shape[-1] in COLOR_SPACES
            if class_names is not None and is_classifier:
                mean, std = (0.0, 1.0) if is_of_pixels(inputs) else (None, None)
                content = add_classifier_metadata(content, class_names=class_names, mean=mean, std=std, name=model.name)
            target.write_bytes(content)
            check_file(target, form, tolerance=TOLERANCES.get(dtype, FINITE), feed=feed)
            advance()
        kept = read_tflite(target).names_in_float() if dtype == "int8" else []
        description = {
            "model": model.name,
            "dtype": dtype,
            "input": _described(inputs, own, input_type),
            "output": output_facts(scores),
            "class_names": None if class_names is None else list(class_names),
            **({"keep_float": kept} if kept else {}),
            "calibration": None if calibration is None else calibration.facts(),
            "keras": keras.__version__,
            **({"shape": [batch_size, *inputs[0].shape]} if len(inputs) == 1 else {"batch_size": batch_size}),
        }
        beside.write_text(json.dumps(description, indent=1) + "\n", "utf-8")
    return final


def tflite_targets(path: str | os.PathLike) -> dict[str | os.PathLike, Kind]:
    """Returns the files that `tflite` writes, for `files.check_targets`.

    Args:
        path: As in `tflite`.

    Returns:
        The paths of the model and its description, and the kind of each.

    Raises:
        ValueError: `path` does not end in .tflite.
    """
    check_suffix(path, FORMAT.suffix)
    description = json_with("model", "dtype", "input", "output")
    return {path: kind_of(path), pathlib.Path(path).with_suffix(".json"): description}


def _described(inputs: Sequence[Input], own: Preprocessing | None, input_type: str) -> Any:
    facts = input_facts(inputs, own)
    if is_of_images(inputs) and isinstance(facts, dict):
        return {**facts, "dtype": input_type}
    for one in facts if isinstance(facts, list) else [facts]:
        one["dtype"] = input_type if one["dtype"].startswith("float") else one["dtype"]
    return facts


def converted(
    model: keras.Model,
    dtype: str,
    batches: Sequence[Feed] = (),
    *,
    input_type: str = "float32",
    keep_float: Sequence[str] | str | None = None,
    batch_size: int = 1,
    advance: Advance = lambda: None,
) -> bytes:
    """Converts a model without changing or checking it.

    Args:
        model: A model with inputs of fixed size, computing in float32.
        dtype: One of `DTYPES`.
        batches: Samples for calibration, at least one batch for "int8" and "int16x8".
        input_type: One of `INPUT_TYPES`.
        keep_float: As in `tflite`, for "int8".
        batch_size: Samples per call.
        advance: Called after each batch of the calibration.

    Returns:
        The content of a `.tflite` file.

    Raises:
        ImportError: The package that quantizes "int8_weights" is not installed.
        ValueError: TFLite lacks an operation.
    """
    if dtype == "int8_weights":
        return _quantized_weights(converted(model, "fp32", batch_size=batch_size))
    if dtype == "int8":
        content = converted(model, "fp32", batch_size=batch_size)
        gc.collect()  # the converter leaves its graph, as large as the weights, in a reference cycle
        with native_output_held():
            ranged = with_ranges(content, batches, advance)
            return quantized_file(ranged, batches, input_type=input_type, keep_float=keep_float)
    import tensorflow as tf

    with native_output_held():
        module, served = _served(model, batch_size)
        converter = tf.lite.TFLiteConverter.from_concrete_functions([served], module)
        converter.target_spec.supported_ops = [_operations(dtype)]
        if dtype != "fp32":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if dtype == "fp16":
            converter.target_spec.supported_types = [tf.float16]
        with _named_operations(model, served.graph), warnings.catch_warnings():
            if dtype == "int16x8":
                converter.representative_dataset = lambda: _fed(batches, advance)
            return converter.convert()


def write_archive(model: keras.Model, path: str | os.PathLike, *, batch: int | None) -> None:
    """Writes only the inference function of a model as a SavedModel folder, with the names of its inputs and outputs.

    Args:
        model: A functional or sequential model.
        path: The folder to write; must be new or empty.
        batch: A fixed batch size, or None for any.
    """
    import tensorflow as tf

    module, served = _served(model, batch)
    tf.saved_model.save(module, os.fspath(path), signatures={"serving_default": served})


def _served(model: keras.Model, batch: int | None) -> tuple[Any, Any]:
    """Returns a module that holds the variables of a model, and its inference function."""
    import tensorflow as tf

    inputs, outputs = inputs_of(model), list(output_scores(model))
    specs = {one.name: tf.TensorSpec((batch, *one.shape), one.dtype, name=one.name) for one in inputs}

    def named(feed: Mapping[str, Any]) -> Any:
        answers = keras.tree.flatten(model(packed(model, [feed[name] for name in specs]), training=False))
        return dict(zip(outputs, answers, strict=True)) if len(outputs) > 1 else answers[0]

    # TensorFlow names a single input after the argument, and several after the keys of a dictionary.
    only = inputs[0].name
    module = tf.Module()
    module.variables_of_model = [variable.value for variable in model.variables]  # faster than all that Keras tracks
    serve = tf.function(
        (lambda value: named({only: value})) if len(inputs) == 1 else named,
        input_signature=[specs[only] if len(inputs) == 1 else specs],
        autograph=False,
    )
    return module, serve.get_concrete_function()  # as an attribute of the module, it would be traced a second time


def _fed(batches: Sequence[Feed], advance: Advance) -> Iterator[Any]:
    for batch in batches:
        yield for_converter(batch)
        advance()


def _operations(dtype: str) -> Any:
    import tensorflow as tf

    if dtype == "int16x8":
        return tf.lite.OpsSet.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8
    return tf.lite.OpsSet.TFLITE_BUILTINS


@contextlib.contextmanager
def _named_operations(model: keras.Model, graph: Any) -> Iterator[None]:
    """Converts the converter's error on an operation into one that names the operation and its layers."""
    try:
        yield
    except Exception as error:
        missing = re.findall(r"tf\.(\w+)'? op", str(error))
        without_16_bits = sorted(set(re.findall(r"not yet supported for op: '(\w+)'", str(error))))
        if without_16_bits:
            raise ValueError(
                f"TensorFlow's quantizer has no 16-bit form of {', '.join(without_16_bits)}; received dtype='int16x8'. "
                "Pass dtype='int8', 'int8_weights', or 'fp16'."
            ) from error
        if not missing:
            raise
        nodes = [node for node in nodes_of(graph.as_graph_def()) if node.op in missing]
        raise lacking("TFLite", missing, model, names_of(nodes)) from error


def _quantized_weights(content: bytes) -> bytes:
    try:
        from ai_edge_quantizer import quantizer, recipe
    except ImportError as error:
        raise missing_package("ai_edge_quantizer", "quantize", "dtype='int8_weights'") from error
    printed = contextlib.redirect_stdout(io.StringIO())
    with native_output_held(), printed, tempfile.TemporaryDirectory() as folder:
        source = pathlib.Path(folder, "model.tflite")
        source.write_bytes(content)
        engine = quantizer.Quantizer(os.fspath(source))
        engine.load_quantization_recipe(recipe.weight_only_wi8_afp32())
        return in_one_piece(bytes(engine.quantize().quantized_model))
