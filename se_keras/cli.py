"""The commands behind `se-keras`: each is one call into the library, and printing."""

from __future__ import annotations

import argparse
import dataclasses
import fnmatch
import json
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import keras
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from se_keras import export
from se_keras.demo import DemoResult, run_demo
from se_keras.export.files import replacing
from se_keras.export.report import LIMITS, Limits
from se_keras.export.runtime import RUNTIMES, format_of
from se_keras.export.structure import structure_of
from se_keras.inference import classify
from se_keras.models.info import ModelInfo, model_info
from se_keras.models.registry import NETWORKS, create_model, list_models, list_weights
from se_keras.preprocessing import imagenet_labels, record_of
from se_keras.weights.files import save_safetensors
from se_keras.weights.keras_files import KERAS_FILES
from se_keras.weights.published import RECORDS
from se_keras.weights.records import WebFile, WeightsRecord

console = Console()
progress_console = Console(stderr=True)


def wake_backend() -> None:
    """Lets the backend look for its devices now, while its messages are held back."""
    keras.ops.convert_to_numpy(keras.ops.ones((1,)))


def run_list(options: argparse.Namespace) -> int:
    """Prints the networks, or the published weights, that match a pattern; fails if there are none."""
    if options.weights:
        return _list_weights(options)
    if options.sort:
        raise ValueError("--sort orders weights; add --weights.")
    names = list_models(options.pattern)
    if not names:
        raise ValueError(f"No network matches {options.pattern!r}. `se-keras list` shows all.")
    rows = [{"model": name, "title": NETWORKS[name].title, "weights": list_weights(name)} for name in names]
    if options.json:
        print(json.dumps(rows, indent=2))
        return 0
    table = _table("model", "network", "input", "classes", "weights")
    for name in names:
        network = NETWORKS[name]
        size = f"{network.preprocessing.size}x{network.preprocessing.size}"
        tags = ", ".join(weights.partition(".")[2] for weights in list_weights(name)) or "none"
        table.add_row(name, network.title, size, str(network.classes), tags)
    console.print(table)
    return 0


_ORDERS: dict[str, Callable[[WeightsRecord], Any]] = {
    "name": lambda record: record.identifier,
    "accuracy": lambda record: -record.top1,
    "parameters": lambda record: record.parameters,
    "macs": lambda record: record.macs,
}


def _list_weights(options: argparse.Namespace) -> int:
    names = fnmatch.filter(RECORDS, options.pattern) or fnmatch.filter(RECORDS, f"{options.pattern}.*")
    if not names:
        raise ValueError(f"No weights match {options.pattern!r}. `se-keras list --weights` shows all.")
    records = sorted((RECORDS[name] for name in names), key=_ORDERS[options.sort or "name"])
    if options.json:
        print(json.dumps([dataclasses.asdict(record) for record in records], indent=2))
        return 0
    table = _table("weights", "top-1", "top-5", "size", "parameters", "GMACs")
    for column in table.columns[1:]:
        column.justify = "right"
    for record in records:
        best = record.accuracy[0]
        table.add_row(
            record.identifier,
            f"{best.top1:.2f}",
            f"{best.top5:.2f}",
            str(best.size),
            f"{record.parameters / 1e6:.1f} M",
            f"{record.macs / 1e9:.2f}",
        )
    console.print(table)
    console.print("Accuracy in percent at the training size, as its source states it; `se-keras info NAME` says more.")
    return 0


def run_info(options: argparse.Namespace) -> int:
    """Prints a network's parameters and multiply-adds by stage, or what is known of published weights."""
    if options.model in RECORDS:
        return _print_record(RECORDS[options.model], options)
    if options.model.endswith(".keras"):
        if options.plain:
            raise ValueError("--plain builds a network without SE; it cannot be applied to a .keras file.")
        model = _load(options.model)
        shape = (options.size, options.size, model.input_shape[-1]) if options.size else None
    else:
        shape = (options.size, options.size, 3) if options.size else None
        plain: dict[str, Any] = {"se": None} if options.plain else {}
        model = create_model(options.model, input_shape=shape, **plain)
    info = model_info(model, shape)
    if options.json:
        print(json.dumps(info.as_dict(), indent=2))
    else:
        console.print(_info_table(info))
    return 0


def _print_record(record: WeightsRecord, options: argparse.Namespace) -> int:
    if options.plain or options.size:
        raise ValueError("--plain and --size build a network; published weights are only described.")
    if options.json:
        print(json.dumps(dataclasses.asdict(record), indent=2))
        return 0
    prepared = record.preprocessing
    table = Table(show_header=False, title=record.identifier, title_justify="left", title_style="bold")
    table.add_column()
    table.add_column(overflow="fold")
    table.add_row("structure", f"{record.model}, lineage {record.lineage or 'official'}")
    for row in record.accuracy:
        at = f"{row.size} px, crop {row.crop:g}"
        table.add_row(f"accuracy at {at}", f"top-1 {row.top1:.2f} %, top-5 {row.top5:.2f} % ({row.measured_by})")
    table.add_row("size", f"{record.parameters:,} parameters, {record.macs / 1e9:.2f} GMACs")
    table.add_row("images", f"{prepared.size} px, crop {prepared.crop:g}, {prepared.interpolation}")
    for source in record.sources:
        where = source.url if isinstance(source, WebFile) else f"hub: {source.repository}/{source.file}"
        table.add_row("source", where)
    table.add_row("licence", record.licence)
    table.add_row("provenance", record.provenance)
    table.add_row("not verified", record.unverified)
    console.print(table)
    return 0


def run_convert(options: argparse.Namespace) -> int:
    """Writes a checkpoint as a file that Keras loads."""
    target = pathlib.Path(options.to)
    if target.exists() and not options.overwrite:
        raise FileExistsError(f"{options.to!r} exists already. Add --overwrite to replace it.")
    if not options.to.endswith((*KERAS_FILES, ".safetensors")):
        raise ValueError(
            f"--to takes a file that ends in .keras, .weights.h5 or .safetensors; received {options.to!r}."
        )
    if os.path.isfile(options.checkpoint):
        if not options.model:
            raise ValueError("A file does not say which network it belongs to; name it with --model.")
        model = create_model(options.model, weights=options.checkpoint)
    else:
        model = create_model(options.checkpoint if "." in options.checkpoint else f"{options.checkpoint}.imagenet")
    if options.to.endswith(".safetensors"):
        save_safetensors(model, target)
    else:
        with replacing(target, overwrite=True) as temporary:
            model.save(temporary) if options.to.endswith(".keras") else model.save_weights(temporary)
    console.print(f"{options.to}: {model.name}, {target.stat().st_size / 1e6:.1f} MB")
    return 0


def _info_table(info: ModelInfo) -> Table:
    table = _table("stage", "parameters", "trainable", "MMACs", "of them SE", "share")
    for column in table.columns[1:]:
        column.justify = "right"
    size = "x".join(map(str, info.input_shape))
    table.title = f"{info.name}: input {size}, {info.se_blocks} SE blocks"
    for name, cost in info.stages.items():
        share = cost.macs / max(info.total.macs, 1)
        table.add_row(
            name,
            f"{cost.parameters:,}",
            f"{cost.trainable:,}",
            f"{cost.macs / 1e6:,.2f}",
            f"{cost.se_macs / 1e6:,.3f}",
            f"{share:.1%}",
        )
    table.add_section()
    total = info.total
    table.add_row(
        "total",
        f"{total.parameters:,}",
        f"{total.trainable:,}",
        f"{total.macs / 1e6:,.2f}",
        f"{total.se_macs / 1e6:,.3f}",
        "",
    )
    return table


def run_predict(options: argparse.Namespace) -> int:
    """Prints the most probable classes of image files."""
    missing = [path for path in options.images if not os.path.isfile(path)]
    if missing:
        raise FileNotFoundError(f"There is no image file at {', '.join(map(repr, missing))}.")
    model = _load(options.model) if options.model.endswith(".keras") else _published(options.model)
    labels = _labels(options.labels, model)
    predictions = classify(model, options.images, labels=labels, top=options.top, progress=_bar("Classifying"))
    if options.json:
        rows = [
            {
                "image": path,
                "predictions": [{"id": identifier, "label": label, "probability": p} for identifier, label, p in row],
            }
            for path, row in zip(options.images, predictions, strict=True)
        ]
        print(json.dumps(rows, indent=2))
        return 0
    table = _table("image", "class", "probability")
    table.columns[2].justify = "right"
    for path, row in zip(options.images, predictions, strict=True):
        for rank, (_, label, probability) in enumerate(row):
            table.add_row(path if rank == 0 else "", label, f"{probability:.1%}")
        table.add_section()
    console.print(table)
    return 0


def _published(name: str) -> keras.Model:
    return create_model(name if "." in name else f"{name}.imagenet")


def _load(path: str) -> keras.Model:
    if not os.path.isfile(path):
        raise FileNotFoundError(f"There is no model file at {path!r}.")
    return keras.models.load_model(path, compile=False)


def _labels(path: str | None, model: keras.Model) -> list[str] | None:
    record_of(model)  # says what is wrong before any image is read
    classes = model.output_shape[-1]
    if path is None:
        if classes != len(imagenet_labels()):
            raise ValueError(f"The model has {classes} classes of its own. Name them with --labels FILE, one a line.")
        return None
    labels = _lines(path)
    if len(labels) != classes:
        raise ValueError(f"The model has {classes} classes, but {path!r} holds {len(labels)} labels, one a line.")
    return labels


OUTPUTS = {"saved_model": "out/saved_model", "tflite": "out/model.tflite", "onnx": "out/model.onnx"}


def run_export(options: argparse.Namespace) -> int:
    """Writes a model for a runtime, and prints the report on what was written."""
    if options.format != "tflite" and (options.dtype != "fp32" or options.input_type):
        raise ValueError(f"--dtype and --input-type are for --format tflite; {options.format} files are written fp32.")
    target = pathlib.Path(options.output or OUTPUTS[options.format])
    if target.exists() and not options.overwrite:
        raise FileExistsError(f"{os.fspath(target)!r} exists already. Add --overwrite to replace it.")
    model = _model_to_export(options)
    with progress_console.status(f"Writing {target}"):
        _write_export(model, target, options)
    return _verify(target, model, options)


def _model_to_export(options: argparse.Namespace) -> keras.Model:
    if options.model.endswith(".keras"):
        if options.weights or options.size:
            raise ValueError("--weights and --size build a network; they cannot be applied to a .keras file.")
        return _load(options.model)
    shape: dict[str, Any] = {"input_shape": (options.size, options.size, 3)} if options.size else {}
    if options.weights == "none":
        return create_model(options.model, **shape)
    return create_model(options.model if "." in options.model else f"{options.model}.imagenet", **shape)


def _write_export(model: keras.Model, target: pathlib.Path, options: argparse.Namespace) -> None:
    labels = _lines(options.labels) if options.labels else None
    if options.format == "saved_model":
        export.saved_model(model, target, labels=labels, overwrite=options.overwrite)
    elif options.format == "onnx":
        if labels:
            raise ValueError("An .onnx file holds no labels; leave out --labels.")
        export.onnx(model, target, overwrite=options.overwrite)
    else:
        export.tflite(
            model,
            target,
            dtype=options.dtype,
            representative_data=options.data,
            input_type=options.input_type or "float32",
            labels=labels,
            overwrite=options.overwrite,
        )


def run_verify(options: argparse.Namespace) -> int:
    """Compares an exported file with its model and prints the report; fails if the report does."""
    format_of(options.file)  # says what is wrong before any model is built
    return _verify(options.file, _model_to_compare(options.model), options)


def _model_to_compare(name: str | None) -> keras.Model | str | None:
    if name is None or (os.path.exists(name) and not name.endswith(".keras")):
        return name
    return _load(name) if name.endswith(".keras") else _published(name)


def _verify(file: str | os.PathLike, model: keras.Model | str | None, options: argparse.Namespace) -> int:
    with progress_console.status(f"Verifying {os.fspath(file)}"):
        report = export.verify(
            file,
            model,
            data=options.data,
            limits=_limits(structure_of(file).dtype, options),
            targets=options.target,
            most_images=options.images,
            threads=options.threads,
        )
    print(report.to_json() if options.json else report)
    if options.report:
        export.write_report(report, options.report)
    return 0 if report.passed else 1


def _limits(dtype: str, options: argparse.Namespace) -> Limits:
    chosen = {
        "relative_error": options.max_relative_error,
        "top1_agreement": options.min_top1_agreement,
        "accuracy_drop": options.max_accuracy_drop,
    }
    return dataclasses.replace(LIMITS[dtype], **{name: value for name, value in chosen.items() if value is not None})


def run_benchmark(options: argparse.Namespace) -> int:
    """Times exported files and models side by side and prints a table."""
    # Descriptions lie beside the exports, where `out/*` finds them too.
    names = [name for name in options.models if not name.endswith(".json")]
    contestants = {
        name: name if os.path.exists(name) or name.endswith(ENDINGS) else create_model(name) for name in names
    }
    tflite_files = [name for name in contestants if name.endswith(".tflite")]
    rows = export.benchmark(
        contestants,
        threads=options.threads,
        batch_sizes=options.batch_sizes,
        repeats=options.repeats,
        warmups=options.warmups,
        gpu=tflite_files if options.gpu else (),
        progress=_bar("Timing"),
    )
    if options.json:
        print(json.dumps([row.to_dict() for row in rows], indent=2))
        return 0
    for setting in dict.fromkeys((row.speed.threads, row.speed.batch) for row in rows):
        console.print(_benchmark_table([row for row in rows if (row.speed.threads, row.speed.batch) == setting]))
    console.print(
        "Spread: the middle half of the runs, as a share of the median. MB: added to the idle runtime's memory."
    )
    return 0


def _benchmark_table(rows: list[export.Measurement]) -> Table:
    table = _table("model", "runtime", "median ms", "least ms", "spread", "images/s", "MB")
    table.columns[0].overflow = "fold"
    table.columns[1].no_wrap = True
    threads, batch = rows[0].speed.threads, rows[0].speed.batch
    table.title = f"{threads} thread{'s' if threads > 1 else ''}, batch {batch}"
    for column in table.columns[2:]:
        column.justify = "right"
    for row in rows:
        speed = row.speed
        table.add_row(
            row.name,
            RUNTIMES[speed.runtime],
            f"{1e3 * speed.median:.2f}",
            f"{1e3 * speed.least:.2f}",
            f"{(speed.quartiles[1] - speed.quartiles[0]) / speed.median:.0%}",
            f"{row.images_per_second:,.0f}",
            f"{speed.peak_memory / 1e6:.0f}",
        )
    return table


ENDINGS = (".tflite", ".onnx", ".keras")


def _lines(path: str) -> list[str]:
    with open(path, encoding="utf-8") as lines:
        return [line.strip() for line in lines if line.strip()]


def run_demonstration(options: argparse.Namespace) -> int:
    """Runs the demo and prints its summary."""
    announce: Callable[[str], None] = (lambda line: None) if options.json else console.print
    with _progress() as progress:
        result = run_demo(
            options.output,
            epochs=options.epochs,
            announce=announce,
            callbacks=lambda name, steps: [_StepBar(progress, name, steps)],
        )
    if options.json:
        print(json.dumps(_demo_dict(result), indent=2))
    else:
        _print_demo(result)
    return 0


class _StepBar(keras.callbacks.Callback):
    """Moves a progress bar with each training step."""

    def __init__(self, progress: Progress, name: str, steps: int) -> None:
        super().__init__()
        self.bar = progress
        self.task = progress.add_task(name, total=steps)

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        self.bar.advance(self.task)


def _print_demo(result: DemoResult) -> None:
    networks = _table("network", "trainable parameters", "training", "test accuracy")
    for column in networks.columns[1:]:
        column.justify = "right"
    for name, accuracy in result.accuracy.items():
        networks.add_row(name, f"{result.parameters[name]:,}", f"{result.seconds[name]:.0f} s", f"{accuracy:.1%}")
    exports = _table("saved as", "file", "size", "one image", "same answer", "max. error")
    for column in exports.columns[2:]:
        column.justify = "right"
    for entry in result.exports:
        exports.add_row(
            entry.name,
            entry.path.name,
            f"{entry.size / 1e6:.2f} MB",
            f"{entry.latency * 1e3:.2f} ms",
            f"{entry.agreement:.1%}",
            f"{entry.difference:.1e}",
        )
    console.print(networks)
    console.print(exports)
    console.print(
        f"All files, and test images with their predictions ({result.picture.name}): {result.picture.parent}/"
    )


def _demo_dict(result: DemoResult) -> dict[str, Any]:
    return {
        "accuracy": result.accuracy,
        "parameters": result.parameters,
        "seconds": result.seconds,
        "exports": [{**vars(entry), "path": str(entry.path)} for entry in result.exports],
        "picture": str(result.picture),
    }


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=progress_console,
    )


def _bar(title: str) -> Callable[[Iterable[int]], Iterator[int]]:
    def wrapped(items: Iterable[int]) -> Iterator[int]:
        items = list(items)
        with _progress() as progress:
            yield from progress.track(items, description=title)

    return wrapped


def _table(*columns: str) -> Table:
    table = Table(title_justify="left", title_style="bold")
    for column in columns:
        table.add_column(column)
    return table


COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    "list": run_list,
    "info": run_info,
    "convert": run_convert,
    "predict": run_predict,
    "export": run_export,
    "verify": run_verify,
    "benchmark": run_benchmark,
    "demo": run_demonstration,
}
