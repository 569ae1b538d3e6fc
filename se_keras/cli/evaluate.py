"""`se-keras evaluate`: the accuracy of a model or an exported file on labeled images."""

from __future__ import annotations

import argparse
import pathlib

import keras

from se_keras.class_names import get_class_names
from se_keras.cli.class_names import names_beside
from se_keras.cli.console import FittingTable, console, print_json
from se_keras.cli.images import open_images
from se_keras.cli.models import load_or_path
from se_keras.export.runtime import format_of
from se_keras.files import FIGURE, check_targets
from se_keras.training.evaluate import METRICS, evaluate, write_metrics
from se_keras.training.figures import draw_confusion
from se_keras.training.run_folder import CONFUSION_FILE, METRICS_FILE


def run(options: argparse.Namespace) -> int:
    """Prints the accuracy, overall and by class, and writes a confusion matrix if asked to."""
    folder = pathlib.Path(options.report or ".")
    if options.report:
        check_targets({folder / METRICS_FILE: METRICS, folder / CONFUSION_FILE: FIGURE}, overwrite=True)
    model = load_or_path(options.model)
    if isinstance(model, str):
        format_of(model)  # reports errors before any image is read
    data = open_images(options)
    images = data.train if options.split == "train" else data.validation
    is_unnamed = isinstance(model, keras.Model) and not get_class_names(model)
    names = names_beside(options.model, len(images.class_names)) if is_unnamed else ()
    result = evaluate(model, images, class_names=names or None, threads=options.threads)
    if options.report:
        write_metrics(result, folder / METRICS_FILE)
        draw_confusion(
            result, folder / CONFUSION_FILE, title=f"{options.model} on {data.name}: {result.images:,} images"
        )
    if options.json:
        print_json(result.as_dict())
    else:
        table = FittingTable("class", "accuracy", "most often taken for", numbers=slice(1, 2))
        for index, (name, share) in enumerate(result.by_class.items()):
            wrong = result.confusion[index].copy()
            wrong[index] = 0
            confused = f"{result.class_names[wrong.argmax()]} ({wrong.max():,})" if wrong.max() else ""
            table.add_row(name, f"{share:.2%}", confused)
        console.print(table)
        top5 = "" if result.top5 is None else f", top-5 accuracy {result.top5:.2%}"
        console.print(f"{options.model}: accuracy {result.accuracy:.2%} on {result.images:,} images{top5}")
    if options.min_accuracy is not None and result.accuracy < options.min_accuracy:
        raise ValueError(f"The accuracy {result.accuracy:.4f} is below --min-accuracy {options.min_accuracy}.")
    return 0
