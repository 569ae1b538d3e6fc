"""`se-keras info`: describes a network or a file."""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from se_keras.class_names_file import caption
from se_keras.cli.console import FittingTable, console, print_json
from se_keras.cli.models import check_name, is_path, load_file
from se_keras.export.openvino_runtime import output_name, read_openvino, stored_information
from se_keras.export.runtime import open_runner
from se_keras.export.stated import facts_stated, names_stated
from se_keras.export.structure import Structure, size_of, structure_of
from se_keras.export.tflite_runtime import input_beside_tflite, names_in_tflite
from se_keras.models.info import Cost, ModelInfo, model_info
from se_keras.models.registry import create_model
from se_keras.scores import kinds_stated

SHOWN_NAMES = 5

Stated = tuple[Mapping[str, str], Sequence[str], Mapping[str, Any]]
"""Kind of each output, class names, and facts about the input."""


def run(options: argparse.Namespace) -> int:
    """Prints a network's parameters and multiply-adds by stage, or the inputs and operations of an exported file."""
    if options.model.endswith(".keras"):
        if options.plain:
            raise ValueError("--plain builds a network without SE; it cannot be applied to a .keras file.")
        model = load_file(options.model)
        shape = (options.size, options.size, model.input_shape[-1]) if options.size else None
    elif is_path(options.model):
        return _print_structure(options)
    else:
        check_name(options.model)
        shape = (options.size, options.size, 3) if options.size else None
        plain: dict[str, Any] = {"se": None} if options.plain else {}
        model = create_model(options.model, input_shape=shape, **plain)
    info = model_info(model, shape)
    if options.json:
        print_json(info.as_dict())
    else:
        console.print(_info_table(info))
        for note in info.notes:
            console.print(note)
    return 0


def _print_structure(options: argparse.Namespace) -> int:
    """Describes an exported file or folder, without running it."""
    if options.plain or options.size:
        raise ValueError("--plain and --size build a network; an exported file is only described.")
    structure = structure_of(options.model)
    stated = _stated(options.model, structure)
    facts = {
        "file": options.model,
        "format": structure.format,
        "dtype": structure.dtype,
        "size": size_of(options.model),
        "inputs": structure.inputs,
        "outputs": structure.outputs,
        **stated,
        "operations": structure.operations,
        "refusals": [dataclasses.asdict(refusal) for refusal in structure.refusals],
    }
    if options.json:
        print_json(facts)
        return 0
    console.print(options.model, style="bold")
    console.print(f"format      {structure.format}, {structure.dtype}, {facts['size'] / 1e6:.2f} MB")
    for heading, tensors in (("input", structure.inputs), ("output", structure.outputs)):
        for tensor in tensors:
            console.print(f"{heading:10}  {tensor}")
    for heading, text in _lines(stated):
        console.print(f"{heading:10}  {text}")
    counted = ", ".join(f"{count} {name}" for name, count in structure.operations.items())
    console.print(f"operations  {counted or 'none'}")
    return 0


def _stated(path: str, structure: Structure) -> dict[str, Any]:
    """Returns what a file states about itself beyond its structure, without running it: a runtime may crash."""
    try:
        return _facts(*STATEMENTS[structure.format](path))
    except Exception:  # a description or metadata by somebody else may be anything
        return _facts({}, (), {})


def _stated_by_tflite(path: str) -> Stated:
    beside = pathlib.Path(path).with_suffix(".json")
    stated = facts_stated(beside.read_text("utf-8", "replace")).get("output") if beside.is_file() else None
    kinds = kinds_stated(stated, tuple(stated) if isinstance(stated, dict) else ("output",))
    return kinds, names_in_tflite(path), input_beside_tflite(path)


def _stated_by_onnx(path: str) -> Stated:
    content = importlib.import_module("onnx").load(path, load_external_data=False)
    properties = {one.key: one.value for one in content.metadata_props}
    return _stated_in(properties, [output.name for output in content.graph.output])


def _stated_by_openvino(path: str) -> Stated:
    model = read_openvino(path)
    return _stated_in(stored_information(model), [output_name(output) for output in model.outputs])


def _stated_by_runner(path: str) -> Stated:
    runner = open_runner(path)
    return runner.kinds, runner.class_names, runner.resizing


def _stated_in(properties: Mapping[str, str], outputs: Sequence[str]) -> Stated:
    kinds = kinds_stated(properties.get("output"), outputs)
    return kinds, names_stated(properties.get("class_names")), facts_stated(properties.get("input"))


STATEMENTS: dict[str, Callable[[str], Stated]] = {
    "tflite": _stated_by_tflite,
    "onnx": _stated_by_onnx,
    "openvino": _stated_by_openvino,
    "saved_model": _stated_by_runner,
    "keras": _stated_by_runner,
}


def _facts(kinds: Mapping[str, str], names: Sequence[str], photos: Mapping[str, Any]) -> dict[str, Any]:
    return {"kinds": list(dict.fromkeys(kinds.values())), "class_names": list(names), "photos": dict(photos)}


def _lines(stated: dict[str, Any]) -> Iterator[tuple[str, str]]:
    kinds = [kind.replace("_", " ") for kind in stated.get("kinds", ()) if kind != "output"]
    names, photos = stated.get("class_names"), stated.get("photos", {})
    if kinds:
        yield "returns", ", ".join(kinds)
    if names:
        shown = ", ".join(map(caption, names[:SHOWN_NAMES])) + (", ..." if len(names) > SHOWN_NAMES else "")
        yield "classes", f"{len(names)}: {shown}"
    match photos:  # a description may be somebody else's
        case {"height": int(), "range": [int() | float() as low, int() | float() as high]}:
            yield "pixels", f"from {low:g} to {high:g}"
    match photos:
        case {"crop_pct": int() | float() as crop, "interpolation": str(interpolation)}:
            yield "photos", f"resized ({interpolation}), central crop of {100 * crop:g}%"


def _info_table(info: ModelInfo) -> FittingTable:
    table = FittingTable("stage", "parameters", "trainable", "MMACs", "of which SE", "share", numbers=slice(1, None))
    size = "x".join(map(str, info.input_shape))
    table.title = f"{info.name}: input {size}, {info.se_blocks} SE blocks"
    for name, cost in info.stages.items():
        table.add_row(name, *_cells(cost), f"{cost.macs / max(info.total.macs, 1):.1%}")
    table.add_section()
    table.add_row("total", *_cells(info.total), "")
    return table


def _cells(cost: Cost) -> list[str]:
    return [
        f"{cost.parameters:,}",
        f"{cost.trainable:,}",
        f"{cost.macs / 1e6:,.2f}",
        f"{cost.se_macs / 1e6:,.3f}",
    ]
