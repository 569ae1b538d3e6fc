"""`se-keras export`: writes a model for a runtime, and verifies the file."""

from __future__ import annotations

import argparse
import os
import pathlib
from collections.abc import Callable
from typing import Any

import keras

from se_keras import export
from se_keras.cli.class_names import class_names_for
from se_keras.cli.console import progress_console
from se_keras.cli.images import refuse_broken
from se_keras.cli.models import load_file, published
from se_keras.cli.verify import check_report, print_report
from se_keras.export.to_tflite import CALIBRATED, tflite_targets
from se_keras.files import SAVED_MODEL, Kind, check_targets, kind_of
from se_keras.images.folders import parts_of
from se_keras.models.registry import create_model

_OUTPUTS = {"saved_model": "out/saved_model", "tflite": "out/model.tflite", "onnx": "out/model.onnx"}
_TARGETS: dict[str, Callable[[pathlib.Path], dict[str | os.PathLike, Kind]]] = {
    "saved_model": lambda path: {path: SAVED_MODEL},
    "tflite": tflite_targets,
    "onnx": lambda path: {path: kind_of("model.onnx")},
}


def run(options: argparse.Namespace) -> int:
    """Writes a model for a runtime, and prints the report on the written file."""
    if options.format != "tflite" and (options.dtype != "fp32" or options.input_type):
        raise ValueError(f"--dtype and --input-type are for --format tflite; {options.format} files are written fp32.")
    target = pathlib.Path(options.output or _OUTPUTS[options.format])
    check_targets(_TARGETS[options.format](target), overwrite=options.overwrite)
    check_report(options)
    if options.strict and options.data:
        refuse_broken(options.data)
    parts = parts_of(options.data) if options.data else None
    calibration, options.data = parts or (options.data, options.data)
    if options.data and not parts and options.dtype in CALIBRATED:
        progress_console.print(
            "calibrated and verified on the same photos; to separate them, put them into folders train and val"
        )
    model = _model_to_export(options)
    _write_export(model, target, calibration, options)
    return print_report(target, model, options)


def _model_to_export(options: argparse.Namespace) -> keras.Model:
    if options.model.endswith(".keras"):
        if options.weights or options.size:
            raise ValueError("--weights and --size build a network; they cannot be applied to a .keras file.")
        return load_file(options.model)
    shape: dict[str, Any] = {"input_shape": (options.size, options.size, 3)} if options.size else {}
    if options.weights == "none":
        return create_model(options.model, **shape)
    return published(options.model, **shape)


def _class_names(model: keras.Model, options: argparse.Namespace) -> list[str] | None:
    names = class_names_for(options.model, model, options.class_names)
    if not names:
        progress_console.print("the export contains no class names; --class-names FILE adds them, one per line")
    return list(names) or None


def _write_export(
    model: keras.Model, target: pathlib.Path, calibration: str | os.PathLike | None, options: argparse.Namespace
) -> None:
    class_names = _class_names(model, options)
    if options.format == "saved_model":
        export.saved_model(model, target, class_names=class_names, overwrite=options.overwrite)
    elif options.format == "onnx":
        export.onnx(model, target, class_names=class_names, overwrite=options.overwrite)
    else:
        export.tflite(
            model,
            target,
            dtype=options.dtype,
            data=calibration,
            input_type=options.input_type or "float32",
            class_names=class_names,
            overwrite=options.overwrite,
        )
