"""Keras' own weights files, loaded strictly."""

from __future__ import annotations

import collections
import contextlib
import os
import zipfile
from typing import Any

import h5py
import keras

KERAS_FILES = (".weights.h5", ".keras")


def load_keras_file(model: keras.Model, path: str | os.PathLike) -> None:
    """Loads a `.weights.h5` or `.keras` file into a model of the same structure.

    Args:
        model: The model to fill.
        path: The file.

    Raises:
        ValueError: The file ends in something else, or does not fit the model.
    """
    path = os.fspath(path)
    if not path.endswith(KERAS_FILES):
        raise ValueError(f"A weights file ends in .weights.h5 or .keras; received {path!r}.")
    stored = _stored_shapes(path)
    own = collections.Counter(tuple(weight.shape) for weight in model.weights)
    if stored != own:  # Keras itself ignores what the model lacks, and warns only of what the file lacks
        raise ValueError(
            f"The weights in {path!r} are not those of {model.name!r} as it was built: of its {own.total()} arrays "
            f"{(own - stored).total()} have no counterpart in the file, and of the file's {stored.total()} "
            f"{(stored - own).total()} have none in the model. Build it with the options (classes, se, include_top) "
            "that the file was saved with."
        )
    model.load_weights(path)


def _stored_shapes(path: str) -> collections.Counter[tuple[int, ...]]:
    shapes: collections.Counter[tuple[int, ...]] = collections.Counter()

    def add(name: str, item: Any) -> None:
        if name.startswith("layers/") and "seed_generator" not in name and isinstance(item, h5py.Dataset):
            shapes[item.shape] += 1

    try:
        with contextlib.ExitStack() as stack:
            file: Any = path
            if path.endswith(".keras"):
                archive = stack.enter_context(zipfile.ZipFile(path))
                file = stack.enter_context(archive.open("model.weights.h5"))
            stack.enter_context(h5py.File(file, "r")).visititems(add)
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise ValueError(f"The weights file {path!r} cannot be read: {error}") from error
    return shapes
