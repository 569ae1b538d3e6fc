"""`se-keras predict`: the classes of image files."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras

from se_keras.class_names import imagenet_classes
from se_keras.class_names_file import NAMES_FILE
from se_keras.cli.class_names import class_names_for
from se_keras.cli.console import FittingTable, bar_on_stderr, console, print_json, progress_console
from se_keras.cli.models import load
from se_keras.images.reading import Faults, separated
from se_keras.inference import classify
from se_keras.prediction import FolderPrediction, predict_folder
from se_keras.prediction.merge import check_output
from se_keras.preprocessing import preprocessing_of
from se_keras.progress import shown_by
from se_keras.surgery.outputs import scores_of


def run(options: argparse.Namespace) -> int:
    """Prints the most probable classes of image files, or writes those of all images in a folder to a table."""
    if options.input:
        return _predict_folder(options)
    unused = [name for name in _FOLDER_OPTIONS if getattr(options, name)]
    if unused:
        raise ValueError(f"--{unused[0].replace('_', '-')} is for all images in a folder: add --input FOLDER.")
    folders = [path for path in options.images if os.path.isdir(path)]
    if folders:
        raise ValueError(
            f"{folders[0]!r} is a folder: pass it as --input {folders[0]}, and name the table to write with --output "
            "FILE, a .parquet or .csv file."
        )
    missing = [path for path in options.images if not os.path.lexists(path)]
    if missing:
        raise FileNotFoundError(f"There is no image file at {', '.join(map(repr, missing))}.")
    model = load(options.model)
    labels = _labels(options, model)
    readable, faults = separated(options.images)
    for path, reason in faults:
        progress_console.print(f"not classified: '{os.fspath(path)}': {reason}")
    paths = [options.images[index] for index in readable]
    predictions = classify(model, paths, class_names=labels, top=options.top)
    if options.json:
        print_json(_json_rows(paths, predictions, faults))
    elif paths:
        _print_table(paths, predictions)
    return 1 if faults else 0


def _json_rows(paths: Sequence[str], predictions: Sequence[Any], faults: Faults) -> list[dict[str, Any]]:
    answered = [
        {
            "image": path,
            "predictions": [{"id": identifier, "label": label, "probability": p} for identifier, label, p in row],
        }
        for path, row in zip(paths, predictions, strict=True)
    ]
    return [*answered, *({"image": os.fspath(path), "error": reason} for path, reason in faults)]


def _print_table(paths: Sequence[str], predictions: Sequence[Any]) -> None:
    table = FittingTable("image", "class", "probability", numbers=slice(2, 3))
    for path, row in zip(paths, predictions, strict=True):
        for rank, (_, label, probability) in enumerate(row):
            table.add_row(path if rank == 0 else "", label, f"{probability:.1%}")
        table.add_section()
    console.print(table)


_FOLDER_OPTIONS = ("output", "engine", "workers", "gpus_per_worker", "overwrite")


def _predict_folder(options: argparse.Namespace) -> int:
    if not options.output:
        raise ValueError("--input needs --output FILE, a .parquet or .csv file.")
    check_output(options.output, overwrite=options.overwrite)
    model = load(options.model)
    labels = _labels(options, model)
    started, counter = time.monotonic(), _Counter()
    try:
        with shown_by(counter.shown):
            done = predict_folder(
                model,
                options.input,
                options.output,
                top=options.top,
                batch_size=options.batch_size,
                class_names=labels,
                engine=options.engine or "local",
                workers=options.workers,
                gpus_per_worker=options.gpus_per_worker or 0,
                overwrite=options.overwrite,
            )
    except KeyboardInterrupt:
        progress_console.print(
            f"interrupted after {counter.done:,} of {counter.total:,} images; run the same command again to resume"
        )
        return 130
    seconds = time.monotonic() - started
    if options.json:
        print_json({**dataclasses.asdict(done), "seconds": seconds}, default=os.fspath)
    else:
        _print_summary(done, seconds)
    return 0 if done.classified else 1


@dataclasses.dataclass
class _Counter:
    """A progress bar for each task, and the progress of the last one."""

    done: int = 0
    total: int = 0

    @contextlib.contextmanager
    def shown(self, title: str, total: int | None) -> Iterator[Callable[[], None]]:
        """Shows a bar on standard error, for `se_keras.progress.shown_by`."""
        self.done, self.total = 0, total or 0
        with bar_on_stderr(title, total) as advance:

            def count() -> None:
                self.done += 1
                advance()

            yield count


def _print_summary(done: FolderPrediction, seconds: float) -> None:
    total = done.classified + done.broken
    if done.resumed:
        console.print(f"resumed at {done.resumed:,} of {total:,} images")
    speed = (total - done.resumed) / seconds
    console.print(f"images classified: {done.classified:,} in {seconds:,.1f} s ({speed:,.0f}/s), {done.output}")
    if done.broken:
        console.print(f"files not classified: {done.broken:,}, listed with the reasons in {done.broken_list}")
    if done.added:
        console.print(f"images left out because they were added after the start: {done.added:,}")


def _labels(options: argparse.Namespace, model: keras.Model) -> list[str] | None:
    """Returns the class names; None for ImageNet's."""
    preprocessing_of(model)  # reports errors before any image is read
    names = class_names_for(options.model, model, options.class_names)
    classes = scores_of(model).classes
    if not names and classes != len(imagenet_classes()):
        raise ValueError(
            f"The model has {classes} classes of its own. Name them with --class-names FILE, one per line; a "
            f"{NAMES_FILE} next to the model is used if it has that many."
        )
    return list(names) or None
