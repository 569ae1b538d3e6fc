"""`se-keras verify`: an exported file compared with its model."""

from __future__ import annotations

import argparse
import dataclasses
import os

import keras

from se_keras import export
from se_keras.cli.console import print_lines
from se_keras.cli.images import refuse_broken
from se_keras.cli.models import load_or_path
from se_keras.export.agreement import LIMITS, Limits
from se_keras.export.report_figures import report_targets
from se_keras.export.runtime import format_of
from se_keras.export.structure import structure_of
from se_keras.files import check_targets


def run(options: argparse.Namespace) -> int:
    """Compares an exported file with its model and prints the report; fails if the report does."""
    format_of(options.file)  # reports errors before any model is built
    if options.strict and options.data:
        refuse_broken(options.data)
    return print_report(options.file, options.model and load_or_path(options.model), options)


def print_report(file: str | os.PathLike, model: keras.Model | str | None, options: argparse.Namespace) -> int:
    """Verifies a file as the options say, and prints the report; the exit code is 1 if it fails."""
    check_report(options)
    report = export.verify(
        file,
        model,
        data=options.data,
        limits=_limits(structure_of(file).dtype, options),
        targets=options.target,
        layers=options.layers,
        most_images=options.images,
        threads=options.threads,
    )
    print_lines(report.to_json() if options.json else str(report))
    if options.report:
        export.write_report(report, options.report)
    return 0 if report.passed else 1


def check_report(options: argparse.Namespace) -> None:
    """Rejects a folder for the report that contains other files of the same names, before any work is done."""
    if options.report:
        check_targets(report_targets(options.report), overwrite=True)


def _limits(dtype: str, options: argparse.Namespace) -> Limits:
    chosen = {
        "relative_error": options.max_relative_error,
        "top1_agreement": options.min_top1_agreement,
        "accuracy_drop": options.max_accuracy_drop,
        "squared_error": options.max_squared_error,
    }
    return dataclasses.replace(LIMITS[dtype], **{name: value for name, value in chosen.items() if value is not None})
