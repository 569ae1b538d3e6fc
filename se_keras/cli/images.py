"""Labelled images to try a model on: those that its training held back."""

from __future__ import annotations

import argparse
import os
import pathlib

from se_keras.cli.console import bar
from se_keras.training.run_folder import RUN_FILE, read_run
from se_keras.training.sources import Data, open_data


def open_images(options: argparse.Namespace) -> Data:
    """Opens --data with --validation-split, or the one in the run's folder that the model lies in."""
    split = _split_of_run(options.model) if options.validation_split is None else options.validation_split
    chosen = {} if split is None else {"validation_split": split}
    return open_data(options.data, strict=options.strict, progress=bar("Checking images"), **chosen)


def _split_of_run(model: str) -> float | None:
    file = pathlib.Path(model).parent / RUN_FILE
    if not os.path.exists(model) or not file.is_file():
        return None
    try:
        return (read_run(file.parent).get("arguments") or {}).get("validation_split")
    except ValueError as error:
        raise ValueError(f"{error} Or pass --validation-split, which is read from there otherwise.") from error
