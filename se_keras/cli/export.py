"""`se-keras export`: writes a model for a runtime, and verifies the file."""

from __future__ import annotations

import argparse
import os
import pathlib
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import keras

from se_keras import export
from se_keras.cli.class_names import class_names_for
from se_keras.cli.console import progress_console
from se_keras.cli.images import refuse_broken
from se_keras.cli.models import check_name, load_file, published
from se_keras.cli.verify import check_report, print_report
from se_keras.export.keep_float import AUTO
from se_keras.export.to_onnx import DTYPES as ONNX_DTYPES
from se_keras.export.to_openvino import DTYPES as OPENVINO_DTYPES
from se_keras.export.to_openvino import openvino_targets
from se_keras.export.to_tflite import CALIBRATED, tflite_targets
from se_keras.export.to_tflite import DTYPES as TFLITE_DTYPES
from se_keras.files import SAVED_MODEL, Kind, check_targets, kind_of
from se_keras.images.folders import parts_of
from se_keras.models.registry import create_model


class _Format(NamedTuple):
    """Where a format is written by default, the files that belong to it, and its precisions."""

    output: str
    targets: Callable[[pathlib.Path], dict[str | os.PathLike, Kind]]
    dtypes: Collection[str]


_FORMATS = {
    "saved_model": _Format("out/saved_model", lambda path: {path: SAVED_MODEL}, ("fp32",)),
    "tflite": _Format("out/model.tflite", tflite_targets, TFLITE_DTYPES),
    "onnx": _Format("out/model.onnx", lambda path: {path: kind_of("model.onnx")}, ONNX_DTYPES),
    "openvino": _Format("out/model.xml", openvino_targets, OPENVINO_DTYPES),
}


def run(options: argparse.Namespace) -> int:
    """Writes a model for a runtime, and prints the report on the written file."""
    chosen = _FORMATS[options.format]
    if options.dtype not in chosen.dtypes:
        raise ValueError(
            f"--format {options.format} can be written in {', '.join(chosen.dtypes)}; received --dtype {options.dtype}."
        )
    if options.format != "tflite" and options.input_type:
        raise ValueError(f"--input-type requires --format tflite; received --format {options.format}.")
    if options.format == "saved_model" and options.keep_float is not None:
        raise ValueError("--keep-float requires --format tflite, onnx, or openvino; received --format saved_model.")
    if options.format != "tflite" and options.keep_float:
        raise ValueError(
            f"--keep-float takes names only with --format tflite; received --format {options.format} --keep-float "
            f"{' '.join(options.keep_float)}."
        )
    if options.layers and (options.format != "tflite" or options.dtype not in CALIBRATED):
        raise ValueError(
            f"--layers requires --format tflite and --dtype {' or '.join(CALIBRATED)}; received --format "
            f"{options.format} --dtype {options.dtype}."
        )
    target = pathlib.Path(options.output or chosen.output)
    check_targets(chosen.targets(target), overwrite=options.overwrite)
    check_report(options)
    if options.strict and options.data:
        refuse_broken(options.data)
    if options.data and not parts_of(options.data) and options.dtype in CALIBRATED:
        progress_console.print(
            "calibrated and verified on the same photos; to separate them, put them into folders train and val"
            if os.path.isdir(options.data)
            else "calibrated and verified on the same samples; to verify on others, use `se-keras verify`"
        )
    model = _model_to_export(options)
    _write_export(model, target, options)
    return print_report(target, model, options)


def _model_to_export(options: argparse.Namespace) -> keras.Model:
    if options.model.endswith(".keras"):
        if options.weights or options.size:
            raise ValueError("--weights and --size build a network; they cannot be applied to a .keras file.")
        return load_file(options.model)
    shape: dict[str, Any] = {"input_shape": (options.size, options.size, 3)} if options.size else {}
    if options.weights == "none":
        check_name(options.model)
        return create_model(options.model, **shape)
    return published(options.model, **shape)


def _class_names(model: keras.Model, options: argparse.Namespace) -> list[str] | None:
    names = class_names_for(options.model, model, options.class_names)
    if not names:
        progress_console.print("the export contains no class names; --class-names FILE adds them, one per line")
    return list(names) or None


def _write_export(model: keras.Model, target: pathlib.Path, options: argparse.Namespace) -> None:
    settings: dict[str, Any] = {}
    if options.format != "saved_model":
        names = AUTO if options.keep_float == [AUTO] else options.keep_float
        settings |= {"dtype": options.dtype, "data": options.data, "keep_float": names}
    if options.format == "tflite":
        settings["input_type"] = options.input_type or "float32"
    write = getattr(export, options.format)
    write(model, target, class_names=_class_names(model, options), overwrite=options.overwrite, **settings)
