"""OpenVINO export, for CPUs, GPUs, and NPUs of Intel and others."""

from __future__ import annotations

import errno
import os
import pathlib
import re
import tempfile
from collections.abc import Sequence
from typing import Any

import keras

from se_keras.errors import check_count_or_none
from se_keras.export.calibration import calibration_for
from se_keras.export.conversion import converting, lacking, names_of, saved_nodes
from se_keras.export.description import stored_properties
from se_keras.export.exportable import Format, check_export, check_suffix
from se_keras.export.first_layers import check_keep_float, check_names_nothing
from se_keras.export.inference_form import float32_form
from se_keras.export.openvino_graph import simplify
from se_keras.export.openvino_int8 import quantized_to_8_bits
from se_keras.export.openvino_runtime import SECTION, openvino_module
from se_keras.export.proof import TOLERANCES, check_file
from se_keras.export.to_tflite import write_archive
from se_keras.files import Kind, kind_of, openvino_weights, replacing_together
from se_keras.native_output import native_output_held
from se_keras.progress import steps
from se_keras.surgery.deployment import REWRITINGS, WITHOUT_HOISTING

DTYPES = ("fp32", "fp16", "int8")
FORMAT = Format("An OpenVINO model", ".xml", DTYPES)


def openvino(
    model: keras.Model,
    path: str | os.PathLike,
    *,
    dtype: str = "fp32",
    data: Any = None,
    keep_float: Sequence[str] | None = None,
    class_names: Sequence[str] | None = None,
    batch_size: int | None = 1,
    overwrite: bool = False,
    verbose: str | int = "auto",
) -> pathlib.Path:
    """Writes a model for OpenVINO: an `.xml` file, and its weights in a `.bin` file next to it.

    The model is first converted to its deployed form (`surgery.deploy`), and half-precision policies to float32. For
    "int8", squeezes are not hoisted: OpenVINO multiplies a map by its gates in 8 bits only if the squeeze reads the
    same map. Pass the model itself, not the result of `surgery.deploy`. Inputs and outputs have the model's dtypes.
    Before the files are moved to their paths, OpenVINO runs them once next to the model.

    Args:
        model: A functional or sequential model, with any number of inputs and outputs.
        path: The file to write, ending in .xml.
        dtype: "fp32"; "fp16": half-precision weights, half the size; "int8": weights and activations,
            quantized by NNCF.
        data: For "int8": at least 100 different images like those the model will see, as in `tflite`. At most 100 are
            used.
        keep_float: For "int8". By default, the first layers stay in float if a swish or hard swish follows the first
            convolution. Pass an empty list to quantize them, for accelerators that compute only integers; NNCF still
            leaves in float what OpenVINO does not compute in 8 bits.
        class_names: Class names in the order of the outputs; two names for a single sigmoid or logit.
            Default: the model's own, if it has any.
        batch_size: Samples per call, at least 1. None allows any number, but OpenVINO is then slower, above all with
            small networks in int8. `openvino.Model.reshape` changes the batch size of a file.
        overwrite: Whether to replace an existing OpenVINO model and its weights.
        verbose: "auto" or 1 to show a progress bar, 0 to show nothing.

    Returns:
        The `.xml` file. An input of images is named "images", and others as in Keras; a single output is named
        "output_0". Its `rt_info` has a section "se_keras" with "output", a key of
        `se_keras.scores.SIGNATURES` or, for several outputs, a dictionary as JSON, "input" (size, crop, and range
        as JSON), and, if there are any, "class_names", a JSON list:
        `model.get_rt_info(["se_keras", "class_names"]).value`.

    Raises:
        FileExistsError: One of the two files exists, and `overwrite` is False or it is something else.
        FileNotFoundError: `data` names a folder or file that does not exist.
        ImportError: The extra "openvino" is not installed.
        RuntimeError: Keras does not run on TensorFlow.
        ValueError: `path` does not end in .xml; `batch_size` is neither None nor an integer of at least 1; the model
            takes text or has a vocabulary, or is subclassed, not built, or quantized by Keras; `class_names` do not fit
            the outputs or are the model's own in another order; OpenVINO lacks an operation, or the converter fails
            (the message names the layer); `data` is missing or has too few different images; `keep_float` is neither
            None nor an empty list; or the outputs of the files differ from the model's.
    """
    check_export(model, path, FORMAT, dtype=dtype)
    check_keep_float(keep_float, dtype)
    check_names_nothing(keep_float, FORMAT.what)
    targets = openvino_targets(path)
    properties = stored_properties(model, dtype, class_names)
    openvino_module("Writing an OpenVINO model")
    batch_size = check_count_or_none("batch_size", batch_size)
    with replacing_together(targets, overwrite=overwrite) as (target, weights):
        feed = calibration_for(model, data) if dtype == "int8" else None
        with (
            converting(model, FORMAT.what),
            steps(f"Writing {os.fspath(path)}", 4, verbose=verbose) as advance,
            tempfile.TemporaryDirectory() as folder,
        ):
            _, deployed = float32_form(model, rewritings=REWRITINGS if feed is None else WITHOUT_HOISTING)
            advance()
            converted = _converted(deployed, folder)
            simplify(converted)
            if feed is not None:
                converted = quantized_to_8_bits(converted, feed, keep_float)
            _set_batch_size(converted, batch_size)
            advance()
            for name, text in properties.items():
                converted.set_rt_info(text, [SECTION, name])
            _save(converted, target, in_half=dtype == "fp16")
            advance()
            check_file(target, deployed, tolerance=TOLERANCES[dtype], feed=feed)
            target.with_suffix(".bin").replace(weights)
            advance()
    return pathlib.Path(path)


def openvino_targets(path: str | os.PathLike) -> dict[str | os.PathLike, Kind]:
    """Returns the files that `openvino` writes, for `files.check_targets`.

    Args:
        path: As in `openvino`.

    Returns:
        The paths of the model and its weights, and the kind of each.

    Raises:
        ValueError: `path` does not end in .xml.
    """
    check_suffix(path, FORMAT.suffix)
    return {path: kind_of(path), pathlib.Path(path).with_suffix(".bin"): openvino_weights(path)}


def _converted(model: keras.Model, folder: str) -> Any:
    """Converts a model by way of a SavedModel in a folder, from which the weights are read until they are saved."""
    import openvino

    with native_output_held():
        write_archive(model, folder, batch=None)
        try:
            # Not `convert_model`, which sends usage statistics to the makers of OpenVINO.
            return openvino.Core().read_model(folder)
        except RuntimeError as error:
            missing = re.search(r"No conversion rule found for operations: (.*)", str(error))
            if missing is None:
                raise
            operations = missing[1].split(", ")
            nodes = saved_nodes(pathlib.Path(folder), operations)
            raise lacking("OpenVINO", operations, model, names_of(nodes)) from error


def _set_batch_size(model: Any, size: int | None) -> None:
    """Sets the first axis of all inputs; other axes of any size stay as they are."""
    import openvino

    if size is not None:
        model.reshape({one: openvino.PartialShape([size, *list(one.get_partial_shape())[1:]]) for one in model.inputs})


def _save(model: Any, path: pathlib.Path, *, in_half: bool) -> None:
    """Writes the `.xml` and `.bin` files, and reports a full disk, which OpenVINO does not name."""
    import openvino

    try:
        openvino.save_model(model, os.fspath(path), compress_to_fp16=in_half)
    except RuntimeError as error:
        if "iostream" not in str(error):
            raise
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
    if not openvino_weights(path).recognizes(path.with_suffix(".bin")):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
