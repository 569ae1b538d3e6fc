"""Labeled images to evaluate a model on: those that its training held back."""

from __future__ import annotations

import argparse
import os
import pathlib
from typing import Any

from se_keras.cli.console import progress_console
from se_keras.export.images import left_out
from se_keras.images.folders import image_files, text_of
from se_keras.images.reading import separated
from se_keras.training.run_folder import RUN_FILE, read_run
from se_keras.training.sources import Data, open_data


def open_images(options: argparse.Namespace) -> Data:
    """Opens --data with --validation-split, or with the split of the run whose folder contains the model."""
    split = _split_of_run(options.model) if options.validation_split is None else options.validation_split
    chosen: dict[str, Any] = {} if split is None else {"validation_split": split}
    data = open_data(options.data, strict=options.strict, **chosen)
    if data.broken:
        progress_console.print(left_out(data.broken))
    return data


def refuse_broken(folder: str | os.PathLike) -> None:
    """Rejects a folder that contains a file that cannot be read as an image; an `.npz` file has none."""
    if os.fspath(folder).endswith(".npz"):
        return
    paths = [os.path.join(folder, name) for name in image_files(folder)]
    _, faults = separated(paths, verbose=1)
    if faults:
        listed = "; ".join(f"{text_of(file)!r}: {reason}" for file, reason in faults[:5])
        raise ValueError(f"{len(faults)} of {len(paths)} files cannot be read as images: {listed}")


def _split_of_run(model: str) -> float | None:
    file = pathlib.Path(model).parent / RUN_FILE
    if not os.path.exists(model) or not file.is_file():
        return None
    try:
        return (read_run(file.parent).get("arguments") or {}).get("validation_split")
    except ValueError as error:
        raise ValueError(f"{error} If you pass --validation-split, that file is not needed.") from error
